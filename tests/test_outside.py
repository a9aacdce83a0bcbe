"""The package from outside, whole: its wheel in a fresh environment with nothing but what it asks for, the README's blocks in order, and short scripts of strangers."""
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from test_cli import BENCHMARK
from test_front_door import FOLDER, RESNET, TORCHSCRIPT, make_pictures, make_torchscript
from test_own import GRID, OWN
from test_package import build_wheel

pytestmark = pytest.mark.slow
ROW_OF_TABLE_2 = """
import json, subprocess, sys
row = ["--table", "2", "--row", "Natural, CNN1", "--profile", "quick", "--device", "cpu", "--epochs", "1", "--train", "500"]
subprocess.run([sys.executable, "-m", "robustacc", "train", *row], check=True)
shown = subprocess.run([sys.executable, "-m", "robustacc", "results", "--table", "2", "--json"], capture_output=True, text=True, check=True)
print([(r["whose"], r["row"], r["adv_test_acc"]) for r in json.loads(shown.stdout)["rows"] if r["arch"] == "CNN1" and r["row"].startswith("Natural")])
"""
SCRIPTS = {"own ResNet18": (RESNET, 15), "own folder": (FOLDER, 15), "TorchScript": (TORCHSCRIPT, 15), "TorchScript from the command line": (BENCHMARK, 15),
           "a row of Table 2": (ROW_OF_TABLE_2, 15), "own method, network and data": (OWN.replace("NAME", "mine") + GRID, 40)}


@pytest.fixture(scope="module")
def outside(root, tmp_path_factory):
    "Run `python ARGUMENTS` in an empty folder, with an interpreter that has the wheel and its requirements and nothing else."
    place = tmp_path_factory.mktemp("outside")
    wheel = build_wheel(root, place)
    venv.create(place / "venv", with_pip=True)
    done = subprocess.run([sys.executable, root / ".ci" / "install_beside.py", place / "venv", wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PATH": f"{place / 'venv' / 'bin'}:/usr/bin:/bin"}
    def run(*arguments, cwd):
        return subprocess.run([place / "venv" / "bin" / arguments[0], *map(str, arguments[1:])], cwd=cwd, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=3000)
    return run


def test_the_environment_has_the_wheel_and_none_of_the_tools_of_development(outside, tmp_path):
    done = outside("python", "-c", "import importlib.util as u, robustacc; print(robustacc.__file__, [n for n in ('nbdev', 'pytest', 'snakemake', 'foolbox', 'torchattacks') if u.find_spec(n)])", cwd=tmp_path)
    assert "/outside" in done.stdout and done.stdout.rstrip().endswith("[]"), done.stdout + done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_strangers_script(outside, tmp_path, name):
    script, lines = SCRIPTS[name]
    assert len(script.strip().splitlines()) <= lines
    (tmp_path / "script.py").write_text(script)
    if name == "own folder": make_pictures(tmp_path / "pictures")
    if name == "TorchScript": make_torchscript(tmp_path)
    if script is ROW_OF_TABLE_2 and not (Path(os.environ.get("ROBUSTACC_DATA", "/nowhere")) / "MNIST").is_dir(): pytest.skip("MNIST is not in ROBUSTACC_DATA")
    if "mine" in script:                                            # what is registered must be found again: a module, and a script that uses it
        (tmp_path / "mine.py").write_text(OWN.replace("NAME", "mine"))
        (tmp_path / "script.py").write_text("import mine\n" + GRID)
    done = outside("python", "script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    if script is ROW_OF_TABLE_2: assert "the paper's" in done.stdout and "ours (quick)" in done.stdout, done.stdout


def blocks(root, language):
    "The fenced blocks of the README in a language, in their order."
    return re.findall(rf"^``` {language}\n(.*?)^```", (root / "README.md").read_text(), flags=re.M | re.S)


def test_every_python_block_of_the_readme_runs_in_order(outside, root, tmp_path):
    own, = [block for block in blocks(root, "python") if "own_methods.register" in block]
    (tmp_path / "my_module.py").write_text(own)
    mine = "import torch\nmodel, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)), torch.rand(4, 1, 28, 28)\n"  # a network and images of the reader's
    (tmp_path / "readme.py").write_text(mine + "\n".join("import my_module\n" if block == own else block for block in blocks(root, "python")))
    done = outside("python", "readme.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = re.search(r"accuracy [\d.]+, under PGD-10 at eps [\d.]+ [\d.]+, Lipschitz [\d.]+", done.stdout)
    assert printed and printed[0] in (root / "README.md").read_text(), done.stdout


def test_what_the_readme_registers_is_trained_by_its_commands(outside, root, tmp_path):
    "Its own lines, on pictures in two folders for each split."
    own, = [block for block in blocks(root, "python") if "own_methods.register" in block]
    line, = re.findall(r"^robustacc train --method my_module.*$", "\n".join(blocks(root, "bash")), flags=re.M)
    (tmp_path / "my_module.py").write_text(own)
    make_pictures(tmp_path / "pictures")
    done = outside(*line.split(), "--profile", "smoke", "--epochs", "1", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    record, = (tmp_path / "_runs").rglob("*.json")
    settings = json.loads(record.read_text())["settings"]
    assert settings["method"]["lam"] == 2 and settings["own"]["method"] == "my_module:MyMethod"
