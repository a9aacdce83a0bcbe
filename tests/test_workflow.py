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


@pytest.mark.parametrize("study,profile,rows,pages", [("ledger", "smoke", 36, 1), ("ledger", "quick", 52, 1), ("ledger", "paper", 100, 1),
                                                      ("dropout", "smoke", 50, 1), ("dropout", "quick", 68, 1), ("dropout", "paper", 142, 2)])
def test_a_study_adds_its_rows_and_its_pages(root, tmp_path, study, profile, rows, pages):
    """The ledger: three seeds of natural (one is a row already) and of four methods in two variants (four are rows already), 22 more in smoke.
    Dropout: four methods with and without it and AT released, 27 rows of which 6 are there, and 5 tools with three seeds each, 36 more in smoke."""
    done = snakemake(root, "--dry-run", profile=profile, study=study, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-2000:]
    counts = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith(("train ", "study ", "staircase "))}
    assert counts == {"train": rows, "study": pages, "staircase": 1}


@pytest.mark.parametrize("profile,rows,pages", [("smoke", 14, 1), ("quick", 30, 1), ("paper", 60, 3)])
def test_the_proof_of_concept_is_a_page_without_rows(root, tmp_path, profile, rows, pages):
    done = snakemake(root, "--dry-run", profile=profile, study="proof", runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-2000:]
    counts = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith(("train ", "study ", "proof "))}
    assert counts == {"train": rows, "proof": pages}


def test_unknown_names_are_refused(root, tmp_path):
    for message, given in (("Allowed: ledger, dropout, proof", dict(profile="smoke", study="dropotu")), ("Allowed: smoke, quick, paper", dict(profile="fast")), ("Allowed: digits", dict(profile="smoke", datasets="mnist"))):
        done = snakemake(root, "--dry-run", runs=tmp_path, **given)
        assert done.returncode != 0 and message in done.stdout + done.stderr
