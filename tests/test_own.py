"""Methods, networks and data of one's own: outside scripts, other processes, and names that cannot collide."""
import importlib
import json
import linecache
import subprocess
import sys
import warnings

import pytest

from robustacc.checkpoints import CheckpointError
from robustacc.data import _made, own_data
from robustacc.files import checkout
from robustacc.methods import own_methods
from robustacc.networks import own_networks
from robustacc.records import RecordExistsError, finished, write_record
from robustacc.runs import run_name
from robustacc.train import plan, run

OWN = '''
from dataclasses import dataclass
import numpy as np
from torch import nn
from robustacc.attacks import PGD
from robustacc.data import from_arrays, own_data
from robustacc.methods import Method, own_methods
from robustacc.networks import own_networks

@own_methods.register("mart-of-NAME")
@dataclass(frozen=True)
class MART(Method):
    lam: float = 5.
    margin: float = 1.
    title = "MART of NAME"
    def loss(self, model, images, labels, threat, key):
        found = PGD(steps=self.steps, step=self.step)(model, images, labels, threat, index=key.index, seed=key.seed, stream=key.stream)
        p, q = model(images).log_softmax(1), model(found).log_softmax(1)
        p_y, q_y = (v.gather(1, labels[:, None])[:, 0] for v in (p.exp(), q))
        others = q.exp().scatter(1, labels[:, None], 0).amax(1)
        return -q_y - self.margin * (1 - others).clamp_min(1e-6).log() + self.lam * (p.exp() * (p - q)).sum(1) * (1 - p_y)

@own_networks.register("linear-of-NAME")
def linear(in_shape, n_classes): return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(in_shape)), n_classes))

@own_data.register("digits-of-NAME")
def digits():
    from sklearn.datasets import load_digits
    values, labels = load_digits(return_X_y=True)
    images = (values / 16).reshape(-1, 1, 8, 8).astype("float32")
    return from_arrays(images[:200], labels[:200], images[200:260], labels[200:260], eps=.2)
'''
GRID = '''
from robustacc.results import results_table
from robustacc.train import run
records = [run(dataset="digits-of-mine", arch="linear-of-mine", method=method, seed=seed, profile="smoke", device="cpu", epochs=2, progress=False)
           for method in ("natural", "at", "mart-of-mine") for seed in (0, 1, 2)]
for row in results_table(records): print(row["row"], row["seeds"], row["n"], row["adv_test_acc"], *row["interval"], sep="|")
'''


@pytest.fixture
def modules(tmp_path, monkeypatch):
    "A folder of modules; what they register is forgotten afterwards."
    monkeypatch.syspath_prepend(str(tmp_path))
    for registry in (own_data, own_networks, own_methods): monkeypatch.setattr(registry, "_own", {})
    def make(name, text=OWN, **changes):
        (tmp_path / f"{name}.py").write_text(text.replace("NAME", changes.get("called", name)))
        importlib.invalidate_caches()
        sys.modules.pop(name, None)
        return name
    return make


def test_both_spellings_are_one_row_with_its_hyper_parameters_in_name_and_record(modules, tmp_path):
    modules("mine")
    given = dict(profile="smoke", device="cpu", results=str(tmp_path))
    by_place = plan(dataset="mine:digits", arch="mine:linear", method="mine:MART", lam=3, hyper="margin=.5", **given)
    by_name = plan(dataset="digits-of-mine", arch="linear-of-mine", method="mart-of-mine", lam=3., hyper="margin=.5", **given)
    assert by_place.settings == by_name.settings and by_place.path == by_name.path
    assert by_place.path.relative_to(tmp_path).as_posix() == "smoke/digits-of-mine/linear-of-mine/mart-of-mine-lam3-margin.5-seed0.json"
    assert by_place.settings["own"] == {"dataset": "mine:digits", "arch": "mine:linear", "method": "mine:MART", "eps": .2} and by_place.eps == .2
    assert (by_place.settings["method"]["margin"], by_place.settings["method"]["lam"]) == (.5, 3.)
    assert "eps.1" in plan(dataset="mine:digits", eps=.1, **given).path.name and "own" not in plan(profile="smoke").settings
    with pytest.raises(ValueError, match="has no alpha .*it has: lam, margin"): plan(method="mine:MART", hyper="alpha=1", **given)


def test_two_modules_with_one_name_are_both_named(modules):
    modules("mine")
    modules("theirs", called="mine")
    plan(method="mine:MART")
    with pytest.raises(ValueError, match="mine:MART and theirs:MART both have this name"): plan(method="theirs:MART")
    modules("thief", OWN.replace("mart-of-NAME", "trades"))
    with pytest.raises(ValueError, match="that is a built-in one"): plan(method="thief:MART")


