"""The site from end to end: a small checkout through both engines, failures that must leave the old site alone,
and, slowly, the real one."""
import base64
import html
import inspect
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from robustacc import cost, label_noise, paper
from robustacc.data import DATASETS
from robustacc.experiments import Trial
from robustacc.files import checkout
from robustacc.recipes import PROFILES
from robustacc.records import RECORD_SCHEMA, as_json
from robustacc.runs import RunName
from robustacc.rows import all_rows
from robustacc.site import __main__ as site
from robustacc.site import findings, pages, render
from robustacc.site.cells import page_name

ROOT = checkout()
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
SETTINGS = """[DEFAULT]
repo = demo
lib_name = demo
lib_path = demo
nbs_path = nbs
recursive = False
version = 0.0.1
branch = main
user = demo
author = demo
description = demo
doc_host = https://demo.example.org
doc_baseurl = /demo
git_url = https://github.com/demo/demo
title = demo
custom_sidebar = True
renderer = robustacc.site.entries.ApiDoc
procs = robustacc.site.entries:fold_source
skip_procs = rm_export,add_links
"""


def code(source, *outputs, tags=()):
    return {"cell_type": "code", "source": source, "outputs": list(outputs), "execution_count": None, "metadata": {"tags": list(tags)}}


def printed(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


def notebook(path, *cells, **metadata):
    cells = [{"cell_type": "markdown", "source": c, "metadata": {}} if isinstance(c, str) else c for c in cells]
    cells = [{**c, "id": f"cell-{i}"} for i, c in enumerate(cells)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return path


FINDINGS = ("index", "closest-pairs", "constructed", "cost", "explorer", "how-robust", "label-noise", "ledger", "proved-trade-off", "random-labels", "separated", "smoothness")
LINKED = ("01_separation.ipynb", "02_theory.ipynb", "02a_conflicts.ipynb", "03a_lipschitz.ipynb", "04a_ledger.ipynb", "08a_verdicts.ipynb", "08c_cost.ipynb", "08d_label_noise.ipynb", "08f_nearest_category.ipynb", "09a_smoothness.ipynb")  # chapters that the findings name
METHOD = dict(name="TRADES", label="TRADES(beta=6)", variant="paper", steps=10, step=.2, beta=6.)
RECORD = dict(kind="train", metrics={"test_acc": 97.5, "adv_test_acc": {"pgd": 80., "mt": 70.}, "counts": {"adv_test_acc/mt": 100}}, data={}, environment={}, source={"commit": "0123456789abcdef", "dirty": False}, seconds=1., schema=RECORD_SCHEMA["properties"]["schema"]["const"], settings=dict(
    dataset="digits", arch="CNN2", profile="smoke", seed=0, dropout=None, eps=.1, tools=None, method=METHOD, recipe=as_json(asdict(PROFILES["smoke"]["digits"][1]))))


def small_checkout(root):
    nbs = root / "nbs"
    notebook(nbs / "index.ipynb", "# demo\n\n> A *small* site", "See [measuring](01_measure.ipynb) by @someone2020 and [runs](runs/index.ipynb).", "## Use it on your own data and model")
    for name in LINKED: notebook(nbs / name, f"# {name.split('_')[1].split('.')[0].title()}", "The findings link to this chapter.")
    notebook(nbs / "01_measure.ipynb", "# Measuring\n\n> How far?", code("#| default_exp measure"), code("#| export\nimport math"),
             "The rhinoceros is $x^2$.\n\n::: {.callout-note}\n## Differences from the paper\nNone.\n:::",
             code("dataset: str = 'digits'  # which\nseed: int = 0  # the seed", tags=["parameters"]),
             code("#| export\ndef distance(a: float,  # one point\n             b: float = 1.5,  # the other\n"
                  "             ) -> float:  # how far\n    'The distance.'\n    return math.dist([a], [b])"),
             code("distance(1, 2)", {"output_type": "display_data", "metadata": {}, "data": {"image/png": PNG}}, printed("1.0\n")))
    notebook(nbs / "02_train.ipynb", "# Learning", code("dataset = 'digits'\nmethod = 'natural'", tags=["parameters"]), "Slow.")
    for name in ("styles.css", "pandoc"):
        source = ROOT / "nbs" / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, nbs / name)
    (nbs / "references.bib").write_text("@misc{someone2020, title={A Title}, author={Someone, Ann}, year={2020}}\n")
    (root / "settings.ini").write_text(SETTINGS)
    contents = ["index.ipynb", {"section": "Chapters", "contents": ["01_measure.ipynb", "02_train.ipynb", *LINKED]},
                {"section": "Results", "contents": [{"text": "All runs", "href": "runs/index.ipynb"}]}]
    (root / "_quarto.yml").write_text(yaml.safe_dump({
        "project": {"type": "website"}, "bibliography": "references.bib",
        "website": {"title": "demo", "description": "A demonstration", "sidebar": {"contents": contents}}}, sort_keys=False))
    runs = root / "_runs"
    notebook(runs / "smoke" / "notebooks" / "measure-digits.ipynb", "# Measuring\n\n> How far?", code("#| export\nimport math"),
             code("dataset = 'mnist'\nseed = 0", tags=["parameters"]), code("dataset = 'digits'", tags=["injected-parameters"]),
             code("#| echo: false\nprint('secret')", printed("walrus\n")),
             papermill={"start_time": "2024-05-17T10:00:00.000000", "duration": 3.2, "exception": None})
    notebook(runs / "smoke" / "notebooks" / "train-digits-CNN2-trades-beta6-seed0.ipynb", "# Learning",
             code("1/0", {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["\x1b[31mZeroDivisionError\x1b[0m"]}))
    record = runs / "smoke" / "digits" / "CNN2" / "trades-beta6-seed0.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps(RECORD))
    return root


def run(root, *arguments):
    try: return site.main(["--root", str(root), *arguments]) or 0
    except SystemExit as end: return end.code


def snapshot(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = small_checkout(tmp_path_factory.mktemp("small"))
    assert run(root, "--engine", "pandoc", "--check") == 0
    return root


def page(root, name):
    return (root / "_docs" / name).read_text(encoding="utf-8")


def test_pages_exist_and_no_link_is_broken(built):
    found = {p.relative_to(built / "_docs").as_posix() for p in (built / "_docs").rglob("*.html")}
    expected = {f"runs/{kind}-{dataset}.html" for kind in ("measure", "train") for dataset in DATASETS} | {f"findings/{name}.html" for name in FINDINGS}
    expected |= {f"tables/{name}.html" for name in ("index", *(f"table-{n}" for n in range(1, 15)))} | {"rows/digits-cnn2-trades-beta6-smoke.html"}
    assert found == {"index.html", "measure.html", "train.html", *(page_name(name) for name in LINKED), "runs/index.html",
                     "runs/train-digits-cnn2-trades-beta6-seed0-smoke.html"} | expected
    assert render.check_links(built / "_docs") == []


def test_a_chapter_shows_documentation_with_its_parameters(built):
    text = page(built, "measure.html")
    assert 'class="api" id="distance"' in text
    assert re.search(r"<td[^>]*><code>b</code></td>\s*<td[^>]*><code>float</code></td>\s*<td[^>]*><code>1.5</code></td>", text)
    assert "the other" in text and "how far" in text
    assert '<details class="source">' in text and text.index("how far") < text.index('<details class="source">')
    assert "default_exp" not in text and "import</span> math" not in text


def test_a_chapter_shows_mathematics_callouts_and_pictures(built):
    text = page(built, "measure.html")
    assert "<math" in text and 'class="callout callout-note"' in text
    assert '<div class="callout-title">' in text and 'href="#differences-from-the-paper"' not in text
    assert (built / "_docs" / "figures" / "measure-1.png").read_bytes() == base64.b64decode(PNG)
    assert 'src="figures/measure-1.png"' in text


def test_citations_links_and_neighbours(built):
    text = page(built, "index.html")
    assert 'href="#ref-someone2020"' in text and 'id="ref-someone2020"' in text
    assert 'href="measure.html"' in text and 'href="runs/index.html"' in text
    assert '<a class="next" href="measure.html">' in text
    assert '<a class="previous" href="../runs/index.html">' in page(built, "runs/measure-digits.html")


def test_pages_load_nothing_from_elsewhere(built):
    for path in (built / "_docs").rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)\b[^>]*\b(?:src|href)=\"([^\"]*)\"", path.read_text())
        assert loaded and not [u for u in loaded if u.startswith(("http", "//", "/"))]


