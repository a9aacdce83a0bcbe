"""The audit on known sets, and beside its peers on planted faults: what each finds, misses and invents, and its CPU time.

    python benchmarks/auditing.py                       # everything that is at hand
    python benchmarks/auditing.py --parts planted --images 2000 --out /tmp/bench

Faults are planted into the first images of MNIST and of CIFAR-10 (of the digits where both are missing) by `robustacc.planting`, with the thresholds that stand in the chapter on planting. Peers
run with their own default thresholds on the same images, written as PNG files; they know neither labels nor parts, so for them it counts that a pair is found at all. cleanlab judges labels,
not pairs: for it counts that one of the two images is flagged, with chances from a cross-validated logistic regression on 64 principal components. Times are CPU seconds of the process and its children after imports, reading of the files included for those that read files.
A peer that is not installed is left out. Writes auditing.json and auditing.md; parts that are not asked for stay as they are.
"""
import argparse
import json
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np

from robustacc.curation import curate
from robustacc.data import load
from robustacc.files import atomic_write
from robustacc.planting import Planted, plant
from robustacc.readers import LabelledSet, read_set
from robustacc.records import environment

HERE = Path(__file__).resolve().parent


def cpu() -> float:
    "CPU seconds of this process and of its children that have ended."
    return sum(os.times()[:4])


# Known sets

def both_parts(name: str) -> LabelledSet:
    data = load(name, download=False)
    return LabelledSet.join({part: LabelledSet(split.images, split.labels, data.classes) for part, split in (("train", data.train), ("test", data.test))})


def table(name: str, scaled: bool) -> LabelledSet:
    from sklearn import datasets
    from sklearn.preprocessing import StandardScaler
    found = getattr(datasets, f"load_{name}")()
    return LabelledSet(StandardScaler().fit_transform(found.data) if scaled else found.data, found.target.astype(np.int64), tuple(map(str, found.target_names)))


def imagenet_sample() -> LabelledSet:
    root = os.environ.get("ROBUSTACC_DATA")
    if not root: raise FileNotFoundError("ROBUSTACC_DATA is not set")
    return read_set(Path(root) / "imagenet-sample", size=64)


SETS: list[tuple[str, Callable, dict]] = [
    ("digits, train and test", lambda: both_parts("digits"), dict(radii={"inf": 16 / 255})),
    ("MNIST, train and test", lambda: both_parts("mnist"), dict(radii={"inf": 16 / 255})),
    ("CIFAR-10, train and test", lambda: both_parts("cifar10"), dict(radii={"inf": 16 / 255})),
    ("CIFAR-10, train and test", lambda: both_parts("cifar10"), dict(radii={"inf": 40 / 255})),
    ("CIFAR-10, train and test", lambda: both_parts("cifar10"), dict(radii={"inf": 80 / 255})),
    ("ImageNet sample, 64 x 64", imagenet_sample, dict(radii={"inf": 16 / 255})),
    ("wine, as it is", lambda: table("wine", False), dict(radii={"inf": 1.}, eps=.5)),
    ("wine, standardised", lambda: table("wine", True), dict(radii={"inf": 1.}, eps=.5)),
    ("breast cancer, as it is", lambda: table("breast_cancer", False), dict(radii={"inf": 1.}, eps=.5)),
    ("breast cancer, standardised", lambda: table("breast_cancer", True), dict(radii={"inf": 1.}, eps=.5))]


def known_sets(draws: int) -> list[dict]:
    rows = []
    for name, read, options in SETS:
        try: data = read()
        except (OSError, ValueError) as error: print(f"left out: {name} ({error})", file=sys.stderr); continue
        started = cpu()
        report = curate(data, draws=draws, **options).report
        seconds, total, radius = cpu() - started, report["totals"], options["radii"]["inf"]
        last = report["optimum"][-1]
        rows.append({"set": name, "images": report["n"], "radius": f"{round(255 * radius)}/255" if data.images.dtype == np.uint8 else f"{radius:g}", "identical": total["identical"],
                     "near": total["pairs"] - total["identical"], "conflicts": total["conflicts"], "across the split": None if report["parts"] is None else report["parts"]["pairs"],
                     "to remove": report["remove"]["conflicts"]["images"], "to relabel": report["relabel"]["labels"], "optimal loss, %": round(100 * last["share"], 4),
                     "shuffled labels, %": None if last.get("shuffled") is None else round(100 * last["shuffled"] / report["n"], 4), "exact": last["exact"] and report["remove"]["conflicts"]["exact"],
                     "notes": len(report["notes"]), "CPU s": round(seconds, 1)})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