def test_in_another_process_the_record_keeps_them_apart(modules, tmp_path):
    "There the other module is not imported, and the record says whose it is."
    modules("mine")
    p = plan(dataset="mine:digits", method="natural", profile="smoke", device="cpu", results=str(tmp_path))
    record = json.loads((checkout() / "results/smoke/digits/CNN2/natural-seed0.json").read_text())
    write_record(p.path, {**{k: v for k, v in record.items() if k != "schema"}, "settings": p.settings})
    assert run_name(json.loads(p.path.read_text())["settings"]).path == p.path.relative_to(tmp_path)     # without importing anything
    with pytest.raises(RecordExistsError, match="own.dataset: 'mine:digits' -> 'theirs:digits'"):
        finished(p.path, {**p.settings, "own": {**p.settings["own"], "dataset": "theirs:digits"}})


SMALL = OWN.replace("images[:200], labels[:200], images[200:260], labels[200:260]", "images[:60], labels[:60], images[200:230], labels[200:230]")


def test_a_finished_row_says_that_loss_or_data_were_others(modules, tmp_path):
    "A row has the name of its method and its data, and not their content: the numbers that come back are those of the old ones."
    given = dict(dataset="mine:digits", arch="mine:linear", method="mine:MART", profile="smoke", epochs=1, device="cpu", results=str(tmp_path / "runs"), progress=False)
    def again(text):
        for registry in (own_data, own_networks, own_methods): registry._own.clear()
        _made.cache_clear()
        modules("mine", text)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            record = run(**given)
        return record, [str(w.message) for w in said if "of a finished run" in str(w.message)]
    first, said = again(SMALL)
    assert said == [] and list(first["source"]["own"]) == ["mine"]
    assert again(SMALL) == (first, [])
    record, (said,) = again(SMALL.replace("return -q_y", "return q_y"))
    assert record == first and "and the module mine was another then: its numbers are those of that time" in said
    record, (said,) = again(SMALL.replace("values / 16", "values / 17"))
    assert record == first and "and the module mine and the data set digits-of-mine was another then" in said
    path = plan(**{k: v for k, v in given.items() if k != "progress"}).path
    for file in path.parent.iterdir(): file.unlink()
    record, said = again(SMALL.replace("values / 16", "values / 17"))
    assert said == [] and record["data"]["sha256"] != first["data"]["sha256"]


def test_a_training_does_not_go_on_with_another_loss(modules, tmp_path, monkeypatch):
    given = dict(dataset="mine:digits", arch="mine:linear", method="mine:MART", profile="smoke", epochs=2, device="cpu", results=str(tmp_path / "runs"), progress=False, every=0)
    modules("mine", SMALL)
    def stop(*_, **__): raise KeyboardInterrupt
    with monkeypatch.context() as here, pytest.raises(KeyboardInterrupt):
        here.setattr("robustacc.measuring.local_lipschitz", stop)
        run(**given)
    for registry in (own_data, own_networks, own_methods): registry._own.clear()
    linecache.clearcache()
    modules("mine", SMALL.replace("return -q_y", "return q_y"))
    with pytest.raises(CheckpointError, match="of a run with other settings .code.mine:MART: "): run(**given)
    for registry in (own_data, own_networks, own_methods): registry._own.clear()
    linecache.clearcache()
    modules("mine", SMALL + "\n# a remark elsewhere\n")
    assert run(**given)["settings"]["method"]["lam"] == 5


@pytest.mark.slow
def test_a_grid_in_forty_lines_and_papermill_finds_its_rows_finished(tmp_path, python):
    text = OWN.replace("NAME", "mine")
    assert len((text + GRID).strip().splitlines()) <= 40
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "grid.py").write_text("import mine\n" + GRID)
    done = python("grid.py")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert [row[:3] for row in rows] == [[name, "3", "60"] for name in ("Natural, 2 epochs", "AT, 2 epochs", "MART of mine, lambda 5, margin 1, 2 epochs")]
    assert all(float(row[4]) <= float(row[3]) <= float(row[5]) for row in rows)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert len(before) == 9
    parameters = dict(dataset="mine:digits", arch="mine:linear", method="mine:MART", profile="smoke", device="cpu", epochs=2, seed=1)
    done = subprocess.run([sys.executable, "-m", "papermill", "--no-progress-bar", checkout() / "nbs" / "05_train.ipynb", "page.ipynb", "-r", "results", str(tmp_path / "_runs"),
                           *(part for name, value in parameters.items() for part in ("-p", name, str(value)))], cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before     # found, not run again
    done = python("-m", "robustacc", "results", "--dataset", "mine:digits", "--json")
    assert [row["seeds"] for row in json.loads(done.stdout)["rows"]] == [3, 3, 3], done.stderr
