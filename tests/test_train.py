"""Training runs as a user starts them: papermill, the command line, and everything that can be mistyped.

The chapter's own tests are run by nbdev_test; papermill leaves them out.
"""
import json
import os
import re
import subprocess
import sys

import pytest

TINY = ["-p", "epochs", "1", "-p", "train", "360"]
LEFT = 120  # test digits, for a row that only has to run


@pytest.fixture(scope="session")
def chapter(root):
    "The path of 05_train.ipynb. Papermill leaves out the cells that only test, by their tag; nbdev_test runs them."
    path = root / "nbs" / "05_train.ipynb"
    skipped = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if "skip-execution" in cell["metadata"].get("tags", ())]
    assert len(skipped) > 5 and not any("#| export" in text or "run(**parameters)" in text for text in skipped)
    return path


def papermill(notebook, out, *parameters, cwd, stdout=subprocess.PIPE, env=os.environ):
    arguments = [sys.executable, "-m", "papermill", "--no-progress-bar", notebook, *([out] if out else []), *parameters]
    return subprocess.run(list(map(str, arguments)), cwd=cwd, stdout=stdout, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                          env={**env, "OMP_NUM_THREADS": "1"}, timeout=900)


WRONG = [  # parameters, what the error must say
    (("method", "tardes"), "did you mean 'trades'? Allowed: natural, gr, llr, at, rst, trades"),
    (("dataset", "mnits"), "Allowed: digits, mnist, svhn, cifar10, resimagenet"),
    (("arch", "CNN9"), "Allowed: CNN1, CNN2, WRN-40-10, ResNet50"),
    (("variant", "fixed"), "Allowed: paper, released"),
    (("profile", "fast"), "Allowed: smoke, quick, medium, paper"),
    (("betta", "6"), "unknown parameter 'betta'; did you mean 'beta'?"),
    (("beta", "six"), "beta 'six' (str): it must be float or None"),
    (("epochs", "0.5"), "epochs 0.5 (float): it must be int or None"),
    (("dropout", "1.5"), "dropout 1.5: it must be None, or at least 0 and below 1"),
    (("eps", "0"), "eps 0.0: it must be above 0 and at most 1"),
    (("validation", "0.7"), "validation 0.7: it must be None, or above 0 and at most .5"),
    (("ema", "1"), "ema 1.0: it must be None, or above 0 and below 1"),
    (("weight_decay", "-1"), "weight_decay -1.0: it must be None, or above 0"),
    (("label_smoothing", "two"), "label_smoothing 'two' (str): it must be float or None"),
    (("augment", "mirror"), "unknown augment 'mirror'"),
    (("augment", "flip"), "a mirrored digit is not a digit; for digits allowed: crop, cutout"),
    (("seed", "-1"), "seed -1: it must be an integer of 0 to 4,294,967,295"),
    (("device", "gpu"), "Allowed: auto, cpu, cuda"),
]


@pytest.mark.parametrize("given,message", WRONG, ids=lambda v: v[0] if isinstance(v, tuple) else "")
def test_the_command_line_refuses_before_any_work(given, message, tmp_path, capsys, monkeypatch):
    from robustacc import train
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "load", lambda *a, **k: pytest.fail("data was loaded"))
    name, value = given
    if name == "betta":
        with pytest.raises(ValueError, match="did you mean 'beta'"): train.plan(betta=6.)
    else:
        with pytest.raises(SystemExit) as end: train.main([f"--{name}", value])
        assert end.value.code == 2 and message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_strength_that_the_method_lacks(tmp_path, capsys):
    from robustacc.train import main
    with pytest.raises(SystemExit): main(["--method", "at", "--beta", "6", "--results", str(tmp_path)])
    assert "these have: gr, trades" in capsys.readouterr().err
    with pytest.raises(SystemExit): main(["--method", "trades", "--beta", "-1", "--results", str(tmp_path)])
    assert "beta -1.0: it must be 0 or more" in capsys.readouterr().err


def test_papermill_refuses_before_any_work(chapter, tmp_path):
    done = papermill(chapter, "out.ipynb", "-p", "epochs", "0.5", cwd=tmp_path)
    assert done.returncode != 0 and "it must be int or None" in done.stderr
    assert not (tmp_path / "_runs").exists()