def test_search_index_holds_words_and_places(built):
    text = page(built, "search.js")
    index = json.loads(text.removeprefix("window.searchIndex = ").rstrip(";\n"))
    assert [e[0] for e in index if "rhinoceros" in e[3]] == ["measure.html"]
    assert [e[2] for e in index if e[0] == "measure.html#distance"] == ["distance"]


def test_a_run_is_shown_without_hidden_code(built):
    text = page(built, "runs/measure-digits.html")
    assert "walrus" in text and "secret" not in text and "#|" not in text
    assert "badge-smoke" in text and "17 May 2024" in text and "3 seconds" in text
    assert "_runs/smoke/notebooks/measure-digits.ipynb" in text
    assert "did not finish" in page(built, "runs/train-digits-cnn2-trades-beta6-seed0-smoke.html")


def test_runs_of_a_data_set_are_listed_with_their_records(built):
    text = page(built, "runs/train-digits.html")
    assert 'href="train-digits-cnn2-trades-beta6-seed0-smoke.html"' in text
    assert 'href="../records/smoke/digits/CNN2/trades-beta6-seed0.json"' in text
    assert json.loads(page(built, "records/smoke/digits/CNN2/trades-beta6-seed0.json")) == RECORD


@pytest.mark.parametrize("dataset", [d for d in DATASETS if d != "digits"])
def test_a_missing_run_says_so_and_how_to_make_it(built, dataset):
    text = re.sub(r"<[^>]+>", "", page(built, f"runs/measure-{dataset}.html"))
    assert f"was not run on {dataset}" in text
    assert f"papermill nbs/01_measure.ipynb _runs/measure-{dataset}.ipynb -p dataset {dataset}" in text
    assert f"_runs/train-{dataset}-trades.ipynb -p dataset {dataset} -p method trades" in re.sub(
        r"<[^>]+>", "", page(built, f"runs/train-{dataset}.html"))


def test_the_command_on_a_missing_page_names_a_file_that_the_site_finds(built):
    kinds = pages.kinds(built / "nbs")
    for kind in kinds:
        target = notebook(built / "elsewhere" / Path(pages._command(kind, "svhn").split()[2]).name, "x")
        found = next(run for run in pages._find_runs([built / "elsewhere"], kinds) if run.path == target)
        assert (found.kind, found.dataset) == (kind.name, "svhn")
    shutil.rmtree(built / "elsewhere")


