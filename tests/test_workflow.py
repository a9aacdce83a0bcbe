"""The workflow: what it plans, that it resumes, and that a failure loses nothing."""
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from robustacc.paper import DATASET_NAMES, DROPOUT_TABLES, ROW_TABLES, published_label, table
from robustacc.runs import run_name
from robustacc.train import plan
from test_own import OWN


@pytest.fixture
def dry_run(command, root):
    "What the workflow would do with a configuration: exit status and all that it says."
    def run(**config):
        options = ["--snakefile", "workflow/Snakefile", "--workflow-profile", "workflow/profiles/default", "--cores", "2", "--dry-run", "--printshellcmds", "--config"]
        return command("snakemake.cli:main", [*options, *(f"{k}={v}" for k, v in config.items())], cwd=root)
    return run


def jobs(said: str) -> dict[str, int]:
    "Numbers of jobs by rule, from the table that Snakemake prints."
    return {m[1]: int(m[2]) for m in re.finditer(r"^(\w+) +(\d+)$", said, flags=re.M)}


@pytest.mark.parametrize("profile,rows", [("smoke", 14), ("quick", 30), ("medium", 30), ("paper", 60)])
def test_every_row_is_planned(dry_run, tmp_path, profile, rows):
    code, said = dry_run(profile=profile, runs=tmp_path / "runs")
    assert code == 0 and jobs(said)["train"] == rows, said[-2000:]


@pytest.mark.parametrize("study,profile,rows,pages", [("ledger", "smoke", 36, 1), ("ledger", "quick", 52, 1), ("ledger", "paper", 100, 1),
                                                      ("dropout", "smoke", 50, 1), ("dropout", "quick", 68, 1), ("dropout", "paper", 142, 2)])
def test_a_study_adds_its_rows_and_its_pages(dry_run, tmp_path, study, profile, rows, pages):
    """The ledger: three seeds of natural (one is a row already) and of four methods in two variants (four are rows already), 22 more in smoke.
    Dropout: four methods with and without it and AT released, 27 rows of which 6 are there, and 5 tools with three seeds each, 36 more in smoke."""
    code, said = dry_run(profile=profile, study=study, runs=tmp_path / "runs")
    assert code == 0, said[-2000:]
    assert {rule: jobs(said).get(rule) for rule in ("train", "study", "staircase")} == {"train": rows, "study": pages, "staircase": 1}


@pytest.mark.parametrize("profile,rows,pages", [("smoke", 14, 1), ("quick", 30, 1), ("paper", 60, 3)])
def test_the_proof_of_concept_is_a_page_without_rows(dry_run, tmp_path, profile, rows, pages):
    code, said = dry_run(profile=profile, study="proof", runs=tmp_path / "runs")
    assert code == 0, said[-2000:]
    assert {rule: n for rule, n in jobs(said).items() if rule in ("train", "study", "proof")} == {"train": rows, "proof": pages}


@pytest.mark.parametrize("seeds,given", [("", "-p train True  <"), ("1 2 0", "-p train True -p seed 0 -p seeds 3 <"), ("4", "-p train True -p seed 4 -p seeds 1 <"), ("0 2", None)])
def test_the_proof_of_concept_has_the_seeds_that_were_asked_for(dry_run, tmp_path, seeds, given):
    code, said = dry_run(profile="smoke", study="proof", seeds=seeds, runs=tmp_path / "runs")
    if given is None: assert code != 0 and "seeds '0 2': the proof of concept takes consecutive seeds" in said, said[-2000:]
    else: assert code == 0 and given in said, said[-2000:]


@pytest.mark.parametrize("profile,rows,pages", [("smoke", 14, 2), ("quick", 30, 4)])
def test_the_geometry_of_the_data_is_pages_without_rows(dry_run, tmp_path, profile, rows, pages):
    code, said = dry_run(profile=profile, study="geometry", runs=tmp_path / "runs")
    assert code == 0, said[-2000:]
    assert {rule: n for rule, n in jobs(said).items() if rule in ("train", "geometry", "controls")} == {"train": rows, "geometry": pages, "controls": 1}


def page_of(row):
    "The page that the workflow should list for a printed row."
    name, _, value = published_label(row["method"]).rstrip(")").partition("=")
    name, _, strength = name.partition("(")
    strengths = {{"lambda": "lam"}.get(strength, strength): float(value)} if value else {}
    dropout = {"svhn": .5, "cifar10": .2}[row["dataset"]] if row.get("dropout") else None
    p = plan(dataset=row["dataset"], arch=row["arch"], method=name.lower(), **strengths, dropout=dropout, profile="paper")
    return run_name(p.settings).page.stem


