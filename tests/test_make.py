"""`make` from outside: killed, interrupted, started twice, in folders with strange names, by users without a name.

Jobs are stand-ins here: a papermill that writes a page and, for a row of training, a record, and a site of one line. What a notebook does when it
is interrupted is the subject of test_resume.py. One slow test runs the real thing in a strange folder.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

STRANGE = "it's; a \"$HOME\" & {so} on"

PAPERMILL = '''
import json, os, signal, sys, time
from pathlib import Path
arguments = sys.argv[1:]
while arguments[0].startswith("--"): del arguments[0]
given = {arguments[i + 1]: arguments[i + 2] for i in range(2, len(arguments), 3)}
notebook, page = Path(arguments[0]).stem, Path(arguments[1])
with open("started.txt", "a") as f: print(notebook, os.getpid(), file=f)
def interrupted(*_):
    Path("interrupted.txt").write_text(notebook)
    sys.exit(130)
signal.signal(signal.SIGINT, interrupted)
until = time.monotonic() + 60
while Path("wait").exists() and time.monotonic() < until: time.sleep(.02)
if Path("fail").exists(): sys.exit("it went wrong")
if notebook == "05_train":
    from robustacc.train import plan
    p = plan(method=given["method"], dataset=given["dataset"], profile=given["profile"], results=given["results"])
    p.path.parent.mkdir(parents=True, exist_ok=True)
    p.path.write_text(json.dumps({"metrics": {"test_acc": 98.61, "adv_test_acc": {"pgd": 85.58}}}))
page.write_text(json.dumps(given))
'''
SITE = "import sys\nfrom pathlib import Path\nPath('_docs').mkdir(exist_ok=True)\nPath('_docs/index.html').write_text(' '.join(sys.argv[1:]))\n"
CONFIG = "pages: [separation]\nrows:\n  digits:\n    - {method: at}\n"


def own_python(checkout: Path) -> None:
    "A virtual environment in a checkout: that checkout's package, and everything that is installed here."
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    folder, = (checkout / ".venv" / "lib").glob("python*/site-packages")
    stubs = checkout / "stubs"
    (folder / "here.pth").write_text("\n".join(map(str, [*([stubs] if stubs.exists() else []), checkout, sysconfig.get_paths()["purelib"]])) + "\n")
    (checkout / ".venv" / ".installed").touch()


@pytest.fixture
def checkout(root, tmp_path):
    "A checkout with stand-ins for papermill and the site and a single row; in a folder of the given name."
    def build(name="checkout", real=False) -> Path:
        copy = tmp_path / name
        copy.mkdir()
        for folder in ("robustacc", "workflow", *(["nbs"] if real else [])):
            shutil.copytree(root / folder, copy / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("Makefile", "settings.ini", "setup.py", "_quarto.yml", "README.md", "LICENSE"): shutil.copy(root / file, copy)
        (copy / "workflow" / "config" / "smoke.yaml").write_text(CONFIG)
        if not real:
            (copy / "nbs").mkdir()
            (copy / "stubs").mkdir()
            (copy / "stubs" / "papermill.py").write_text(PAPERMILL)
            shutil.rmtree(copy / "robustacc" / "site")
            (copy / "robustacc" / "site.py").write_text(SITE)
        own_python(copy)
        return copy
    return build


def make(checkout, *arguments, environment=None, before=()):
    "`make ARGUMENTS`, started in a process group of its own."
    given = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL")} if environment is None else environment
    return subprocess.Popen([*before, "make", "CORES=2", *arguments], cwd=checkout, env=given | {"OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)


def ended(process, seconds=300) -> str:
    "The output of a `make` that must succeed."
    said = process.communicate(timeout=seconds)[0]
    assert process.returncode == 0, said
    return said


def wait_for(condition, process, seconds=180):
    until = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < until: time.sleep(.02)
    assert condition(), process.communicate()[0]


def gone(checkout) -> bool:
    "Whether all stand-ins have ended."
    return not any(Path(f"/proc/{line.split()[1]}").exists() for line in (checkout / "started.txt").read_text().splitlines())


@pytest.mark.slow
def test_killed_as_a_whole_it_goes_on_by_itself_and_a_second_run_is_refused(checkout):
    there = checkout()
    (there / "wait").touch()
    first = make(there, "reproduce")
    wait_for((there / "started.txt").exists, first)
    second = make(there, "reproduce")
    said = second.communicate(timeout=180)[0]
    assert second.returncode and "the workflow runs already in this checkout: process " in said and "wait until it is done, or stop it" in said, said
    assert "Traceback" not in said and first.poll() is None
    os.killpg(first.pid, signal.SIGKILL)                                                 # as when memory or power is gone: nobody can clean up
    first.wait()
    assert any((there / ".snakemake" / "locks").iterdir())
    (there / "wait").unlink()
    said = ended(make(there, "reproduce"))
    assert "Unlock" not in said and (there / "_docs" / "index.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_stops_it_as_ctrl_c_does(checkout, number):
    "Ctrl-C reaches all processes of a terminal, `kill` only the one it names; Snakemake alone would let its jobs work on."
    there = checkout()
    (there / "wait").touch()
    process = make(there, "reproduce")
    wait_for((there / "started.txt").exists, process)
    time.sleep(.5)
    if number == signal.SIGINT: os.killpg(process.pid, number)
    else: process.send_signal(number)
    said = process.communicate(timeout=180)[0]
    assert process.returncode and (there / "interrupted.txt").exists() and gone(there), said
    assert "stopping; the same command goes on from here" in said and "stopped: " in said and "failed: " not in said
    assert not list((there / "_runs").rglob("*.ipynb"))
    (there / "wait").unlink()
    ended(make(there, "reproduce"))


def test_a_line_for_each_finished_job_and_the_rest_in_a_file(checkout):
    there = checkout()
    said = ended(make(there, "reproduce")).splitlines()
    jobs = [line for line in said if line.startswith("[")]
    assert [line.split("]")[0].split(" of ")[0] for line in jobs] == ["[1", "[2", "[3", "[4", "[5"] and "of 5" in jobs[0]
    assert any("AT on digits: 98.6 / 85.6 %" in line for line in jobs) and jobs[-1].endswith("the site")
    others = [line for line in said if line not in jobs and not line.startswith(".venv/bin/python") and "--cores" not in line]
    assert len(others) <= 3 and others[-1].startswith("The results site is built. Open file:///"), others
    log, = (there / ".snakemake" / "log").iterdir()
    assert "Finished jobid" in log.read_text() and "rule train" in log.read_text()
    assert any(str(log) in line for line in others)


def test_a_failed_job_is_named_with_its_log(checkout):
    there = checkout()
    (there / "fail").touch()
    process = make(there, "reproduce")
    said = process.communicate(timeout=180)[0]
    assert process.returncode and "failed: train-digits-CNN2-at-seed0, see _runs/smoke/logs/train-digits-CNN2-at-seed0.log" in said and "it went wrong" in said


def test_folders_and_interpreters_with_strange_names(checkout):
    "The checkout's path is the interpreter's path too; the folder of the runs has a strange name of its own."
    there = checkout(STRANGE)
    runs = "my \"runs\": $x #'y'"
    said = ended(make(there, "reproduce", environment={**os.environ, "RUNS": runs}))
    pages = list((there / runs / "smoke" / "notebooks").glob("train-*.ipynb"))
    assert len(pages) == 1, said
    assert f'"results": {json.dumps(runs)}' in pages[0].read_text()
    assert (there / "_docs" / "index.html").read_text() == f"--check --runs {runs}"
    shown = next(line for line in said.splitlines() if line.startswith("The results site is built"))
    assert Path(unquote(shown.split("file://")[1])) == there / "_docs" / "index.html"
    assert sorted(p.name for p in there.parent.iterdir()) == [STRANGE]


def test_runs_that_are_no_folder_are_refused(checkout):
    process = make(checkout(), "reproduce", "RUNS=a{b}")
    said = process.communicate(timeout=180)[0]
    assert process.returncode and "runs 'a{b}': it must be the name of a folder" in said


@pytest.mark.parametrize("home", [{}, pytest.param({"HOME": "/nonexistent"}, marks=pytest.mark.slow)])
def test_without_git_a_home_and_a_user_name(checkout, tmp_path, home):
    there = checkout()
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "sh", "make", "python3", "rm", "mv", "tail", "nproc", "id", "test", "touch", "env"):
        if where := shutil.which(name): (tools / name).symlink_to(where)
    nobody = []
    if os.getuid() == 0 and shutil.which("setpriv"):                                      # who may read everything, so that the interpreter can lie anywhere
        nobody = f"{shutil.which('setpriv')} --reuid=54321 --regid=54321 --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override".split()
        for folder in (tmp_path, *tmp_path.parents):
            if "pytest-" in str(folder): folder.chmod(0o755)                              # pytest's own folders are for its user alone
        for path in (there, *there.rglob("*")): os.chown(path, 54321, 54321, follow_symlinks=False)
    said = ended(make(there, "reproduce", before=nobody, environment={"PATH": str(tools)} | home))
    assert "98.6 / 85.6" in said and not (there / "~").exists()


@pytest.mark.slow
def test_the_real_thing_in_a_folder_with_a_strange_name(checkout):
    there = checkout("it's a \"place\"; $x", real=True)
    (there / "workflow" / "config" / "smoke.yaml").write_text(CONFIG.replace("{method: at}", "{method: natural, epochs: 1}"))
    ended(make(there, "reproduce", environment={**os.environ, "RUNS": "my runs"}), 900)
    assert (there / "my runs/smoke/digits/CNN2/natural-epochs1-seed0.json").exists() and (there / "_docs/index.html").exists()
