"""The audit of labelled sets: every number against brute force, every planted fault, and what a reviewer's browser makes of the page."""
import html
import json
import math
import re
import shutil
import subprocess
from itertools import combinations

import numpy as np
import pytest

from robustacc.audit_command import main
from robustacc.auditing import audit, audit_page
from robustacc.curation import curate
from robustacc.curation_page import curation_page
from robustacc.data import load
from robustacc.planting import plant
from robustacc.readers import LabelledSet, read_set


def small(seed: int, n: int = 14) -> LabelledSet:
    "A few tiny images, many of them close, with parts and groups."
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 5, (n, 1, 1, 3), np.uint8)
    return LabelledSet(images, np.r_[0, 1, rng.integers(0, 3, n - 2)], ("a", "b", "c"), groups=rng.choice(["P", "Q"], n), parts=rng.choice(["train", "test"], n))


def smallest_cover(edges, n: int) -> int:
    return next(k for k in range(n + 1) for some in combinations(range(n), k) if all(set(edge) & set(some) for edge in edges))


@pytest.mark.parametrize("seed", range(6))
def test_every_number_is_that_of_brute_force(seed):
    data, r = small(seed), 1 / 255
    report = (found := curate(data, radii={"inf": r}, draws=2)).report
    x, y = data.images.reshape(len(data), -1).astype(int), data.labels
    edges = [(i, j) for i, j in combinations(range(len(data)), 2) if np.abs(x[i] - x[j]).max() <= 1]
    assert sorted(zip(found.first.tolist(), found.second.tolist())) == edges
    conflicts = [(i, j) for i, j in edges if y[i] != y[j]]
    assert report["totals"] == {"pairs": len(edges), "identical": sum((x[i] == x[j]).all() for i, j in edges), "conflicts": len(conflicts),
                                "identical_conflicts": sum((x[i] == x[j]).all() for i, j in conflicts)}
    for edges_of, plan in ((conflicts, report["remove"]["conflicts"]), (edges, report["remove"]["all"]),
                           *(([(i, j) for i, j in edges if v[i] != v[j]], report[what]["remove"]) for what, v in (("parts", data.parts), ("groups", data.groups)))):
        assert plan["exact"] and plan["images"] == smallest_cover(edges_of, len(data)) and all({i, j} & set(plan["index"]) for i, j in edges_of)
    component = list(range(len(data)))
    for _ in range(len(data)):
        for i, j in edges: component[i] = component[j] = min(component[i], component[j])
    assert report["relabel"]["labels"] == sum(len(of) - max(np.bincount(of)) for c in set(component) if (of := [y[i] for i in range(len(data)) if component[i] == c]))
    for row in report["counts"]["inf"]: assert row["pairs"] == sum(np.abs(x[i] - x[j]).max() <= round(255 * row["threshold"]) for i, j in edges)
    assert report["optimum"][-1]["deterministic"] == report["remove"]["conflicts"]["images"]


def test_three_distances_find_together_what_each_finds():
    data, rng = small(1, 40), np.random.default_rng(0)
    features = rng.normal(size=(40, 4))
    radii = {"inf": 1 / 255, "2": 1.6 / 255, "embedding": .8}
    found = curate(data, radii=radii, embedding=features, draws=0)
    x = data.images.reshape(40, -1) / 255
    true = {space: {(i, j): d for i, j in combinations(range(40), 2) for d in [measure(i, j)]} for space, measure in (
        ("inf", lambda i, j: np.abs(x[i] - x[j]).max()), ("2", lambda i, j: np.linalg.norm(x[i] - x[j])), ("embedding", lambda i, j: np.linalg.norm(features[i] - features[j])))}
    pairs = list(zip(found.first.tolist(), found.second.tolist()))
    assert set(pairs) == {pair for space, radius in radii.items() for pair, d in true[space].items() if d <= radius + 1e-12}
    for space in radii: assert np.allclose(found.distance[space], [true[space][pair] for pair in pairs])
    assert [tuple(e["index"]) for e in found.report["nearest"][:5]] == sorted((p for p in true["embedding"] if data.labels[p[0]] != data.labels[p[1]]), key=true["embedding"].get)[:5]


def test_planted_faults_are_found_and_none_is_invented():
    digits = load("digits").train
    base = LabelledSet(digits.images[:700], digits.labels[:700], tuple("0123456789"))
    radii = {"inf": 16 / 255, "2": 8 / 255 * math.sqrt(digits.images[0].size)}
    assert len(curate(base, radii=radii, draws=0)) == 0
    for seed in (1, 2):
        planted = plant(base, each=10, seed=seed)
        result = planted.recall(curate(planted.data, radii=radii, draws=0))
        assert result["invented"] == 0
        for kind in ("exact copy", "conflicting copy", "brightness by 2 levels", "copy across the split", "copy across groups"): assert result["found"][kind] == 10, kind
        assert result["found"]["re-saved JPEG"] >= 8 and result["found"]["one-pixel change"] >= 7 and result["nearest"] >= 5