def test_a_second_build_is_the_same_and_calls_pandoc_for_nothing(built, monkeypatch):
    before = snapshot(built / "_docs")
    monkeypatch.setattr(render, "pandoc", lambda *a: pytest.fail("pandoc was called again"))
    monkeypatch.setattr(render, "_PageText", lambda *a: pytest.fail("a page was parsed again"))
    assert run(built, "--engine", "pandoc", "--check") == 0
    assert snapshot(built / "_docs") == before


@pytest.mark.parametrize("place, old, new, where", [
    ("_runs/smoke/digits/CNN2/trades-beta6-seed0.json", '"mt": 70.0', '"mt": 61.5', "findings/explorer.html rows/digits-cnn2-trades-beta6-smoke.html records/smoke/digits/CNN2/trades-beta6-seed0.json results.csv search.js"),
    pytest.param("_runs/smoke/notebooks/measure-digits.ipynb", "walrus", "narwhal", "runs/measure-digits.html", marks=pytest.mark.slow),
    pytest.param("nbs/01_measure.ipynb", "rhinoceros", "hippopotamus", "measure.html search.js notebooks/01_measure.ipynb", marks=pytest.mark.slow),
    pytest.param("nbs/pandoc/pages/not_run.md", "was not run", "was never run", "runs/measure-svhn.html", marks=pytest.mark.slow),
    ("nbs/pandoc/page.html", "Skip to the text", "Past the sidebar", "index.html runs/measure-svhn.html"),
    pytest.param("nbs/pandoc/site.lua", '"callout-" ..', '"callout-box-" ..', "measure.html", marks=pytest.mark.slow),
    pytest.param("nbs/pandoc/site.css", "/* Frame */", "/* The frame */", "site.css", marks=pytest.mark.slow),
    pytest.param("nbs/references.bib", "A Title", "Another Title", "index.html", marks=pytest.mark.slow)])
def test_what_changed_is_built_again(built, place, old, new, where):
    "Each source of a page, changed after a build; then the old site comes back."
    path, before = built / place, snapshot(built / "_docs")
    kept = path.read_text()
    said = re.sub('["/*. ]+$|^.*(: |/[*] )|"', "", new)
    def missing(): return [name for name in where.split() if said not in html.unescape(page(built, name))]
    assert old in kept and missing() == where.split()
    try:
        path.write_text(kept.replace(old, new))
        assert run(built, "--engine", "pandoc", "--check") == 0
        assert missing() == []
    finally: path.write_text(kept)
    assert run(built, "--engine", "pandoc") == 0 and snapshot(built / "_docs") == before


def test_other_code_of_the_package_draws_every_page_again(built, monkeypatch, tmp_path):
    drawn, pandoc = [], render.pandoc
    (tmp_path / "render.py").write_text("# another version")
    monkeypatch.setattr(render, "pandoc", lambda *a: drawn.append(a[0]) or pandoc(*a))
    assert run(built, "--engine", "pandoc") == 0 and drawn == []
    monkeypatch.setattr(render, "_OWN", tmp_path / "render.py")
    assert run(built, "--engine", "pandoc") == 0 and len(drawn) > len(LINKED)


def test_a_site_whose_front_page_the_workflow_has_removed_is_built_again(built):
    "Snakemake removes the output of a job, here `_docs/index.html`, before it starts the job; a second `make reproduce` must not end there."
    old = page(built, "index.html")
    (built / "_docs" / "index.html").unlink()
    assert run(built, "--engine", "pandoc", "--check") == 0 and page(built, "index.html") == old
    other = built / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("kept")
    assert run(built, "--engine", "pandoc", "--out", "other") == 2 and (other / "thesis.txt").read_text() == "kept"


def test_a_broken_link_is_found_and_the_old_site_stays(built, capsys):
    before = snapshot(built / "_docs")
    path = built / "nbs" / "02_train.ipynb"
    kept = path.read_text()
    try:
        path.write_text(kept.replace("Slow.", "See [nowhere](99_nowhere.ipynb) and [below](01_measure.ipynb#no-such-place)."))
        assert run(built, "--engine", "pandoc", "--check") == 1
    finally: path.write_text(kept)
    said = capsys.readouterr().err
    assert "train.html: nowhere.html (no such file)" in said
    assert "train.html: measure.html#no-such-place (no such place on the page)" in said
    assert snapshot(built / "_docs") == before
    assert not list(built.glob("_docs.*"))


def test_a_notebook_that_nbdev_cannot_process_is_an_error(built, capsys):
    before = snapshot(built / "_docs")
    path = notebook(built / "nbs" / "03_wrong.ipynb", "# Wrong", code("#| export\n1/0\ndef g(): pass"))
    try: assert run(built, "--engine", "pandoc") == 1
    finally: path.unlink()
    assert "nbdev could not process" in capsys.readouterr().err
    assert snapshot(built / "_docs") == before


def test_a_chapter_that_the_sidebar_does_not_list_is_an_error(built, capsys):
    before = snapshot(built / "_docs")
    path = notebook(built / "nbs" / "03_lost.ipynb", "# Lost", "Nobody finds me.")
    try: assert run(built, "--engine", "pandoc") == 2
    finally: path.unlink()
    assert "does not list 03_lost.ipynb" in capsys.readouterr().err
    assert snapshot(built / "_docs") == before
    assert run(built, "--engine", "pandoc") == 0
    assert snapshot(built / "_docs") == before


