"""The command `robustacc`: light until something is asked of it, one way to end, JSON for programs, and a row of the paper by its name."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from robustacc import cli
from robustacc.files import checkout

COMMANDS = sorted(cli._places())


def run(*arguments):
    "Exit status of `robustacc ARGUMENTS`, in this process."
    try: cli.main([str(a) for a in arguments])
    except SystemExit as end: return end.code or 0
    return 0


def test_help_and_import_load_no_torch(python):
    code = ("import sys, robustacc.cli as c\ntry: c.main(['--help'])\nexcept SystemExit as end: assert not end.code\n"
            "print([n for n in ('torch', 'numpy', 'numba', 'sklearn') if n in sys.modules])")
    done = python("-c", code)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr
    assert all(f"\n    {name} " in done.stdout for name in COMMANDS)


def test_python_m_robustacc_is_the_same_command(python):
    assert python("-m", "robustacc", "--version").stdout == python("-c", "import robustacc; print('robustacc', robustacc.__version__)").stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_one_style(name, capsys):
    assert run(name, "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: robustacc {name} ") and "--json" in said and f"examples:\n  robustacc {name} " in said
    assert run(name, "--no-such-option") == 2


@pytest.mark.parametrize("arguments,named", [
    (["trian"], "did you mean 'train'?"), ([], "usage: robustacc"), (["train", "--beta", "x"], "beta 'x'"), (["train", "--table", "2"], "--table and --row"),
    (["train", "--table", "1", "--row", "AT"], "table 1: it must be 2, 3, 4"), (["train", "--table", "2", "--row", "AT, CNN1", "--method", "at"], "method at: it must be left out"),
    (["train", "--table", "2", "--row", "ATT, CNN1"], "Allowed: Natural, CNN1; GR, CNN1;"), (["train", "--table", "2", "--row", "AT, CNN1", "--dataset", "svhn"], "Allowed: mnist"),
    (["train", "--table", "4", "--row", "AT", "--dataset", "svhn", "--dropout", ".3"], "--dropout .5"), (["proof", "--lam", "-1"], "lam"), (["publish", "nowhere.json"], "nowhere.json"),
    (["results"], "--table NUMBER or --dataset NAME"), (["results", "--table", "1"], "table 1"), (["separation", "--dataset", "digits", "--p", "3"], "--p")])
def test_an_error_of_the_user_ends_with_2_and_names_it(arguments, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    said = capsys.readouterr()
    assert named in said.err and not said.out and not list(tmp_path.iterdir())


def test_modules_of_ones_own_lie_where_the_command_is_started(tmp_path, monkeypatch, capsys):
    "A console script does not have that folder in its path; `python -m` does."
    import sys
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    (tmp_path / "nets_of_mine.py").write_text("def net(in_shape, n_classes): raise ValueError(f'called with {in_shape}, {n_classes}')")
    assert run("train", "--dataset", "digits", "--arch", "nets_of_mine:net", "--profile", "smoke") == 2
    assert "called with (1, 28, 28), 10" in capsys.readouterr().err


def test_a_file_where_the_command_is_started_hides_no_installed_module(tmp_path):
    "Like a console script, the command below lies in another folder than the one where it is started."
    script, here = tmp_path / "bin/command.py", tmp_path / "work"
    for folder in (script.parent, here): folder.mkdir()
    script.write_text("from robustacc.cli import main\nmain()")
    for name in ("random", "statistics", "torch", "numpy"): (here / f"{name}.py").write_text(f"raise ImportError('{name} is hidden')")
    done = subprocess.run([sys.executable, script, "train", "--help"], cwd=here, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: robustacc train "), done.stderr


def test_site_is_offered_in_a_checkout_only(monkeypatch, capsys):
    monkeypatch.setattr(cli, "checkout", lambda: None)
    assert "site" in COMMANDS and run("site") == 2 and "unknown command 'site'" in capsys.readouterr().err


def test_a_row_of_table_2_by_its_name(tmp_path, monkeypatch, capsys):
    from robustacc import train
    asked = []
    monkeypatch.setattr(train, "run", lambda every, **settings: asked.append(train.plan(**settings, results=str(tmp_path))) or sys.exit(0))
    assert run("train", "--table", "2", "--row", "AT, CNN1", "--profile", "quick", "--device", "cpu") == 0
    p, = asked
    assert (p.dataset, p.arch, p.method.label, p.profile, p.path.relative_to(tmp_path).as_posix()) == ("mnist", "CNN1", "AT", "quick", "quick/mnist/CNN1/at-seed0.json")


def test_results_of_a_table_agree_with_the_records(capsys, monkeypatch):
    monkeypatch.chdir(checkout())
    assert run("results", "--table", "2", "--runs", "results", "--json") == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)["rows"]
    assert "ours (paper)" in said.err                                                   # what is for people is on the other stream
    record = json.loads((checkout() / "results/paper/mnist/CNN1/natural-seed0.json").read_text())
    at = next(i for i, row in enumerate(rows) if row["whose"] == "ours (paper)" and row["arch"] == "CNN1" and row["row"] == "Natural")
    assert (rows[at]["adv_test_acc"], rows[at]["n"], rows[at]["seeds"]) == (record["metrics"]["adv_test_acc"]["pgd"], 10_000, 1)
    low, high = rows[at]["interval"]
    assert low < rows[at]["adv_test_acc"] < high
    printed = max(i for i in range(at) if rows[i]["whose"].startswith("the paper's"))
    assert (rows[printed]["row"], rows[printed]["adv_test_acc"]) == ("Natural", 59.83)


def test_the_shell_completes_names_and_options(tmp_path):
    pytest.importorskip("argcomplete")
    def completions(line):
        environment = {**os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "out"), "_ARGCOMPLETE_IFS": "\n"}
        done = subprocess.run([sys.executable, "-m", "robustacc"], env=environment, capture_output=True, text=True)
        assert not done.stdout, done.stderr
        return (tmp_path / "out").read_text().split()
    assert completions("robustacc se") == ["separation"]
    assert "--table" in completions("robustacc results --ta")


BENCHMARK = """
import subprocess, sys
import numpy as np, torch
from torch import nn
x = np.linspace(.1, .9, 20, dtype="float32")[:, None, None, None] * np.ones((1, 1, 4, 4), "float32")
class Bright(nn.Module):
    def forward(self, x): return torch.stack([.5 - x.flatten(1).mean(1), x.flatten(1).mean(1) - .5], 1)