def test_the_notebook_refuses_a_parameter_that_it_does_not_know(opened, tmp_path, monkeypatch):
    "The chapter's last cell but one is `run(**parameters)`, whose first step is `plan`."
    from robustacc.train import plan
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="unknown parameter 'betta'; did you mean 'beta'"): plan(**opened("05_train", betta=6)["parameters"])
    assert not (tmp_path / "_runs").exists()


@pytest.fixture(scope="session")
def trained(chapter, fewer, tmp_path_factory):
    "A folder in which papermill has trained a row for an epoch, and how that ended."
    folder, env = tmp_path_factory.mktemp("trained"), fewer(train=720, test=LEFT)
    return folder, papermill(chapter, "out.ipynb", *TINY, "-p", "method", "natural", cwd=folder, env=env), env


def test_papermill_trains_writes_the_record_and_shows_the_page(trained, opened, monkeypatch):
    folder, done, _ = trained
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((folder / "_runs/smoke/digits/CNN2/natural-epochs1-n360-seed0.json").read_text())
    assert record["settings"]["recipe"]["epochs"] == 1 and record["metrics"]["counts"]["test_acc"] == LEFT
    assert 100 * 37 / 360 < record["metrics"]["test_acc"] <= 100          # better than the largest class alone
    page = (folder / "out.ipynb").read_text()
    assert "ours (smoke)" in page and "image/png" in page
    other = {**record, "settings": {**record["settings"], "recipe": {**record["settings"]["recipe"], "lr": .5}}}  # other settings of the profile, same name
    (folder / "_runs/smoke/digits/CNN2/natural-epochs1-n360-seed0.json").write_text(json.dumps(other))
    monkeypatch.chdir(folder)
    from robustacc.records import RecordExistsError
    from robustacc.train import run
    with pytest.raises(RecordExistsError, match="holds a finished run of other settings .*lr: 0.5 -> 0.002"): run(**opened("05_train", epochs=1, train=360)["parameters"])
    assert json.loads((folder / "_runs/smoke/digits/CNN2/natural-epochs1-n360-seed0.json").read_text()) == other
    (folder / "_runs/smoke/digits/CNN2/natural-epochs1-n360-seed0.json").write_text(json.dumps(record))


@pytest.mark.slow
def test_without_an_output_path_and_stdout_redirected(trained, chapter):
    folder, _, env = trained                                              # finished: the notebook has only to show it
    with (folder / "page.json").open("w") as page: done = papermill(chapter, None, *TINY, cwd=folder, stdout=page, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    shown = json.loads((folder / "page.json").read_text())
    assert any("ours (smoke)" in json.dumps(cell) for cell in shown["cells"])


def test_published_rows_are_still_the_rows_that_are_planned(root):
    "A record that was written before an option existed stays the record of the row without it."
    from dataclasses import fields
    from robustacc.records import finished, read_record
    from robustacc.methods import METHODS
    from robustacc.train import plan
    found = sorted((root / "results" / "smoke" / "digits").glob("*/*.json"))
    assert found
    for path in found:
        s = read_record(path)["settings"]
        name = next(name for name, kind in METHODS.items() if kind.__name__ == s["method"]["name"])
        same = {f.name: s["method"][f.name] for f in fields(METHODS[name]) if f.name in ("beta", "lam", "mu")}
        tools = {**(s.get("tools") or {}), **{k: s[k] for k in ("dataset", "arch", "dropout", "eps", "profile", "seed")}}
        p = plan(method=name, variant=s["method"]["variant"], **same, **tools, results=str(root / "results"))
        assert p.path == path and finished(p.path, p.settings)


def test_seed_and_batch_size_of_the_evaluation():
    import numpy as np
    import torch
    from robustacc.attacks import PGD, Threat
    from robustacc.evaluation import robust
    from robustacc.data import load
    from robustacc.networks import build
    torch.manual_seed(0)
    net, test = build("CNN1").eval(), load("digits").test.take(60)
    labels = net(torch.tensor(test.images) / 255.).argmax(1).numpy()       # all correct: every example is attacked
    runs = [robust(net, test.images, labels, PGD(), Threat(.02), seed=seed, batch_size=size) for seed, size in ((0, 60), (0, 7), (1, 60))]
    assert 0 < runs[0].mean() < 1
    assert np.array_equal(runs[0], runs[1])