def test_the_front_page_asks_and_the_findings_say_what_was_not_run(built):
    text = page(built, "index.html")
    assert "<h1>Do robust classifiers have to be less accurate?</h1>" in text and 'href="findings/explorer.html"' in text
    assert "not run" in page(built, "findings/index.html") and "not decided" in page(built, "findings/index.html")


def test_the_page_on_smoothness_shows_what_its_records_say_within_networks(built, tmp_path):
    shutil.copy(built / "_proc" / "index.ipynb", tmp_path)
    found, wrong = pages.read_records([ROOT / "results"])
    records = [r for r in found if r["kind"] == "smoothness"]
    assert len(records) == 3 and wrong == []
    inside = [w for r in records for w in r["metrics"]["within"]]
    records[0]["metrics"]["within"][0] |= {"low": -.125, "high": .375}                   # one interval that holds 0
    findings.write_findings(tmp_path, ROOT / "nbs", records, {})
    text = html.unescape(pages.read_notebook(tmp_path / "findings" / "smoothness.ipynb")["cells"][-1]["source"])
    assert f"It lies below 0 in {sum(w['high'] < 0 for w in inside)} of {len(inside)} networks" in text and sum(w["high"] < 0 for w in inside) < len(inside)
    for w in inside: assert f"| {w['n']} | {100 * w['broken']:.1f}% | {w['plain']:.2f} | {w['given_margin']:.2f} | {w['low']:.2f} to {w['high']:.2f} |" in text
    assert all(f"tau {b['tau']:.2f}, {b['verdict']}" in text for r in records for b in r["metrics"]["between"] if b["attack"] == "mt" and b["verdict"] != "too few rows")
    assert not any(f"(../records/{r['file']})" not in text for r in records if r["metrics"]["within"])


@pytest.fixture(scope="module")
def told(built, tmp_path_factory):
    "The pages of findings as they are written from the published records: name -> its text, and these records."
    proc = tmp_path_factory.mktemp("told")
    shutil.copy(built / "_proc" / "index.ipynb", proc)
    records, wrong = pages.read_records([ROOT / "results"])
    findings.write_findings(proc, ROOT / "nbs", records, {})
    assert wrong == []
    return records, lambda name: html.unescape("\n".join(cell["source"] for cell in pages.read_notebook(proc / f"{name}.ipynb")["cells"]))


def test_the_front_page_compares_training_of_one_network_profile_and_precision(told):
    records, page = told
    text, rows = page("index"), all_rows(filter(pages.is_row, records))
    found = re.findall(r"\]\{\.figure-number\} under attack \(\[([^]]+)\]\(rows/([^)]+)\.ipynb\), .*? \[Natural training\]\(rows/([^)]+)\.ipynb\) of the same network and profile: ([\d.]+)% and ([\d.]+)%", text)
    assert len(found) == 2                                                             # MNIST and CIFAR-10
    for label, best, plain, accurate, robust in found:
        one, other = (next(r for r in rows if r["page"] == name) for name in (best, plain))
        assert all(one[key] == other[key] for key in ("dataset", "network", "profile", "precision")) and one["row"] == label
        assert (accurate, robust) == (f"{other['test_acc']:.1f}", f"{other['mt']:.1f}")
        for row in (one, other): assert re.search(rf'<span class="value">{row["mt"]:.1f}</span> <small><a href="rows/{row["page"]}.html" [^>]*>{row["profile"]}</a>, n = {row["mt_n"]:,}</small>', text)


def test_what_is_called_certified_is_the_certificate_for_every_change_up_to_the_radius(told):
    records, page = told
    theory = {r["settings"]["dataset"]: r for r in records if r["kind"] == "theory"}
    for dataset in ("mnist", "cifar10"):
        found = theory[dataset]["metrics"]["certificate"]
        assert f"[{100 * found['certified_at_eps']:.1f}%]{{.figure-number}} ({pages.TITLES[dataset]}, n = {theory[dataset]['data']['test']:,})" in page("index")
        assert f"{100 * found['certified_at_eps']:.1f}% are certified and {100 * found['attacked_at_eps']:.1f}% withstand an attack" in page("findings/index")
        row = " | ".join(f"{100 * found[key]:.1f}%" for key in ("clean_strict", "certified_at_eps", "box_certified_at_eps", "attacked_at_eps"))
        assert row in page("findings/constructed")
        assert found["certified_at_eps"] <= found["box_certified_at_eps"] <= found["attacked_at_eps"]


