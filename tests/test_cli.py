"""The command `robustacc`: light until something is asked of it, one way to end, JSON for programs, and a row of the paper by its name."""
import json
import os
import subprocess
import sys

import pytest

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
