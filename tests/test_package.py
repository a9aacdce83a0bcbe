"""The package from outside: the wheel, a user's own model, the lab, and notebooks in step with the package."""
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile

import pytest

OWN_MODEL = '''
import numpy as np, torch
import robustacc
from robustacc.attacks import MultiTargeted, PGD, Threat
from robustacc.evaluation import correct, robust
from robustacc.data import Data
from robustacc.lipschitz import local_lipschitz
from robustacc.search import nearest_other

rng = np.random.default_rng(0)
images = np.concatenate([rng.integers(0, 100, (40, 3, 8, 8)), rng.integers(150, 256, (40, 3, 8, 8))]).astype(np.uint8)
labels = np.repeat([0, 1], 40)
data = Data.from_arrays(images, labels, images, labels, eps=.05)

class Own(torch.nn.Module):
    def forward(self, x):
        brightness = x.flatten(1).mean(1) - .49
        return torch.stack([-brightness, brightness], 1)

assert correct(Own(), images, labels).all()
for attack in (PGD(), MultiTargeted()):
    assert robust(Own(), images, labels, attack, Threat(.05)).all()
    assert not robust(Own(), images, labels, attack, Threat(.6)).any()
# the logits change by 2 |mean(x' - x)| <= 2 ||x' - x||_inf
value = local_lipschitz(Own(), images, eps=.05)
assert (value <= 2.0001).all() and (value > 1.7).all(), value
found = nearest_other(images, labels)
brute = np.abs(images[:, None].astype(int) - images[None]).reshape(80, 80, -1).max(2)
brute[labels[:, None] == labels[None]] = 999
assert np.array_equal(np.asarray(found.index), brute.argmin(1))
assert np.allclose(found.distance, brute.min(1) / 255)
print("robustacc", robustacc.__version__, "from", robustacc.__file__)
'''


def test_a_users_own_script(python, tmp_path):
    (tmp_path / "own.py").write_text(OWN_MODEL)
    done = python("own.py")
    assert done.returncode == 0, done.stderr


def test_the_package_does_not_need_what_only_notebooks_need(python):
    code = ("import sys\nfor name in ('nbdev', 'fastcore', 'papermill', 'snakemake', 'matplotlib', 'sklearn', 'torchvision', 'faiss', 'IPython', 'numba', 'pandas', 'seaborn', 'scipy'):\n"
            "    sys.modules[name] = None\n"
            "import robustacc.train, robustacc.separation, robustacc.theory, robustacc.results, robustacc.site")
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def build_wheel(root, place):
    "The wheel of a copy of the checkout, made by pip."
    source = place / "source"
    shutil.copytree(root, source, ignore=shutil.ignore_patterns(".git", ".venv", "_*", "build", "*.egg-info", ".snakemake", "__pycache__"))
    shutil.copytree(root / "robustacc", source / "robustacc", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "_quarto.yml", source)
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-v", "-w", place / "dist", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "absent from the `packages` configuration" not in done.stdout + done.stderr     # setuptools' banner: a folder of data that it took for a package
    wheel, = (place / "dist").glob("robustacc-*.whl")
    return wheel


def test_the_wheel_holds_only_the_package(root, tmp_path):
    wheel = build_wheel(root, tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} <= {"robustacc", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert sum(name.startswith("robustacc/paper_tables/") for name in names) == 14 and "robustacc/py.typed" in names
    modules = {p.name for p in (root / "robustacc").glob("*.py")}
    assert modules == {name.split("/")[1] for name in names if name.count("/") == 1 and name.endswith(".py")}


def test_export_and_clean_leave_the_notebooks_and_the_package_alone(root, tmp_path):
    copy = tmp_path / "checkout"
    shutil.copytree(root, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", ".venv", "_runs", "_docs", "_proc", ".snakemake", "__pycache__"))
    before = {p.relative_to(copy): p.read_bytes() for folder in ("nbs", "robustacc") for p in (copy / folder).rglob("*") if p.is_file()}
    for command in ("nbdev_export", "nbdev_clean"):
        done = subprocess.run([os.path.join(os.path.dirname(sys.executable), command)], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    after = {p.relative_to(copy): p.read_bytes() for folder in ("nbs", "robustacc") for p in (copy / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert sorted(map(str, after)) == sorted(map(str, before))
    assert [str(p) for p in before if before[p] != after[p]] == []


def test_the_lab_starts_and_shows_a_notebook(root, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    lab = subprocess.Popen([sys.executable, "-m", "jupyter", "lab", root / "nbs", "--no-browser", "--allow-root", f"--port={port}", "--port-retries=0",
                            "--IdentityProvider.token=test", "--ServerApp.ip=127.0.0.1"], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        def get(path):
            return urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": "token test"}), timeout=10)
        for _ in range(120):
            try:
                page = get("/lab").read().decode()
                break
            except OSError:
                assert lab.poll() is None, lab.stderr.read()
                time.sleep(.5)
        assert "JupyterLab" in page
        assert b'"default_exp' in get("/api/contents/05_train.ipynb").read() or b"default_exp train" in get("/api/contents/05_train.ipynb").read()
    finally:
        lab.terminate()
        lab.wait(20)


def test_an_override_shows_the_comments_of_what_it_overrides():
    from robustacc.strong_attacks import APGDTargeted
    assert "search" not in vars(APGDTargeted) or "in the balls and in [0, 1]" in APGDTargeted.search.__doc__, APGDTargeted.search.__doc__
    from robustacc.methods import LLR
    assert "the ball of the inner maximum" in LLR.loss.__doc__