torch.jit.script(Bright()).save("model.pt")
np.savez("data.npz", images=x, labels=(x.mean((1, 2, 3)) > .5).astype(int))
command = ["-m", "robustacc", "benchmark", "model.pt", "--data", "data.npz", "--eps", ".1", "--masking", "0", "--json"]
print(subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True).stdout)
"""


def test_benchmark_of_a_torchscript_file_in_fifteen_lines(tmp_path, python):
    assert len(BENCHMARK.strip().splitlines()) <= 15
    (tmp_path / "script.py").write_text(BENCHMARK)
    done = python("script.py")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    levels = [.1 + .8 * i / 19 for i in range(20)]                      # the mean moves by at most eps
    assert (found["clean"]["value"], round(20 * found["robust"]["value"])) == (1, sum(abs(level - .5) > .1 for level in levels))


def test_a_file_that_could_run_something_is_refused(tmp_path, monkeypatch, capsys):
    import pickle
    import torch
    monkeypatch.chdir(tmp_path)
    class Bomb:
        def __reduce__(self): return open, (str(tmp_path / "made"), "w")
    torch.save(Bomb(), "bomb.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pt", "plain.pt"):
        assert run("benchmark", name, "--data", "digits") == 2 and "it must be a TorchScript file or an exported program" in capsys.readouterr().err
    (tmp_path / "own_model.py").write_text("import torch\nmodel = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))\n")
    assert run("benchmark", "own_model:none", "--data", "digits", "--examples", "5") == 2 and "running the module own_model" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


# What a newcomer meets

class Net(torch.nn.Module):
    "Batch normalisation and dropout: what depends on the mode."
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Dropout(.5), torch.nn.Linear(16, 3))

    def forward(self, x): return self.layers(x)


class Four(Net):
    "Its code names the number of images."
    def forward(self, x): return self.layers[3](x.view(4, -1))


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    "In an empty folder: a network that has seen data, 12 images and its own answers as labels, also in files."
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net, images = Net(), torch.rand(12, 1, 4, 4)
    for _ in range(20): net(images)
    np.save("images.npy", images.numpy())
    np.save("labels.npy", net.eval()(images).argmax(1).numpy())
    return net, images


DATA = ("--data", "images.npy", "labels.npy", "--eps", ".01", "--masking", "12", "--no-lipschitz", "--examples", "5")
REMADE = "call .eval() on every network behind it and export or trace it again, since its graph is fixed in train mode"


def export(net, images, **options): torch.export.save(torch.export.export(net, (images,), **options), "model.pt2")


def test_a_network_exported_by_the_lines_of_the_readme_is_benchmarked_by_its_command(root, newcomer, capsys):
    model, images = newcomer
    lines, = [block for block in re.findall(r"^``` python\n(.*?)^```", (root / "README.md").read_text(), flags=re.M | re.S) if "torch.export" in block]
    assert len(lines.strip().splitlines()) == 2
    exec(lines, {"torch": torch, "model": model.train(), "images": images})                    # eval() is the lines' own business
    line, = re.findall(r"^robustacc (benchmark model.pt2 .*)$", (root / "README.md").read_text(), flags=re.M)
    assert run(*line.split(), "--no-lipschitz", "--masking", "12", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["clean"]["value"] == 1
    found = {f["name"]: (f["value"], f["warning"]) for f in said["masking"]["findings"]}
    assert (found["train mode"], found["random outputs"], found["batch dependence"][1]) == ((0, None), (0, None), None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("mode", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("way", ["exported", "traced", "scripted"])
def test_a_graph_made_in_train_mode_is_refused_and_no_other(newcomer, capsys, way, mode):
    "Scripted code asks the mode, and is put into eval mode."
    net, images = newcomer
    net.train(mode)
    if way == "exported": export(net, images, dynamic_shapes=({0: torch.export.Dim("n")},))
    elif way == "traced": torch.jit.trace(net, images, check_trace=False).save("model.pt2")
    else: torch.jit.script(net).save("model.pt2")
    refused = mode and way != "scripted"
    assert run("benchmark", "model.pt2", *DATA, "--json") == (2 if refused else 0)
    said = capsys.readouterr()
    if refused: assert REMADE in said.err and len(said.err.splitlines()) == 1 and not said.out
    else:
        found = {f["name"]: f["warning"] for f in json.loads(said.out)["masking"]["findings"]}
        assert found["train mode"] is None and json.loads(said.out)["clean"]["value"] == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("way,n,how", [("exported", 4, 'export it for any number of images, with dynamic_shapes=({0: torch.export.Dim("n")},)'), ("exported", 12, "export it for any number of images"),
                                       ("bounded", 4, "export it for any number of images"), ("traced", 4, "write x.flatten(1) and make the file again")])
def test_a_network_for_one_number_of_images_is_refused_in_one_line(newcomer, capsys, way, n, how):
    net, images = newcomer
    if way == "traced": torch.jit.trace(Four().eval(), images[:4]).save("model.pt2")
    else: export(net, images[:n], dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4)},) if way == "bounded" else None)
    assert run("benchmark", "model.pt2", *DATA) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the model does not take images of shape (") and how in said and len(said.splitlines()) == 1, said


@pytest.mark.parametrize("arguments,said", [
    (["benchmark", "nope.pt2", "--data", "digits"], "nope.pt2: no such file; it must be"), (["benchmark", "nope.json", "--data", "digits"], "nope.json: no such file; it must be"),
    (["benchmark", "model.pt2", "--data", "nope.npz"], "nope.npz: no such file or folder"), (["benchmark", "model.pt2", "--data", "images.npy", "nope.npy"], "nope.npy: no such file or folder"),
    (["audit", "nope"], "nope: no such file or folder"), (["audit", "images.npy", "--labels-file", "nope.txt"], "nope.txt: no such file or folder"),
    (["audit", "images.npy", "--labels-file", "labels.npy", "--groups-file", "nope.txt"], "nope.txt: no such file or folder"),
    (["audit", "images.npy", "--labels-file", "labels.npy", "--test", "nope.npz"], "nope.npz: no such file or folder"),
    (["audit", "images.npy", "--labels-file", "labels.npy", "--embedding", "nope.npy", "--radius-embedding", "1"], "nope.npy: no such file or folder"),
    (["publish", "nope.json"], "nope.json: no such file or folder")])
def test_a_file_that_is_not_there_is_said_to_be_missing(newcomer, capsys, arguments, said):
    assert run(*arguments) == 2
    line, = capsys.readouterr().err.splitlines()
    assert said in line and "Errno" not in line, line


def test_a_table_speaks_of_rows_and_columns(newcomer, capsys):
    rows = [f"{.1 * i:.1f},{.2 + .05 * i},{i % 2}" for i in range(6)]
    def table(*body): Path("wine.csv").write_text("\n".join(["acid,sugar,label", *body]))
    for cell in ("", "nan", "high", "1e999"):
        table(*rows[:2], f".3,{cell},1", *rows[3:])
        for command in (["audit", "wine.csv", "--eps", ".01"], ["benchmark", "images.npy", "--data", "wine.csv"]):
            assert run(*command) == 2
            assert capsys.readouterr().err == f"error: wine.csv: row 3, column sugar has {cell!r}: it must be a finite number (1 of 6 rows have none)\n"
    table(*rows[:2], ".3,.4,", *rows[3:])
    assert run("audit", "wine.csv") == 2 and "wine.csv: row 3 has no label" in capsys.readouterr().err
    table(*rows[:2], ".3,14,1", *rows[3:])
    assert run("benchmark", "images.npy", "--data", "wine.csv") == 2 and "wine.csv: row 3 has 14: numbers of a table must lie in [0, 1]" in capsys.readouterr().err
    table(*rows, rows[0])
    assert run("audit", "wine.csv", "--eps", ".01", "--draws", "0") == 0
    said = capsys.readouterr().out
    assert said.startswith("7 rows of 2 classes.") and "1 pair(s) of identical rows" in said and "image" not in said and "pixel" not in said


def test_results_say_where_they_looked_and_where_published_ones_lie(tmp_path, monkeypatch, capsys):
    from robustacc import results
    monkeypatch.chdir(tmp_path)
    (tmp_path / "_runs").mkdir()
    here = f"no record of these rows in {tmp_path.resolve()}/_runs or {tmp_path.resolve()}/results (no such folder); published records lie in "
    assert run("results", "--table", "2") == 0
    assert capsys.readouterr().err == f"{here}{checkout() / 'results'}: start the command there, or name it with --results\n"
    monkeypatch.setattr(results, "checkout", lambda: None)                              # an installed package
    assert run("results", "--dataset", "digits") == 0
    assert capsys.readouterr().err.startswith(f"{here}the folder results of a checkout (git clone ")