def test_a_fault_that_is_not_there_is_not_found():
    digits = load("digits").train
    planted = plant(LabelledSet(digits.images[:300], digits.labels[:300], tuple("0123456789")), each=5)
    found = curate(planted.data, radii={"inf": 0.}, draws=0)  # identical images only
    result = planted.recall(found)["found"]
    assert result["brightness by 2 levels"] == result["swapped label of a close pair"] == 0 and result["exact copy"] == 5


def page_and_pairs(tmp_path, names=True):
    data = small(3, 30)
    if names: data = LabelledSet(data.images, data.labels, ("<b>a", 'b"', "c"), tuple(f"{i}&.png" for i in range(30)), data.groups, data.parts)
    return data, curate(data, radii={"inf": 1 / 255}, draws=2)


def test_page_holds_every_pair_and_no_address(tmp_path):
    data, found = page_and_pairs(tmp_path)
    page = curation_page(data, found)
    body = re.search(r'<table id=pairs>.*?<tbody>(.*?)</tbody>', page, re.S)[1]
    assert body.count("<tr>") == len(found) and html.escape("<b>a") in body and "<b>a" not in page
    assert not re.findall(r'\b(?:src|href)=(?!"(?:data:|#))|url\(', page) and "default-src 'none'" in page
    assert curation_page(data, found, most=3).count("of {:,} pairs".format(len(found))) == 1


def seen(page: str) -> str:
    "What a reader of a page meets: its text, and what is read aloud or shown in a field."
    page = re.sub("<(style|script)>.*?</\\1>", "", page, flags=re.S)
    return " ".join([*re.findall(r'\b(?:alt|aria-label|placeholder|title)="([^"]*)"', page), html.unescape(re.sub("<[^>]*>", " ", page))])


@pytest.mark.parametrize("shape, values, noun", [((), "tenths", "row"), ((), "wide", "row"), ((), "bits", "row"), ((), "words", "row"), ((1, 1), "tenths", "image")])
def test_every_word_of_a_page_fits_what_was_audited(shape, values, noun, tmp_path, recwarn, capsys):
    "Tables of four kinds of numbers, each with its note, and the same numbers as pictures; both pages, and the command."
    rng, n = np.random.default_rng(0), 40
    x = rng.integers(0, 2 if values == "bits" else 5, (n, *shape, 3))
    x = {"tenths": x / 10, "wide": x * 10., "bits": x.astype(np.uint8), "words": (x * 256).astype(np.uint16)}[values]
    np.savez(tmp_path / "x.npz", x_train=x[:30], y_train=rng.integers(0, 3, 30), x_test=x[30:], y_test=rng.integers(0, 3, 10))
    main([str(tmp_path / "x.npz"), "--eps=.1", "--radius=.2", "--radius-2=.3", f"--html={tmp_path / 'page.html'}", f"--json={tmp_path / 'report.json'}"])
    report, page, printed = json.loads((tmp_path / "report.json").read_text()), (tmp_path / "page.html").read_text(), capsys.readouterr()
    assert report["totals"]["conflicts"] and report["parts"]["pairs"] and bool(report["notes"]) == (values != "tenths")
    single = audit(x.astype(np.uint8) if values == "words" else x, np.arange(n) % 3, eps=.1)
    texts = [seen(page), printed.out, "\n".join([printed.err, *(str(w.message) for w in recwarn)]), " ".join(report["findings"]), seen(audit_page(single, x.astype(np.uint8) if values == "words" else x, np.arange(n) % 3, title="Audit"))]
    pictures = [re.findall(r"(?i)\w*(?:image|picture|pixel|thumbnail|file)\w*", text.replace("CSV file", "").replace(str(tmp_path), "")) for text in texts]
    if noun == "row": assert pictures == [[]] * 5 and "<img" not in page and all(f"{noun}s" in texts[i] for i in (0, 1, 3, 4))
    else: assert all(f"{noun}s" in texts[i] for i in (0, 1, 3, 4)) and not any(re.search(r"\brows?\b", text) for text in texts)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no browser")