# Planted faults

def clean_bases(n: int) -> dict[str, LabelledSet]:
    found = {}
    for title, name in (("MNIST", "mnist"), ("CIFAR-10", "cifar10")):
        try: found[title] = load(name, download=False)
        except (OSError, ValueError) as error: print(f"left out: {title} ({error})", file=sys.stderr)
    found = found or {"digits": load("digits")}
    return {title: LabelledSet(data.train.images[:n], data.train.labels[:n], data.classes) for title, data in found.items()}


def rules(images: np.ndarray) -> dict[str, float]:
    "The thresholds of the chapter on planting."
    return {"inf": 16 / 255, "2": 8 / 255 * math.sqrt(images[0].size)}


def planted_faults(planted: Planted, base: LabelledSet) -> dict:
    "Recall by kind of `inf`, and of `inf` and `2`."
    both, found = rules(base.images), {}
    for name, radii in (("robustacc, inf", {"inf": both["inf"]}), ("robustacc, inf and 2", both)):
        started = cpu()
        result = planted.recall(curate(planted.data, radii=radii))
        found[name] = {**result, "seconds": round(cpu() - started, 2), "clean": len(curate(base, radii=radii))}
        print(name, found[name], file=sys.stderr, flush=True)
    return found


# Peers: each gives the pairs that it calls duplicates, or the images whose labels it doubts

def folder_of(planted: Planted) -> Path:
    "The images as PNG files with their positions as names."
    from PIL import Image
    folder = Path(tempfile.mkdtemp())
    for i, image in enumerate(planted.data.images): Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(folder / f"{i:06}.png")
    return folder


def position(path) -> int: return int(Path(path).stem)


def by_cleanvision(planted: Planted, folder: Path) -> set[tuple[int, int]]:
    from cleanvision import Imagelab
    lab = Imagelab(data_path=str(folder))
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=1)
    groups = lab.info["exact_duplicates"]["sets"] + lab.info["near_duplicates"]["sets"]
    return {pair for group in groups for pair in combinations(sorted(map(position, group)), 2)}


def by_imagededup(method: str, most: int | None = None) -> Callable:
    "`most` bits of the hashes may differ; None: the default, 10."
    def answer(planted: Planted, folder: Path) -> set[tuple[int, int]]:
        from imagededup import methods
        hasher = getattr(methods, method)(verbose=False)
        codes = hasher.encode_images(image_dir=str(folder), num_enc_workers=0)
        found = hasher.find_duplicates(encoding_map=codes, num_dist_workers=0, **({} if most is None else {"max_distance_threshold": most}))
        return {tuple(sorted((position(a), position(b)))) for a, others in found.items() for b in others}
    return answer


def by_cleanlab(planted: Planted, folder: Path) -> set[int]:
    from cleanlab.filter import find_label_issues
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    x, y = planted.data.images.reshape(len(planted.data), -1) / 255, planted.data.labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chances = cross_val_predict(make_pipeline(PCA(64, random_state=0), LogisticRegression(max_iter=200)), x, y, cv=5, method="predict_proba")
    return set(np.flatnonzero(find_label_issues(y, chances, n_jobs=1)).tolist())


PEERS = {"CleanVision": by_cleanvision, "imagededup PHash": by_imagededup("PHash"), "imagededup PHash, equal hashes": by_imagededup("PHash", 0), "imagededup DHash": by_imagededup("DHash"), "cleanlab on 64 components": by_cleanlab}


