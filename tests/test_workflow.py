"""The workflow: what it plans, that it resumes, and that a failure loses nothing."""
import os
import subprocess
import sys

import pytest


def snakemake(root, *arguments, **config):
    given = [f"{k}={v}" for k, v in config.items()]
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--workflow-profile", "workflow/profiles/default", "--cores", "2",
               *arguments, "--config", *given]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("profile,rows", [("smoke", 14), ("quick", 30), ("paper", 60)])
def test_every_row_is_planned(root, tmp_path, profile, rows):
    done = snakemake(root, "--dry-run", profile=profile, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("train "))
    assert int(line.split()[1]) == rows


@pytest.mark.parametrize("profile,dataset,rows", [("smoke", "digits", 36), ("quick", "mnist", 52), ("paper", "mnist", 100)])
def test_a_study_adds_its_rows_and_its_page(root, tmp_path, profile, dataset, rows):
    "Three seeds of natural (one is a row already) and of four methods in two variants (four are rows already): 22 more in the smoke profile."
    done = snakemake(root, "--dry-run", profile=profile, study="ledger", runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-2000:]
    counts = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith(("train ", "ledger ", "staircase "))}
    assert counts == {"train": rows, "ledger": 1, "staircase": 1}


def test_unknown_names_are_refused(root, tmp_path):
    for message, given in (("Allowed: ledger", dict(profile="smoke", study="dropuot")), ("Allowed: smoke, quick, paper", dict(profile="fast")), ("Allowed: digits", dict(profile="smoke", datasets="mnist"))):
        done = snakemake(root, "--dry-run", runs=tmp_path, **given)
        assert done.returncode != 0 and message in done.stdout + done.stderr