def test_a_browser_sorts_and_filters(tmp_path):
    data, found = page_and_pairs(tmp_path)
    probe = """<script>
    const table = document.getElementById('pairs'), at = [...table.tHead.rows[0].cells].findIndex(c => c.textContent.startsWith('distance')), out = [];
    const column = () => [...table.tBodies[0].rows].map(r => parseFloat(r.cells[at].textContent)), head = table.tHead.rows[0].cells[at];
    head.firstChild.click(); out.push(column(), head.getAttribute('aria-sort')); head.firstChild.click(); out.push(column(), head.getAttribute('aria-sort'));
    filter.value = 'conflict'; filter.dispatchEvent(new Event('input')); out.push([...table.tBodies[0].rows].filter(r => !r.hidden).length, document.getElementById('said').textContent);
    document.body.textContent = 'PROBE' + JSON.stringify(out) + 'END';</script>"""
    (tmp_path / "page.html").write_text(curation_page(data, found).replace("</body>", probe + "</body>"))
    done = subprocess.run([shutil.which("chromium"), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", (tmp_path / "page.html").as_uri()],
                          capture_output=True, text=True, timeout=240)
    up, ascending, down, descending, shown, said = json.loads(html.unescape(re.search("PROBE(.*)END", done.stdout)[1]))
    conflicts = found.report["totals"]["conflicts"]
    assert (ascending, descending, shown, said) == ("ascending", "descending", conflicts, f"{conflicts} pairs shown")
    assert up == sorted(up) and down == sorted(up, reverse=True) and len(up) == len(found)


def test_csv_is_read_back_and_holds_no_formula(tmp_path):
    import csv
    data, found = page_and_pairs(tmp_path)
    data = LabelledSet(data.images, data.labels, ("=cmd()", "b", "c"), data.files, data.groups, data.parts)
    rows = list(csv.DictReader(found.pairs_csv(data).splitlines()))
    assert [(int(r["first"]), int(r["second"])) for r in rows] == list(zip(found.first.tolist(), found.second.tolist()))
    assert all(not r[k].startswith("=") for r in rows for k in r) and any(r["first_label"] == "'=cmd()" for r in rows)


def test_command_writes_all_or_nothing(tmp_path, capsys):
    data = small(2, 30)
    np.savez(tmp_path / "a.npz", x_train=data.images[:20], y_train=data.labels[:20], x_test=data.images[20:], y_test=data.labels[20:])
    main([str(tmp_path / "a.npz"), "--radius=1/255", "--draws=0", *(f"--{kind}={tmp_path / 'out'}.{kind}" for kind in ("json", "csv", "html"))])
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["schema"] == 1 and all(sentence in capsys.readouterr().out for sentence in report["findings"][:1])
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + report["totals"]["pairs"]
    for wrong, message in ((["--radius=2"], "radius of inf 2.0"), (["--column=label=x", "--embedding=e.npy"], "--radius-embedding"), (["--json=."], "a file, not a folder"), (["--test=absent"], "absent")):
        with pytest.raises(SystemExit) as end: main([str(tmp_path / "a.npz"), *wrong, f"--csv={tmp_path / 'none.csv'}"])
        assert end.value.code == 2 and message in capsys.readouterr().err and not (tmp_path / "none.csv").exists()


def test_sets_that_are_not_alike_are_not_joined():
    a, b = small(0), small(1)
    joined = LabelledSet.join({"train": a, "test": LabelledSet(b.images, b.labels, ("c", "b", "a"))})
    assert joined.classes == ("a", "b", "c") and joined.groups is None and joined.files[14] == "test/[0]"
    assert [joined.classes[k] for k in joined.labels[14:]] == [("c", "b", "a")[k] for k in b.labels]
    with pytest.raises(ValueError, match="must be alike"): LabelledSet.join({"train": a, "test": LabelledSet(b.images[:, :, :, :2], b.labels, b.classes)})


def test_one_class_and_16_bits(tmp_path):
    data = small(0)
    with pytest.raises(ValueError, match="another class"): curate(LabelledSet(data.images, np.zeros(14, np.int64), ("a",)))
    np.save(tmp_path / "x.npy", data.images.astype(np.uint16) * 4000), (tmp_path / "y.txt").write_text("\n".join(map(str, data.labels)))
    read = read_set(tmp_path / "x.npy", labels=tmp_path / "y.txt")
    assert np.array_equal(read.images, data.images.astype(int) * 4000 >> 8) and "upper 8" in curate(read, draws=0).report["findings"][-3]


def test_parts_of_an_archive_are_alike_and_their_notes_are_kept(tmp_path):
    "uint8 beside floats in [0, 1] would hide every leak across the split."
    images, y = np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4), np.array([0, 1, 0, 1])
    for name, other in (("type", images / 255), ("shape", images[:, :2])):
        np.savez(tmp_path / f"{name}.npz", x_train=images, y_train=y, x_test=other, y_test=y)
        with pytest.raises(ValueError, match=f"{name}.npz: images .*: all parts must be of one type and shape"): read_set(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "noted.npz", x_train=images, y_train=y, x_test=images.astype(np.int64), y_test=y)
    noted = read_set(tmp_path / "noted.npz")
    assert noted.images.dtype == np.uint8 and any("int64" in note for note in noted.notes), noted.notes


def test_a_row_without_a_group_is_refused(tmp_path):
    "Images without a patient are not all of one patient."
    (tmp_path / "rows.csv").write_text("a,b,label,patient\n1,2,x,P1\n3,4,y,\n5,6,x,\n")
    with pytest.raises(ValueError, match=r"rows.csv: row 2 has no group \(2 have none\)"): read_set(tmp_path / "rows.csv")


def test_columns_are_refused_where_there_are_none(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 2, 2), np.uint8), labels=[0, 1, 0, 1])
    with pytest.raises(ValueError, match="columns .*labell.*: it must be left out for arrays"): read_set(tmp_path / "a.npz", columns={"labell": "nope"})
    with pytest.raises(SystemExit) as ended: main(["--dataset", "digits", "--column", "label=nonsense"])
    assert ended.value.code == 2 and "--column: it must be left out with --dataset" in capsys.readouterr().err
