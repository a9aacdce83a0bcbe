"""What must not be published, where the chapter tries other cases."""
import json
import re
import shutil
from statistics import mean, stdev

import pytest

from robustacc.dropout import _arms, _study_rows
from robustacc.files import checkout
from robustacc.ledger import _variant_rows, metric
from robustacc.publishing import publish
from robustacc.records import find_records, published_name, read_record
from robustacc.results import _by_row
from robustacc.runs import run_name


@pytest.fixture
def a_run(tmp_path, monkeypatch):
    "Write a finished run, a published one with changes in its `source` or `settings`, and give its path."
    monkeypatch.chdir(tmp_path)
    source = sorted((checkout() / "results" / "smoke" / "digits").glob("*/natural-seed0.json"))[0]
    def write(part="source", **changes):
        path = tmp_path / "_runs" / source.relative_to(checkout() / "results")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
        shutil.copy(source.with_suffix(".webp"), path.with_suffix(".webp"))
        record = read_record(path)
        record[part] |= changes
        path.write_text(json.dumps(record))
        return path
    return write


@pytest.mark.parametrize("changes,allowed", [(dict(dirty=None), "allow_dirty"), (dict(dirty=True), "allow_dirty"), (dict(commit=None, dirty=None), "allow_unknown_source"),
                                             (dict(commit=None, dirty=False), "allow_unknown_source")])
def test_code_that_nobody_can_look_up_is_published_only_when_it_is_allowed(a_run, tmp_path, changes, allowed):
    path = a_run(**{"commit": "0" * 40, **changes})
    other, = {"allow_dirty", "allow_unknown_source"} - {allowed}
    for options in ({}, {other: True}):
        with pytest.raises(ValueError, match=path.name): publish([path], **options)
    assert not (tmp_path / "results").exists()
    pictures, published = publish([path], **{allowed: True})                  # the record last
    assert published.read_bytes() == path.read_bytes() and pictures.read_bytes() == path.with_suffix(".webp").read_bytes()


def test_clean_code_of_a_known_commit_is_published(a_run):
    assert [path.suffix for path in publish([a_run(commit="0" * 40, dirty=False)])] == [".webp", ".json"]


@pytest.mark.parametrize("dataset", ["../../x", "/tmp/x", "a/../../../x"])
def test_a_name_does_not_lead_out_of_the_folder(a_run, tmp_path, dataset, monkeypatch):
    "Neither a record's own words nor, should those pass, the place that follows from them."
    from robustacc import publishing
    path = a_run("settings", dataset=dataset)
    with pytest.raises(ValueError, match=path.name): publish([path], allow_dirty=True, allow_unknown_source=True)
    record = {"kind": "separation", "settings": {"dataset": dataset}, "source": {"commit": "0" * 40, "dirty": False}}
    monkeypatch.setattr(publishing, "read_record", lambda path: record)
    assert not (tmp_path / "results" / published_name(record, path)).resolve().is_relative_to(tmp_path / "results")
    with pytest.raises(ValueError, match="outside of"): publish([path])
    assert not (tmp_path / "results").exists() and not list(tmp_path.glob("**/x.json"))


def of_results(records, profile): return _by_row(records)
def of_dropout(records, profile):
    names = {run_name(row.settings).path for row in _study_rows(records[0]["settings"]["dataset"], profile=profile)}
    return [list(seeds.values()) for seeds in _arms([r for r in records if run_name(r["settings"]).path in names], profile=profile).values()]
def of_ledger(records, profile):
    return [list(seeds.values()) for (_, label), variants in _variant_rows(records, profile=profile).items() if "released" in variants or label == "Natural" for seeds in variants.values()]


KINDS = (("results", of_results, "09_results"), ("dropout", of_dropout, "06_dropout"), ("ledger", of_ledger, "04a_ledger"))
PAGES = [(page, rows, page.stem.split("-")[1], page.parent.parent.name) for kind, rows, _ in KINDS for page in sorted((checkout() / "results").glob(f"*/notebooks/{kind}-*.ipynb"))]
CHAPTERS = [(checkout() / "nbs" / f"{name}.ipynb", rows, "digits", "smoke") for _, rows, name in KINDS]


@pytest.mark.parametrize("page,rows,dataset,profile", [pytest.param(*given, id=f"{given[3]}-{given[0].stem}") for given in PAGES + CHAPTERS])
def test_a_page_of_rows_says_what_the_published_records_say(page, rows, dataset, profile):
    "A page, or chapter, that was made where another run of a row lay would tell that run's numbers."
    outputs = [output.get("data", {}) for cell in json.loads(page.read_text())["cells"] for output in cell.get("outputs", [])]
    text = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", " ".join("".join(data.get(kind, "")) for data in outputs for kind in ("text/markdown", "text/html"))))
    groups = rows(find_records(dataset, folders=(checkout() / "results",)), profile)
    assert groups
    for runs in groups:
        for path in (("test_acc",), ("adv_test_acc", "pgd")):
            values = [metric(record, path) for record in runs]
            expected = f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
            assert expected in text, (runs[0]["file"], path, expected)


@pytest.mark.parametrize("page,dataset", [pytest.param(page, page.stem.split("-")[-1] if page.parent.name == "notebooks" else "digits", id=page.stem)
                                          for page in (*sorted((checkout() / "results").glob("*/notebooks/smoothness-*.ipynb")), checkout() / "nbs" / "09a_smoothness.ipynb")])
def test_a_page_on_smoothness_says_what_its_record_says_within_networks(page, dataset):
    text = "".join("".join(output.get("data", {}).get("text/markdown", "")) for cell in json.loads(page.read_text())["cells"] for output in cell.get("outputs", []))
    within = read_record(checkout() / "results" / "smoothness" / f"{dataset}.json")["metrics"]["within"]
    expected = {(f"{one['profile']}, {one['arch']}", one["row"], str(one["n"]), f"{100 * one['broken']:.1f}%") for one in within}  # the page has those whose weights are published
    said = {tuple(line.split(" | ")) for line in re.findall(r"^\| ((?:smoke|quick|medium|paper), \w+ \| [^|]+ \| \d+ \| [\d.]+%) \|", text, re.M)}
    assert said <= expected, said - expected
    assert bool(said) == bool(within)
