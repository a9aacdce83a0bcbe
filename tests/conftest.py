"""What the tests share: the checkout, processes as a user would start them, and a small digit set in their place."""
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRELOADED = ["robustacc.train", "robustacc.site", "snakemake.cli", "snakemake.workflow", "snakemake.scheduling.job_scheduler", "psutil", "yaml", "safetensors.torch",
             "jsonschema", "sklearn.datasets", "sklearn.model_selection", "tqdm", "torch.optim.swa_utils", "torch._dynamo"]  # the last one because optimisers import it at their first step


def pytest_terminal_summary(terminalreporter):
    "What became of the values that test_entrances.py and test_fuzz.py gave: for each test that gave some, and the sum."
    total = Counter()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for outcomes in (value for name, value in report.user_properties if name == "outcomes" and report.when == "call"):
            total.update(outcomes)
            terminalreporter.write_line(f"{report.nodeid.split('[')[-1].rstrip(']')}: {sum(outcomes.values())} values: {outcomes}")
    if total: terminalreporter.write_line(f"{total.total()} values in all: {dict(total)}")


@pytest.fixture(scope="session")
def root() -> Path:
    "The checkout."
    return ROOT


@pytest.fixture
def python(tmp_path):
    "Run `python ARGUMENTS` in an empty folder, one thread; returns the finished process with its output as text."
    def run(*arguments, cwd=tmp_path, **options):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=900, **options)
    return run


@pytest.fixture(scope="session")
def fewer(tmp_path_factory):
    "The environment in which a process, and the kernels that it starts, load data sets cut to so many images: `fewer(train=60, test=20)`."
    def cut(**sizes) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("fewer")
        (folder / "sitecustomize.py").write_text(f"import robustacc.data\nload = robustacc.data.load\nrobustacc.data.load = lambda name: load(name).take(**{sizes})\n")
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return cut


@pytest.fixture(scope="session")
def clean_processes():
    "Where processes are forked from a clean one that has everything imported: a start takes a tenth of a second instead of three."
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def as_a_command(output, main, arguments, cwd):
    "`python -m MODULE ARGUMENTS` as it would be, in a process that is forked."
    from importlib import import_module
    os.chdir(cwd)
    sys.argv = [main.split(":")[0], *arguments]
    sys.stdin = open(os.devnull)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2): os.dup2(handle, stream)
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    module, name = main.split(":")
    getattr(import_module(module), name)(arguments)


@pytest.fixture
def command(clean_processes, tmp_path):
    "Run a module's `main` with arguments in a process of its own: `command(\"snakemake.cli:main\", arguments, cwd)` gives exit status and output."
    def run(main: str, arguments, cwd=tmp_path, seconds=300) -> tuple[int, str]:
        output = tempfile.mktemp(dir=tmp_path, prefix=".output")
        process = clean_processes.Process(target=as_a_command, args=(output, main, list(map(str, arguments)), cwd))
        process.start()
        process.join(seconds)
        if process.exitcode is None: process.kill()
        said = Path(output).read_text() if Path(output).exists() else ""
        Path(output).unlink(missing_ok=True)
        return process.exitcode, said
    return run


@pytest.fixture(scope="session")
def opened():
    "Run a notebook's cells up to the check of its parameters, with values injected after them as papermill does: `opened(\"07_staircase\", small=12)` gives its names."
    def run(chapter: str, **given) -> dict:
        namespace = {}
        for cell in json.loads((ROOT / "nbs" / f"{chapter}.ipynb").read_text())["cells"]:
            if cell["cell_type"] != "code": continue
            source = "".join(cell["source"])
            exec(source, namespace)
            if "parameters" in cell["metadata"].get("tags", []): namespace.update(given)
            if re.search(r"= (check|notebook)_parameters\(\s*globals\(\)", source): return namespace
        pytest.fail(f"{chapter} does not check its parameters")
    return run