def test_findings_say_how_many_draws_rows_and_images_are_behind_a_number(told):
    records, page = told
    left = [r for r in all_rows(filter(pages.is_row, records)) if r["source"] == "ours" and "," in r["row"] and None not in (r["lipschitz"], r["pgd"])]
    assert left and f"{len(left)} rows of ours with a departure in their name" in page("findings/smoothness")
    assert "mean of 5 draws" in page("findings/proved-trade-off") and "with 100 weak features" in page("findings/proved-trade-off")
    effects = re.findall(r"^\| Effect, .*$", page("findings/ledger"), flags=re.M)
    assert effects and all(re.search(r"± .* seeds, n = [\d,]+\) \|$", line) for line in effects)
    opinions = [r for r in records if r["kind"] == "ledger" and r["settings"]["profile"] == "paper"]
    for r in opinions:
        smooth, mt = r["metrics"]["lipschitz"], r["metrics"]["mt"]
        printed = {attack: paper.published_row(r["settings"]["dataset"], r["settings"]["arch"], r["settings"]["method"]["label"], attack=attack) for attack in ("pgd", "mt")}
        told_of = re.findall(r"^\| At the paper's settings \| (.*) \(seed", page("findings/ledger"), flags=re.M)
        assert any(f"{smooth['paper']:.2f} as printed, {smooth['released']:.2f} as run; the paper has {printed['pgd']['test_lipschitz']:.2f}" in line for line in told_of)
        assert any(f"{mt['paper']:.2f}% as printed, {mt['released']:.2f}% as run; the paper has {printed['mt']['adv_test_acc']:.2f}%" in line for line in told_of)
    assert opinions
    for row in (r for r in all_rows(filter(pages.is_row, records)) if r["source"] == "ours"):
        assert ("The seeds were not all trained on the same machine" in page(f"rows/{row['page']}")) == (", " in row["platform"])
    assert "1 data set at" in page("tables/index") and "Random labels" not in page("tables/table-1") and "Random labels" in page("tables/table-8")


def test_the_pages_of_the_experiments_say_what_their_rules_say(built, tmp_path):
    costs = {}
    for seed, n, (method, eps) in product((0, 1, 2), (180, 360, 720, 1437), (("natural", .05), ("at", .1), ("at", .2))):
        lost = {("at", .1): 4 - .01 * seed * (n > 360), ("at", .2): 8 * 180 / n * (1 + .01 * seed)}.get((method, eps), 0)      # at .1 it stays, at .2 it halves with each doubling
        costs[Trial("digits", method, n, eps, steps=470, seed=seed)] = {"test": {"acc": 97. + seed - lost, "adv_acc": 80.}}
    full = {}
    for seed, n in product((0, 1, 2), (500, 1500, 5000, 15_000, 60_000)):                                                         # errors that are power laws, and at 60,000 half a point more
        wrong = {"natural": 50 * n ** -.3, "at": 200 * n ** -.35 + .001 * seed + .5 * (n == 60_000)}
        full |= {Trial("mnist", method, n, {"natural": .1, "at": .3}[method], seed=seed): {"test": {"acc": 100 - wrong[method], "adv_acc": 80.}} for method in wrong}
    noisy = {}
    for seed, q, kept, method in product((0, 1, 2), (0., .1, .2, .4, .8, 1.), ("all", "clean"), ("natural", "at", "trades")):
        if kept == "clean" and not 0 < q < 1: continue
        harm = {"natural": 10, "at": 30, "trades": 20}[method] * q * (1 + .01 * seed) if kept == "all" else 0
        noisy[Trial("digits", method, 1437, .1, noise=q, kept=kept, steps=470, seed=seed)] = {
            "test": {"acc": 90. + seed - harm, "adv_acc": 60.}, "train": {"acc": 100., "adv_acc": {"at": 30. + seed, "trades": 96., "natural": 0.}[method]}}
    records = [{**RECORD, "kind": kind, "file": f"{kind}/{dataset}.json", "settings": {"dataset": dataset, "planned": 144, "finished": len(trials)}, "metrics": {"found": judge(trials)}}
               for kind, dataset, trials, judge in (("cost", "digits", costs, cost._found), ("cost", "mnist", full, cost._found), ("label_noise", "digits", noisy, label_noise._found))]
    points = {"mean": 8., "low": 6.5, "high": 9.5, "classes": 10}
    near = [{"method": "at", "word": "more often", **points, "p": .01, "linf": points, "beyond": {**points, "mean": 5., "low": 3.25, "high": 6.75}},
            {"method": "trades", "word": "not known", **points, "mean": 1., "low": -2., "high": 4., "p": .4, "linf": points, "beyond": {**points, "mean": -.5, "low": -.5, "high": -.5}}]
    records.append({**records[0], "kind": "nearest_category", "file": "nearest_category/digits.json", "metrics": {"found": {"agreement": [], "more": near}}, "settings": {"dataset": "digits", "planned": 90, "finished": 90}})
    shutil.copy(built / "_proc" / "index.ipynb", tmp_path)
    findings.write_findings(tmp_path, ROOT / "nbs", records, {})
    def told(name): return html.unescape("\n".join(cell["source"] for cell in pages.read_notebook(tmp_path / f"{name}.ipynb")["cells"]))
    said = told("findings/cost")
    assert "below .3 points for 0 of 3 radii, above 0 for 3" in said and "[qualified]" in said and "36 of 144 trials" in said
    lines = {line.split(" | ")[1]: line.split(" | ") for line in said.splitlines() if line.startswith("| digits")}
    assert lines["0.1"][4] == "is not shown to change" and lines["0.2"][4] == "shrinks"
    assert lines["0.1"][6].startswith("3.99 [") and lines["0.1"][7] == "left" and lines["0.2"][2].startswith("8.08 [") and lines["0.2"][3].startswith("-2.3")
    assert lines["0.1"][2] == "4.00 (the same in all 3 pairs)"
    predicted = 200 * 60_000 ** -.35 - 50 * 60_000 ** -.3
    assert f"the smaller sets of MNIST predicted a cost of {predicted:.2f} points at the full training set, where {predicted + .5:.2f} [" in said
    assert said.count("smaller sets of") == 1                                         # and nothing of that on digits, where no larger set is
    said, labels = told("findings/label-noise"), label_noise._found(noisy)["labels"]
    lost = max(100 * one["must_lose"] / one["n"] for one in labels if one["share"] == 1)
    assert lost > 0 and f"| {lost:.2f}% | 30.0%, 31.0%, 32.0% | 96.0%, 96.0%, 96.0% | 0.0%, 0.0%, 0.0% |" in said
    assert "AT does not fit random labels robustly on digits, in the steps" in said and "[not confirmed]" in said
    assert "| digits | 40% | 4.04 [3.94, 4.14], clear | 12.12 [11.82, 12.42], clear | 8.08 [7.88, 8.28], clear |" in said
    assert "cost AT 8.08 [7.88, 8.28] points more than natural training on digits: more, clearly" in said
    lines = [line for line in told("findings/constructed").splitlines() if "90 of 90 trials" in line]
    assert [line.split(" | ")[1:5] for line in lines] == [["AT", "8.00 [6.50, 9.50]", "5.00 [3.25, 6.75]", "more often"], ["TRADES(6)", "1.00 [-2.00, 4.00]", "-0.50 (the same in all 10 pairs)", "not known"]]
    claims = {line.split("](")[1].split(")")[0]: line for line in told("findings/index").splitlines() if line.startswith("| [")}
    assert "3.99 points at radius 0.1, 1.01 points at radius 0.2" in claims["cost.ipynb"] and "[qualified]" in claims["cost.ipynb"]
    assert "digits: 30.0%, 31.0%, 32.0% of the training images" in claims["label-noise.ipynb"]