def judged(planted: Planted, answer: set) -> dict:
    "How many faults of each kind an answer has, and what it has beyond them."
    kinds = list(dict.fromkeys(kind for kind, *_ in planted.faults))
    pairs = all(isinstance(a, tuple) for a in answer)
    hit = lambda i, j: (min(i, j), max(i, j)) in answer if pairs else i in answer or j in answer
    true = {(min(i, j), max(i, j)) for _, i, j in planted.faults} if pairs else {v for kind, i, j in planted.faults for v in (i, j) if "label" in kind or "conflict" in kind}
    return {"found": {kind: sum(hit(i, j) for k, i, j in planted.faults if k == kind) for kind in kinds}, "invented": len(answer - true), "of": "pairs" if pairs else "images"}


def peers(planted: Planted) -> dict:
    folder, found = folder_of(planted), {}
    for name, answer in PEERS.items():
        try:
            __import__({"CleanVision": "cleanvision", "cleanlab on 64 components": "cleanlab"}.get(name, "imagededup.methods"))
            started = cpu()
            result = answer(planted, folder)
            found[name] = {**judged(planted, result), "seconds": round(cpu() - started, 2)}
        except ImportError as error: print(f"left out: {name} ({error})", file=sys.stderr); continue
        print(name, found[name], file=sys.stderr, flush=True)
    return found


# The page

def rows_of(heads: list[str], rows: list[list]) -> str:
    line = lambda cells: "| " + " | ".join("" if c is None else str(c) for c in cells) + " |"
    return "\n".join([line(heads), "|" + "---|" * len(heads), *map(line, rows)])


def page(report: dict) -> str:
    parts = ["# Auditing: known sets, planted faults, peers\n\nWritten by `python benchmarks/auditing.py`."]
    if report.get("sets"): parts.append("## Known sets\n\nClose pairs within a radius in l-infinity; images to remove, or labels to change, until no close pair has two labels; the best robust "
                                        "loss of any classifier at half the radius, with the true and with shuffled labels. Parts of a set are audited together.\n\n"
                                        + rows_of(list(report["sets"][0]), [list(row.values()) for row in report["sets"]]))
    for base, part in report.get("planted", {}).items():
        results = {**part["robustacc"], **part["peers"]}
        kinds = list(next(iter(results.values()))["planted"])
        body = [[kind, *(r["found"][kind] for r in results.values())] for kind in kinds]
        body += [["invented", *(f"{r['invented']:,} {r.get('of', 'pairs')}" for r in results.values())], ["CPU s", *(r["seconds"] for r in results.values())]]
        each = next(iter(part["robustacc"].values()))["planted"][kinds[0]]
        parts.append(f"## Planted faults in {base}\n\n{each} faults of each kind in the first {part['images']:,} images, seed {part['seed']}. "
                     + "; ".join(f"{name}: {r['clean']} close pairs before planting, {r['nearest']} swapped labels among its 50 nearest pairs of different labels" for name, r in part["robustacc"].items())
                     + ".\n\n" + rows_of(["kind", *results], body))
    if report.get("planted"):
        peers = {name for part in report["planted"].values() for name in part["peers"]}
        parts.append("Peers run with their default thresholds. For those that find duplicates, pairs count whatever the labels." + (
            " For cleanlab, which doubts labels, images count; what it flags beyond the planted ones may be hard images or true errors of the base, so there the number of invented ones is an upper bound."
            if any("cleanlab" in name for name in peers) else ""))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("sets", "planted", "peers"), default=["sets", "planted", "peers"])
    parser.add_argument("--images", type=int, default=5000, help="size of the clean base (default: %(default)s)")
    parser.add_argument("--each", type=int, default=25, help="faults of each kind (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=20, help="shuffled labels (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    path = options.out / "auditing.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    report["environment"] = environment()
    if "sets" in options.parts: report["sets"] = known_sets(options.draws)
    if {"planted", "peers"} & set(options.parts):
        report["planted"] = {}
        for name, base in clean_bases(options.images).items():
            planted = plant(base, each=options.each, seed=0)
            report["planted"][name] = {"images": len(base), "seed": 0, "robustacc": planted_faults(planted, base), "peers": peers(planted) if "peers" in options.parts else {}}
    atomic_write(path, json.dumps(report, indent=1) + "\n")
    atomic_write(options.out / "auditing.md", page(report))


if __name__ == "__main__": main()
