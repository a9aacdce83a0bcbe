"""What must not be published, where the chapter tries other cases."""
import json
import shutil

import pytest

from robustacc.files import checkout
from robustacc.publishing import publish
from robustacc.records import published_name, read_record


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