def test_a_row_shows_its_attacked_examples_and_offers_its_weights(told):
    records, page = told
    with_examples = [r for r in records if "examples" in r]
    assert with_examples
    for r in with_examples:
        text, broken = page(f"rows/{RunName.of(r).row_page}"), sum(e["attacked_answer"] != e["label"] for e in r["examples"])
        sheet = Image.open(Path(r["folder"], r["file"]).with_suffix(".webp"))
        assert sheet.width * 2 == sheet.height * len(r["examples"])                   # two rows of square pictures
        answers = ", ".join(e["answer"] + (f" → <b>{e['attacked_answer']}</b>" if e["attacked_answer"] != e["label"] else "") for e in r["examples"])
        assert f'src="../records/{r["file"][:-5]}.webp"' in text and f"Its answers: {answers}. {broken} of these {len(r['examples'])} are broken" in text
    kept = {r["file"] for r in records if r["kept"]}
    assert kept == {str(path.with_suffix(".json").relative_to(ROOT / "results")) for path in (ROOT / "results").rglob("*.safetensors")}
    for r in filter(pages.is_row, records):
        text, place = page(f"rows/{RunName.of(r).row_page}"), f'href="../records/{r["file"][:-5]}.safetensors" download'
        assert (place in text) == (r["file"] in kept)
        if isinstance(r.get("weights"), dict): assert r["weights"]["sha256"] in text and "{'sha256'" not in text


def test_no_number_is_minus_zero(told):
    records, page = told
    for name in ("findings/explorer", "findings/smoothness", "tables/table-2", "tables/table-10"): assert not re.search(r">-0\.0+<|(?<![\d.])-0\.0+(?!\d)", page(name))
    fields = dict.fromkeys(("page", "names", "rows"), {})
    for macros in ("macros.md", "html.md"):
        env = pages._environment(str(ROOT / "nbs" / "pandoc" / "pages"))
        p = env.get_template(macros).make_module(fields).p
        assert [html.unescape(str(p(*given))) for given in ((-.02,), (-.02, 2), (0.,), (-.06,), (100., 0))] == ["0.0", "-0.02", "0.0", "-0.1", "100"]


def test_a_claim_has_a_preview_of_its_own_and_a_citation(built):
    for name in FINDINGS:
        title = pages.front_matter(pages.read_notebook(built / "_proc" / "findings" / f"{name}.ipynb"))
        with Image.open(ROOT / "nbs" / "pandoc" / "static" / title["image"].removeprefix("/")) as picture:
            assert (picture.text["Title"], picture.size) == (title["title"], (1200, 630)), "run the cell of nbs/10c_site_findings.ipynb that draws previews"
        assert (built / "_docs" / title["image"].removeprefix("/")).exists()
        if name not in ("index", "explorer"): assert f"findings/{name}.html" in page(built, f"findings/{name}.html").partition("@misc")[2]


def test_a_page_names_its_preview(built):
    found, env = render.read_pages(built / "_proc"), Environment(loader=FileSystemLoader(built / "nbs" / "pandoc"))
    env.filters |= {"inline": str, "flat": render.flat}
    for source, picture in (("findings/separated.ipynb", "preview-findings-separated.png"), ("01_measure.ipynb", "preview.png")):
        text = render._page_html(env.get_template("page.html"), found[source], ("", ""), [], found, {"title": "demo", "site-url": "https://demo.example.org/d"})
        assert f'<meta property="og:image" content="https://demo.example.org/d/{picture}">' in text


def test_the_table_of_all_rows_has_ours_and_the_papers_and_so_have_its_files(built):
    text, rows = page(built, "findings/explorer.html"), json.loads(page(built, "results.json"))["rows"]
    ours = [row for row in rows if row["source"] == "ours"]
    assert [(r["row"], r["test_acc"], r["mt"], r["mt_n"], r["difference_mt"]) for r in ours] == [("TRADES(beta=6)", 97.5, 70., 100, None)]
    assert text.count('<tr class="paper"') == len(rows) - 1 and text.count('<tr class="ours"') == 1
    assert len(page(built, "results.csv").splitlines()) == len(rows) + 1
    assert json.loads(page(built, "record.schema.json"))["title"] == "robustacc record"
    assert 'href="../records/smoke/digits/CNN2/trades-beta6-seed0.json"' in text


