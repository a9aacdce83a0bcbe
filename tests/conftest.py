"""What the tests share: the checkout, and a way to run Python as a user would."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