def test_every_row_of_the_papers_tables_is_planned(dry_run, tmp_path):
    """Tables 2, 3, 9 to 13 and, with dropout, 4 and 14; the data sets of Tables 1 and 8 are measured for separation.
    Tables 5 and 7 are settings, Table 6 has its own rule."""
    code, said = dry_run(profile="paper", runs=tmp_path / "runs")
    assert code == 0, said[-2000:]
    listed = set(re.findall(r"^ +output: \S+/notebooks/(\S+)\.ipynb", said, re.M))
    numbers = sorted({*sum(ROW_TABLES.values(), ()), *DROPOUT_TABLES.values()})
    assert numbers == [2, 3, 4, 9, 10, 11, 12, 13, 14]
    printed = {page_of(row): f"Table {number}: {row}" for number in numbers for row in table(number)}
    printed |= {f"separation-{DATASET_NAMES[row['dataset']]}": f"Table {number}: {row}" for number in (1, 8) for row in table(number)}
    assert len(printed) == 64
    assert not (missing := [said for page, said in printed.items() if page not in listed]), "\n".join(missing)


def test_seeds_multiply_the_rows_that_name_none(dry_run, tmp_path):
    """14 rows of smoke and the ledger's studies of seeds 0, 1, 2: natural and four methods are rows already, their released variants are not."""
    code, said = dry_run(profile="smoke", study="ledger", seeds="0 1 2", runs=tmp_path / "runs")
    assert code == 0 and jobs(said)["train"] == 54, said[-2000:]
    assert re.search(r"train-digits-CNN2-trades-beta3-dropout0-seed2\.ipynb", said)


@pytest.mark.parametrize("given", [dict(seeds="0 -1"), dict(seeds="one"), dict(gpus="two"), dict(runs="a{x}")])
def test_seeds_and_gpus_are_checked(dry_run, tmp_path, given):
    code, said = dry_run(**dict(profile="smoke", runs=tmp_path) | given)
    assert code and f"{next(iter(given))} '{next(iter(given.values()))}': " in said


@pytest.mark.parametrize("given,asked", [({}, {"1"}), (dict(gpus=0), set())])
def test_rows_of_the_paper_ask_for_a_gpu(dry_run, tmp_path, given, asked):
    code, said = dry_run(profile="paper", datasets="mnist", runs=tmp_path, **given)
    assert code == 0, said[-2000:]
    resources = re.findall(r"wildcards: row=.*\n +resources: (.*)", said)
    assert len(resources) == 20 and all("mem_mb=24000" in r and "runtime=4320" in r for r in resources)
    assert {m[1] for r in resources if (m := re.search(r"gpu=(\d+)", r))} == asked


def test_unknown_names_are_refused(dry_run, tmp_path):
    for message, given in (("Allowed: ledger, dropout, proof", dict(profile="smoke", study="dropotu")), ("Allowed: smoke, quick, medium, paper", dict(profile="fast")), ("Allowed: digits", dict(profile="smoke", datasets="mnist"))):
        code, said = dry_run(runs=tmp_path, **given)
        assert code and message in said


@pytest.mark.slow
def test_rows_of_ones_own_data_network_and_method(root, tmp_path, monkeypatch, python):
    "They are listed in a file beside the profile's rows; there are no pages of such a data set, and no site is built for it."
    (tmp_path / "of_mine.py").write_text(OWN.replace("NAME", "mine"))
    (tmp_path / "mine.yaml").write_text("rows:\n  of_mine:digits:\n    - {method: [natural, of_mine:MART], arch: of_mine:linear, epochs: 1, seed: [0, 1]}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(root)]))
    call = ["-m", "snakemake", "--snakefile", "workflow/Snakefile", "--workflow-profile", "workflow/profiles/default", "--cores", "2", "--configfile", tmp_path / "mine.yaml",
            "--config", "profile=smoke", "datasets=of_mine:digits", f"runs={tmp_path / 'runs'}"]
    planned = python(*call, "--dry-run", cwd=root)
    assert planned.returncode == 0 and jobs(planned.stdout + planned.stderr) == {"train": 4, "all": 1, "total": 5}, planned.stderr
    done = python(*call, cwd=root)
    assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in (tmp_path / "runs").rglob("*.json") if p.parent.name == "linear-of-mine")
    assert names == ["mart-of-mine-lam5-margin1-epochs1-seed0.json", "mart-of-mine-lam5-margin1-epochs1-seed1.json", "natural-epochs1-seed0.json", "natural-epochs1-seed1.json"]