def test_a_row_has_a_page_with_its_values_command_and_record(built):
    text = page(built, "rows/digits-cnn2-trades-beta6-smoke.html")
    plain = re.sub(r"<[^>]+>", " ", text)
    assert "97.50" in plain and "80.00" in plain and "70.00" in plain and " 100 " in plain
    assert "robustacc train --dataset=digits --arch=CNN2 --method=trades --profile=smoke --seed=0 --beta=6.0" in html.unescape(plain)
    assert 'href="../records/smoke/digits/CNN2/trades-beta6-seed0.json"' in text and "@misc" in html.unescape(plain)
    assert 'href="../rows/digits-cnn2-trades-beta6-smoke.html"' in page(built, "findings/explorer.html")


def test_each_printed_table_has_a_page_with_its_coverage(built):
    text = html.unescape(re.sub(r"<[^>]+>", " ", page(built, "tables/table-2.html")))
    assert "None of the 20 printed rows was trained here" in text and "98.03" in text
    assert "not run" in page(built, "tables/table-6.html") and "0.737" in html.unescape(page(built, "tables/table-8.html"))
    for number in range(1, 15): assert f'href="table-{number}.html"' in page(built, "tables/index.html")


def test_a_broken_record_is_named_and_the_site_is_built_without_it(built, capsys):
    before = snapshot(built / "_docs")
    path = built / "_runs" / "smoke" / "digits" / "CNN2" / "at<b>$x$-seed0.json"
    path.write_text('{"kind": "train"')
    try:
        assert run(built, "--engine", "pandoc", "--check", "--out", str(built / "_other")) == 0
        said, text = capsys.readouterr().err, (built / "_other" / "runs" / "index.html").read_text()
    finally: path.unlink()
    assert "left out" in said and "at<b>$x$-seed0.json" in said
    assert "at&lt;b&gt;$x$-seed0.json" in text and "<b>$x$" not in text
    shutil.rmtree(built / "_other")
    assert run(built, "--engine", "pandoc") == 0 and snapshot(built / "_docs") == before


def test_names_from_runs_are_shown_as_text(built):
    path = built / "_runs" / "smoke" / "notebooks" / "train-digits-a|b*<i>.ipynb"
    notebook(path, "# Learning", code("dataset = 'a|<b>$1$'", tags=["parameters"]))
    try:
        assert run(built, "--engine", "pandoc", "--check", "--out", str(built / "_other")) == 0
        text = (built / "_other" / "runs" / "train-digits.html").read_text()
        own, = (p.read_text() for p in (built / "_other" / "runs").glob("train-digits-a*.html"))
    finally: path.unlink()
    assert "train-digits-a|b*&lt;i&gt;" in text and "a|&lt;b&gt;$1$" in own
    shutil.rmtree(built / "_other")


def test_a_formula_that_did_not_render_is_an_error(built, capsys):
    path = built / "nbs" / "02_train.ipynb"
    kept = path.read_text()
    try:
        path.write_text(kept.replace("Slow.", "As slow as $x $ is."))
        assert run(built, "--engine", "pandoc", "--check") == 1
    finally: path.write_text(kept)
    assert "train.html: $x $ (a formula that did not render)" in capsys.readouterr().err


def test_outside_of_a_checkout_the_error_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(site, "checkout", lambda: None)
    with pytest.raises(SystemExit, match="2"): site.main([])
    assert "the site is built from a checkout: name it with --root" in capsys.readouterr().err


def test_the_site_stays_out_of_the_wheel_and_within_its_size():
    assert '"robustacc.site"' in (ROOT / "setup.py").read_text()
    assert sum(len(p.read_text().splitlines()) for p in (ROOT / "robustacc" / "site").glob("*.py")) <= 1212


def test_help_shows_shapes_and_units():
    import robustacc.attacks
    assert "    number of steps" in inspect.getdoc(robustacc.attacks.PGD)
    done = subprocess.run([sys.executable, "-c", "import robustacc.paper; help(robustacc.paper.table)"], cwd=ROOT, capture_output=True, text=True)
    assert "Parameters" in done.stdout and "the table's number in the paper, 1 to 14" in done.stdout


@pytest.mark.slow
def test_a_folder_that_begins_with_a_dot_is_no_obstacle(tmp_path):
    root = small_checkout(tmp_path / ".hidden" / "_proc" / "demo")
    assert run(root, "--engine", "pandoc", "--check") == 0
    assert "the other" in page(root, "measure.html")


STUB = """#!{python}
import json, pathlib, sys
pathlib.Path({log!r}).write_text(json.dumps(sys.argv[1:]))
proc = pathlib.Path(sys.argv[2])
assert (proc / "_quarto.yml").exists() and (proc / "runs" / "index.ipynb").exists() and (proc / "explorer.js").exists() and (proc / "preview.png").exists()
out = proc / sys.argv[sys.argv.index("--output-dir") + 1]
(out / "runs").mkdir(parents=True)
{body}
"""


def stub(folder, body):
    path, log = folder / "quarto", folder / "arguments.json"
    path.write_text(STUB.format(python=sys.executable, log=str(log), body=body))
    path.chmod(0o755)
    return path, log


