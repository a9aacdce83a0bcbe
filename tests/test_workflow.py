"""The workflow: what it plans, that it resumes, and that a failure loses nothing."""
import os
import re
import subprocess
import sys

import pytest

from robustacc.paper import DATASET_NAMES, DROPOUT_TABLES, ROW_TABLES, published_label, table
from robustacc.train import plan


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


def page_of(row):
    "The page that the workflow should list for a printed row."
    name, _, value = published_label(row["method"]).rstrip(")").partition("=")
    name, _, strength = name.partition("(")
    strengths = {{"lambda": "lam"}.get(strength, strength): float(value)} if value else {}
    dropout = {"svhn": .5, "cifar10": .2}[row["dataset"]] if row.get("dropout") else None
    p = plan(dataset=row["dataset"], arch=row["arch"], method=name.lower(), **strengths, dropout=dropout, profile="paper")
    return f"train-{row['dataset']}-{p.arch}-{p.path.stem}"


def test_every_row_of_the_papers_tables_is_planned(root, tmp_path):
    """Tables 2, 3, 9 to 13 and, with dropout, 4 and 14; the data sets of Tables 1 and 8 are measured for separation.
    Tables 5 and 7 are settings, Table 6 has its own rule."""
    done = snakemake(root, "--dry-run", "--quiet", "progress", profile="paper", runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-2000:]
    listed = set(re.findall(r"^ +output: \S+/notebooks/(\S+)\.ipynb", done.stdout + done.stderr, re.M))
    numbers = sorted({*sum(ROW_TABLES.values(), ()), *DROPOUT_TABLES.values()})
    assert numbers == [2, 3, 4, 9, 10, 11, 12, 13, 14]
    printed = {page_of(row): f"Table {number}: {row}" for number in numbers for row in table(number)}
    printed |= {f"separation-{DATASET_NAMES[row['dataset']]}": f"Table {number}: {row}" for number in (1, 8) for row in table(number)}
    assert len(printed) == 64
    assert not (missing := [said for page, said in printed.items() if page not in listed]), "\n".join(missing)


def test_seeds_multiply_the_rows_that_name_none(root, tmp_path):
    """14 rows of smoke and the ledger's studies of seeds 0, 1, 2: natural and four methods are rows already, their released variants are not."""
    done = snakemake(root, "--dry-run", profile="smoke", study="ledger", seeds="0 1 2", runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("train "))
    assert int(line.split()[1]) == 54
    assert re.search(r"train-digits-CNN2-trades-beta3-dropout0-seed2\.ipynb", done.stdout)


@pytest.mark.parametrize("given", [dict(seeds="0 -1"), dict(seeds="one"), dict(gpus="two")])
def test_seeds_and_gpus_are_checked(root, tmp_path, given):
    done = snakemake(root, "--dry-run", profile="smoke", runs=tmp_path, **given)
    assert done.returncode != 0 and f"{next(iter(given))} '{next(iter(given.values()))}': " in done.stdout + done.stderr


@pytest.mark.parametrize("given,asked", [({}, {"1"}), (dict(gpus=0), set())])
def test_rows_of_the_paper_ask_for_a_gpu(root, tmp_path, given, asked):
    done = snakemake(root, "--dry-run", profile="paper", datasets="mnist", runs=tmp_path, **given)
    assert done.returncode == 0, done.stderr[-2000:]
    resources = re.findall(r"wildcards: row=.*\n +resources: (.*)", done.stdout)
    assert len(resources) == 20 and all("mem_mb=24000" in r and "runtime=4320" in r for r in resources)
    assert {m[1] for r in resources if (m := re.search(r"gpu=(\d+)", r))} == asked


def test_unknown_names_are_refused(root, tmp_path):
    for message, given in (("Allowed: ledger, dropout, proof", dict(profile="smoke", study="dropotu")), ("Allowed: smoke, quick, paper", dict(profile="fast")), ("Allowed: digits", dict(profile="smoke", datasets="mnist"))):
        done = snakemake(root, "--dry-run", runs=tmp_path, **given)
        assert done.returncode != 0 and message in done.stdout + done.stderr