@pytest.fixture
def rows(root):
    "The script for many rows in one call, as a module."
    spec = importlib.util.spec_from_file_location("rows", root / "workflow" / "rows.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_lists_what_the_workflow_plans_cheapest_first(rows):
    assert len(rows.listed("paper", None, [], [0])) == 60 and len(rows.listed("quick", ["mnist"], ["dropout"], [0])) == 58
    methods = [row["method"] for row in rows.listed("paper", ["mnist"], [], [0, 1])]
    assert len(methods) == 40 and methods[:4] == ["natural"] * 4 and methods[-4:] == ["llr"] * 4


def test_the_script_runs_so_many_rows_at_a_time_and_says_what_became_of_each(rows, monkeypatch, tmp_path, capsys):
    """Six rows, two at a time, by stand-ins that write no record: two that end well, one that fails, and one that works until it is interrupted;
    one more cannot begin, and a finished one is not started. The time is .08 minutes."""
    scripts = {"natural": "", "gr": "import sys; sys.exit(2)", "at": "import sys, time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: sys.exit(130)"}
    due = [dict(method=m, seed=k) for m, k in (("natural", 0), ("gr", 0), ("natural", 1), ("at", 0), ("at", 1), ("at", 2))]
    atmost, alive = [], []

    def start(row, results):
        alive.append(subprocess.Popen([sys.executable, "-S", "-c", scripts[row["method"]]], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)))
        atmost.append(sum(job.poll() is None for job in alive))
        return alive[-1]
    monkeypatch.setattr(rows, "start", start)
    monkeypatch.setattr("robustacc.train.Plan.finished", lambda p: {} if "trades" in p.path.name else None)
    became = rows.run([dict(method="trades"), *due], tmp_path, jobs=2, minutes=.08)
    names = {word: [name.split("/")[-1] for name in some] for word, some in became.items()}
    assert names.pop("finished")[0] == "trades-beta6-seed0" and max(atmost) == 2
    assert names == {"failed": ["gr-seed0"], "stopped": ["at-seed0", "at-seed1"], "not begun": ["at-seed2"]}
    assert "failed smoke/digits/CNN2/gr-seed0" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_script_takes_its_rows_with_it_when_it_is_told_to_end(rows, monkeypatch, tmp_path, number):
    "Even where it was started in the background, with SIGINT ignored."
    (tmp_path / "rows.jsonl").write_text(json.dumps(dict(method="at")))
    jobs = []

    def start(row, results):
        jobs.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)))
        threading.Timer(.5, os.kill, (os.getpid(), number)).start()
        return jobs[-1]
    monkeypatch.setattr(rows, "start", start)
    monkeypatch.setattr(sys, "argv", ["rows.py", str(tmp_path / "rows.jsonl"), "--results", str(tmp_path / "runs")])
    usual = [signal.signal(n, signal.SIG_IGN if n == signal.SIGINT else signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(SystemExit) as ended: rows.main()
    finally:
        for n, handler in zip((signal.SIGINT, signal.SIGTERM), usual): signal.signal(n, handler)
        alive = [job for job in jobs if job.poll() is None]
        for job in alive: job.kill()
    assert ended.value.code == 3 and len(jobs) == 1 and not alive


@pytest.mark.slow
def test_the_script_goes_on_where_its_time_was_up(rows, root, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(dict(method="at", epochs=1)) + "\n" + json.dumps(dict(method="natural", epochs=0)) + "\n")
    command = [sys.executable, root / "workflow" / "rows.py", tmp_path / "rows.jsonl", "--results", tmp_path / "runs"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode and "epochs 0: it must be an integer of 1" in refused.stderr
    (tmp_path / "rows.jsonl").write_text(json.dumps(dict(method="at", epochs=1)) + "\n")
    codes, begun = [], time.monotonic()
    while (not codes or codes[-1] == 3) and time.monotonic() - begun < 900:
        minutes = "1.5" if codes else ".2"                                              # the first call cannot come to its end
        codes.append(subprocess.run([*command, "--minutes", minutes], cwd=tmp_path, capture_output=True, text=True).returncode)
    assert codes[0] == 3 and codes[-1] == 0
    record = json.loads((tmp_path / "runs/smoke/digits/CNN2/at-epochs1-seed0.json").read_text())
    assert len(record["history"]) == 1 and [p.suffix for p in sorted((tmp_path / "runs/smoke/digits/CNN2").iterdir())] == [".json", ".npz", ".safetensors", ".webp"]