@pytest.mark.parametrize("engine", ["quarto", "auto"])
def test_quarto_is_called_with_these_arguments_where_it_is_installed(built, tmp_path, monkeypatch, engine):
    program, log = stub(tmp_path, '(out / "index.html").write_text("by quarto")')
    monkeypatch.setenv("ROBUSTACC_QUARTO", str(program))
    assert run(built, "--engine", engine, "--out", str(tmp_path / "out")) == 0
    assert json.loads(log.read_text()) == ["render", str(built / "_proc"), "--no-execute", "--output-dir", "_site"]
    assert (tmp_path / "out" / "index.html").read_text() == "by quarto"
    assert not (built / "_proc" / "_site").exists()
    config = yaml.safe_load((built / "_proc" / "_quarto.yml").read_text())
    entries = json.dumps(config["website"]["sidebar"]["contents"])
    assert all(f"runs/measure-{d}.ipynb" in entries for d in DATASETS)


# What Quarto's own schema (project.yml and definitions.yml in its repository) allows in objects that it declares closed; anything else there is an error.
QUARTO = {"project": {"title", "type", "render", "execute-dir", "output-dir", "lib-dir", "resources", "preview", "pre-render", "post-render"},
          "website": {"title", "description", "favicon", "site-url", "site-path", "repo-url", "repo-link-target", "repo-link-rel", "repo-subdir", "repo-branch", "issue-url", "repo-actions",
                      "reader-mode", "google-analytics", "cookie-consent", "search", "navbar", "sidebar", "body-header", "body-footer", "margin-header", "margin-footer", "page-navigation",
                      "back-to-top-navigation", "bread-crumbs", "page-footer", "image", "image-alt", "comments", "open-graph", "twitter-card", "other-links", "code-links"},
          "sidebar": {"id", "title", "logo", "search", "tools", "contents", "style", "background", "foreground", "border", "alignment", "collapse-level", "pinned", "header", "footer"},
          "item": {"text", "href", "section", "contents", "file", "icon", "id", "menu", "rel", "target", "aria-label", "url", "auto"}}


def test_quarto_knows_every_key_of_its_configuration(built):
    "By the schema, not by a run: Quarto itself is a download that a test cannot count on."
    def items(contents):
        for item in contents:
            if isinstance(item, dict): yield item; yield from items(item.get("contents", []))
    for path in (ROOT / "_quarto.yml", built / "_proc" / "_quarto.yml"):
        config = yaml.safe_load(path.read_text())
        website, project = config["website"], config.get("project", {})
        found = [("project", project), ("website", website), ("sidebar", website["sidebar"]), *(("item", item) for item in items(website["sidebar"]["contents"]))]
        assert [(path, name, key) for name, entry in found for key in entry if key not in QUARTO[name]] == []
        assert project.get("type", "website") == "website" and website["sidebar"].get("style", "floating") in ("docked", "floating")
        assert all(isinstance(website.get(name, True), bool) for name in ("search", "page-navigation", "open-graph", "twitter-card"))
        assert config.get("format", {}).get("html", {}).get("html-math-method", "mathml") in ("plain", "webtex", "gladtex", "mathml", "mathjax", "katex")


@pytest.mark.parametrize("body", ["sys.exit('out of paper')", "pass"])
def test_a_quarto_that_fails_leaves_the_old_site(built, tmp_path, monkeypatch, capsys, body):
    program, _ = stub(tmp_path, body)
    monkeypatch.setenv("ROBUSTACC_QUARTO", str(program))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("old")
    assert run(built, "--engine", "quarto", "--out", str(tmp_path / "out")) == 1
    assert "--no-execute" in capsys.readouterr().err
    assert snapshot(tmp_path / "out") == {"index.html": b"old"}
    shutil.rmtree(built / "_proc" / "_site", ignore_errors=True)


def test_without_quarto_auto_takes_pandoc_and_quarto_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTACC_QUARTO", str(tmp_path / "nothing"))
    assert site.choose_engine("auto") == "pandoc"
    assert run(ROOT, "--engine", "quarto", "--out", str(tmp_path / "out")) == 1
    assert "quarto is not installed" in capsys.readouterr().err
    assert run(ROOT, "--engine", "latex", "--out", str(tmp_path / "out")) == 2
    assert "'latex': expected one of auto, quarto, pandoc" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_readme_is_up_to_date():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == site.readme(ROOT), "run: python -m robustacc.site --readme"


def test_readme_links_lead_to_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in t]
    assert targets and [t for t in targets if not (ROOT / t).exists()] == []


def test_the_sidebar_lists_every_notebook():
    config = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    titles = {p.name: p.name for p in pages.chapters(ROOT / "nbs")} | {"runs/index.ipynb": "All runs", "tables/index.ipynb": "Tables"} | {f"findings/{name}.ipynb": name for name in FINDINGS}
    groups = [[entry.source for entry in group.below] for group in render.sidebar(config, titles)]
    assert all(group == sorted(group) for group in ([n for n in some if n != "11_front_door.ipynb"] for some in groups[2:])) and sum(groups, []).count("runs/index.ipynb") == 1
    assert sorted(sum(groups, [])) == sorted(name for name in titles if name != "index.ipynb")  # each once


@pytest.mark.slow
def test_the_real_site_has_no_broken_link(tmp_path):
    out = tmp_path / "site"
    site.main(["--engine", "pandoc", "--check", "--out", str(out)])
    assert (out / "index.html").exists() and (out / "runs" / "index.html").exists()
