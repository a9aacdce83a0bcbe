"""Separation beside its peers, in one run: CPU time per pair, full-size cost, scaling, and the first call.

    python benchmarks/separation.py                              # MNIST and CIFAR-10, full size
    python benchmarks/separation.py --datasets digits --out /tmp/bench

Peers answer for 1,000 queries against 2,000 images (their cost per pair does not depend on the numbers); the witness filter
answers the full train-train question, and its cost per pair there is what the ratios compare. Times are CPU seconds of
the whole process, the least of the repetitions, so that other work on the machine matters as little as possible.
Writes separation.md, separation.json and separation.png.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numba import njit
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from robustacc.data import DATASETS, load
from robustacc.files import atomic_write
from robustacc.records import environment
from robustacc.search import nearest_other, pairs_within
from robustacc.streaming import certify_separation


@njit(nogil=True)
def plain_loop(queries, rows):
    "What one writes first: no tiles, no tricks, but compiled."
    best = np.full(len(queries), 256, np.int64)
    for i in range(len(queries)):
        for j in range(len(rows)):
            largest = np.uint8(0)
            for k in range(rows.shape[1]):
                a, b = queries[i, k], rows[j, k]
                largest = max(largest, np.uint8(max(a, b) - min(a, b)))
            best[i] = min(best[i], np.int64(largest))
    return best


def faiss_linf(queries, rows):
    import faiss
    index = faiss.IndexFlat(rows.shape[1], faiss.METRIC_Linf)
    index.add(rows.astype(np.float32))
    return index.search(queries.astype(np.float32), 1)[0][:, 0]


OURS = "robustacc witness filter"
PEERS = {
    "faiss IndexFlat Linf": faiss_linf,
    "scikit-learn brute": lambda q, r: NearestNeighbors(n_neighbors=1, algorithm="brute", metric="chebyshev").fit(
        r.astype(np.float64)).kneighbors(q.astype(np.float64))[0][:, 0],
    "torch.cdist p=inf": lambda q, r: torch.cdist(torch.tensor(q).float(), torch.tensor(r).float(), p=math.inf).amin(1).numpy(),
    "scipy cdist chebyshev": lambda q, r: cdist(q, r, "chebyshev").min(1),
    "plain numba uint8 loop": plain_loop,
}


def cpu(work, repeats: int = 1) -> tuple[float, float, object]:
    "Least CPU seconds and wall seconds of the repetitions, and the last result."
    times = []
    for _ in range(repeats):
        c, w = time.process_time(), time.perf_counter()
        result = work()
        times.append((time.process_time() - c, time.perf_counter() - w))
    return *min(times), result


def measure(name: str, queries: int, references: int) -> dict:
    "All peers and the filter on one data set."
    train = load(name).train
    images, labels = train.images.reshape(len(train), -1), train.labels
    q, r = images[:queries], images[-references:]
    plain_loop(q[:2], r[:2]), nearest_other(images[:3000], labels[:3000], backend="filter")
    n, rows, answers = len(images), {}, {}
    seconds, wall, found = cpu(lambda: nearest_other(images, labels, backend="filter"), 3)
    rows[OURS] = {"ns_per_pair": seconds / n**2 * 1e9, "full_cpu_seconds": seconds, "full_wall_seconds": wall,
                  "measured_on": f"{n} x {n}"}
    for peer, work in PEERS.items():
        seconds, _, answers[peer] = cpu(lambda: work(q, r), 3 if peer.startswith("plain") else 1)
        per_pair = seconds / (len(q) * len(r))
        rows[peer] = {"ns_per_pair": per_pair * 1e9, "full_cpu_seconds": per_pair * n**2, "measured_on": f"{len(q)} x {len(r)}"}
        print(f"{name}: {peer}: {per_pair * 1e9:.0f} ns per pair", file=sys.stderr, flush=True)
    for peer, answer in answers.items(): np.testing.assert_allclose(answer, answers["plain numba uint8 loop"], err_msg=peer)
    for row in rows.values(): row["times_the_filter"] = row["ns_per_pair"] / rows[OURS]["ns_per_pair"]
    scaling = {"n": {}, "d": {}}
    for part in sorted({k for k in (2000, 5000, 10_000, 20_000, 40_000) if k < n} | {n}):
        scaling["n"][part] = cpu(lambda: nearest_other(images[:part], labels[:part], backend="filter"), 2)[0]
    order = np.random.default_rng(0).permutation(images.shape[1])
    for d in sorted({k for k in (48, 96, 192, 384, 768, 1536) if k < len(order)} | {len(order)}):
        some = np.ascontiguousarray(images[:10_000, np.sort(order[:d])])
        scaling["d"][d] = cpu(lambda: nearest_other(some, labels[:10_000], backend="filter"), 2)[0]
    return {"n": n, "d": images.shape[1], "min": float(found.distance.min()), "mean": float(found.distance.mean()), "rows": rows,
            "scaling": scaling}


STREAM = {"cifar10": 16, "mnist": 150}  # grey levels
RADII = {"cifar10": (16, 90, 120), "mnist": (200,)}  # grey levels


def tree_within(q, r, radius):
    "scikit-learn's radius search, by brute force, as pairs (query, reference)."
    found = NearestNeighbors(radius=radius + .5, algorithm="brute", metric="chebyshev").fit(r.astype(np.float64)).radius_neighbors(q.astype(np.float64))[1]
    return {(i, int(j)) for i, row in enumerate(found) for j in row}


@njit(nogil=True)
def _plain_within(queries, rows, radius, found):
    "Pairs within a radius, with an end at the first pixel that rejects one; returns how many there are."
    count = 0
    for i in range(len(queries)):
        for j in range(len(rows)):
            for k in range(rows.shape[1]):
                a, b = queries[i, k], rows[j, k]
                if max(a, b) - min(a, b) > radius: break
            else:
                if count < len(found): found[count] = i, j
                count += 1
    return count


def plain_within(q, r, radius):
    "The loop that one writes first, compiled."
    found = np.empty((len(q) * len(r), 2), np.int32)
    return set(map(tuple, found[:_plain_within(q, r, radius, found)].tolist()))


def all_within(value, radius): return set(zip(*(places.tolist() for places in np.nonzero(value <= radius))))


WITHIN = {
    "scipy cdist chebyshev": lambda q, r, radius: all_within(cdist(q, r, "chebyshev"), radius),
    "scikit-learn brute radius_neighbors": tree_within,
    "plain numba loop with early exit": plain_within,
    "torch.cdist p=inf": lambda q, r, radius: all_within(torch.cdist(torch.tensor(q).float(), torch.tensor(r).float(), p=math.inf).numpy(), radius),
}  # faiss has no range search for l-infinity


def within(name: str, queries: int, references: int) -> list[dict]:
    "All pairs within a radius: this package at full size beside `nearest_other` in the same run, and peers on a part."
    train, rows = load(name).train, []
    images, labels = train.images, train.labels
    flat = images.reshape(len(images), -1)
    q, r = flat[:queries], flat[-references:]
    pairs_within(images[:3000], labels[:3000], .1), nearest_other(images[:3000], labels[:3000], backend="filter"), plain_within(q[:2], r[:2], 9)
    for radius in RADII.get(name, (64,)):
        nearest = cpu(lambda: nearest_other(images, labels, backend="filter"), 3)[0]
        for which in ("other", "all") if radius == RADII.get(name, (64,))[-1] else ("other",):
            seconds, wall, found = cpu(lambda: pairs_within(images, labels, radius / 255, which), 3)
            rows.append({"radius": radius, "method": f"robustacc pairs_within, {which}", "pairs": len(found), "full_cpu_seconds": seconds,
                         "of_nearest_other": seconds / nearest, "measured_on": f"{len(images)} x {len(images)}"})
        found = pairs_within(q, np.zeros(len(q), int), radius / 255, "all", reference=r, reference_labels=np.zeros(len(r), int))
        ours = set(zip(found.first.tolist(), found.second.tolist()))
        for peer, work in WITHIN.items():
            seconds, _, answer = cpu(lambda: work(q, r, radius))
            assert answer == ours, (peer, radius)
            full = seconds / (len(q) * len(r)) * len(images)**2 / 2
            rows.append({"radius": radius, "method": peer, "pairs": None, "full_cpu_seconds": full, "of_nearest_other": full / nearest,
                         "measured_on": f"{len(q)} x {len(r)}"})
            print(f"{name}: within {radius}: {peer}: {full / nearest:.0f} times nearest_other", file=sys.stderr, flush=True)
    return rows


def faiss_l2(queries, rows):
    import faiss
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows.astype(np.float32))
    return np.sqrt(index.search(queries.astype(np.float32), 1)[0][:, 0])


EUCLIDEAN = {
    "faiss IndexFlatL2, float32": faiss_l2,
    "scikit-learn brute": lambda q, r: NearestNeighbors(n_neighbors=1, algorithm="brute").fit(r.astype(np.float64)).kneighbors(q.astype(np.float64))[0][:, 0],
    "scipy cdist": lambda q, r: cdist(q.astype(np.float64), r.astype(np.float64)).min(1),
}


def points(name: str, n: int = 50_000, d: int = 512) -> tuple[np.ndarray, np.ndarray]:
    "Images of a data set, or made points of 512 numbers: noise, and the falling spectrum of an embedding with ten classes."
    if name in DATASETS: return load(name).train.images, load(name).train.labels
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, n)
    spread = np.ones(d) if name == "noise" else np.arange(1, d + 1) ** -.5
    return ((rng.normal(size=(10, d))[labels] * (name != "noise") / 2 + rng.normal(size=(n, d))) * spread).astype(np.float32), labels


def euclidean(name: str, queries: int) -> list[dict]:
    "The nearest other class in l2: by projection at full size, by brute force and through peers on a part."
    x, labels = points(name)
    x = x.reshape(len(x), -1)
    n, part = len(x), slice(0, queries)
    nearest_other(x[:2100], labels[:2100], p=2)
    seconds, wall, found = cpu(lambda: nearest_other(x, labels, p=2, backend="projection"))
    brute, _, plain = cpu(lambda: nearest_other(x[part], labels[part], x, labels, p=2, backend="brute"))
    assert np.array_equal(found.distance[part], plain.distance) and np.array_equal(found.index[part], plain.index)
    brute *= n / queries
    rows = [{"method": "robustacc, projection", "measured_on": f"{n} x {n}", "full_cpu_seconds": seconds, "of_brute": seconds / brute, "projected": False},
            {"method": "robustacc, brute force", "measured_on": f"{queries} x {n}", "full_cpu_seconds": brute, "of_brute": 1., "projected": True}]
    q, r, answers = x[:queries], x[-2000:], {}
    for peer, work in EUCLIDEAN.items():
        seconds, _, answers[peer] = cpu(lambda: work(q, r))
        full = seconds / (len(q) * len(r)) * n**2
        rows.append({"method": peer, "measured_on": f"{len(q)} x {len(r)}", "full_cpu_seconds": full, "of_brute": full / brute, "projected": True})
        print(f"{name}: l2: {peer}: {full / brute:.2f} times brute force", file=sys.stderr, flush=True)
    for peer, answer in answers.items(): np.testing.assert_allclose(answer, answers["scipy cdist"], rtol=1e-3, err_msg=peer)
    return rows


def stream(name: str, radius: int) -> dict:
    "What a certificate from a stream costs, the slope of its quadratic part, and ImageNet-1k projected from it."
    train = load(name).train
    images, labels = train.images.reshape(len(train), -1), train.labels
    seconds, _, proof = cpu(lambda: certify_separation(lambda at: images[at], labels, radius / 255, threads=1))
    kept, rows = np.ascontiguousarray(images[:, proof.pixels]), []
    for size in (len(images) // 4, len(images) // 2, len(images)):
        rows.append((size * (size - 1) / 2, cpu(lambda: pairs_within(kept[:size], labels[:size], radius / 255, threads=1), 3)[0]))
    pairs, times = np.array(rows).T
    slope, n = float(pairs @ times / (pairs @ pairs)), 1_281_167
    return {"radius": radius, "pixels": len(proof.pixels), "of": images.shape[1], "n": len(images), "pairs": proof.pairs, "left": proof.left, "close": len(proof.close),
            "cpu_seconds": seconds, "search_cpu_seconds": float(times[-1]), "ns_per_pair": slope * 1e9, "imagenet_cpu_minutes": slope * n * (n - 1) / 2 / 60,
            "imagenet_megabytes": n * len(proof.pixels) / 1e6, "imagenet_left": proof.left / proof.pairs * n * (n - 1) / 2}


def first_call() -> dict:
    "Seconds of the first search in a fresh process, without and with the compiler's cache."
    code = ("import time, numpy as np\nfrom robustacc.search import nearest_other, pairs_within\nx = np.zeros((3000, 64), np.uint8)\n"
            "t = time.perf_counter(); nearest_other(x, np.arange(3000) % 2, backend='filter'); print(time.perf_counter() - t)")
    with tempfile.TemporaryDirectory() as cache:
        run = lambda: float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                                           env={**os.environ, "NUMBA_CACHE_DIR": cache}).stdout)
        return {"compiling": run(), "cached": run()}


def as_markdown(report: dict) -> str:
    machine = report["environment"]
    lines = ["# Separation beside its peers", "",
             f"{machine['processor']}, {report['cpus']} CPUs, Python {machine['python']}, {machine['system']}. "
             f"CPU seconds, all in one run; `benchmarks/separation.py` makes this file. The machine was shared while it ran (load {report['load']:.0f} at the beginning), "
             "so seconds are inflated, those of memory-bound methods most; the ratios are what to look at.", ""]
    for name, data in report["datasets"].items():
        lines += [f"## {name}: {data['n']:,} images of {data['d']:,} pixels, train-train", "",
                  f"minimum {data['min']:.5f}, mean {data['mean']:.5f}", "",
                  "| method | measured on | ns per pair | full size, CPU s | times the filter |", "|---|---|---:|---:|---:|"]
        lines += [f"| {peer} | {row['measured_on']} | {row['ns_per_pair']:,.2f} | {row['full_cpu_seconds']:,.1f}"
                  f"{'' if 'full_wall_seconds' in row else ' (projected)'} | {row['times_the_filter']:,.1f} |"
                  for peer, row in sorted(data["rows"].items(), key=lambda item: item[1]["ns_per_pair"])]
        for key, what in (("n", "images"), ("d", "pixels (10,000 images)")):
            sizes, seconds = data["scaling"][key].keys(), data["scaling"][key].values()
            lines += ["", f"| {what} | " + " | ".join(f"{int(size):,}" for size in sizes) + " |", "|---" * (1 + len(sizes)) + "|",
                      "| CPU s | " + " | ".join(f"{s:.2f}" for s in seconds) + " |"]
        lines += ["", "All pairs within a radius; half of all pairs are looked at, and so projected for the peers. faiss has no range search for l-infinity.", "",
                  "| radius, levels | method | pairs | measured on | full size, CPU s | of `nearest_other` |", "|---:|---|---:|---|---:|---:|"]
        lines += [f"| {row['radius']} | {row['method']} | {'' if row['pairs'] is None else format(row['pairs'], ',')} | {row['measured_on']} | "
                  f"{row['full_cpu_seconds']:,.2f}{' (projected)' if row['pairs'] is None else ''} | {row['of_nearest_other']:,.2f} |" for row in data["within"]]
        lines.append("")
    lines += ["## The nearest other class in l2", "", "50,000 points each; those of 512 numbers are made, as noise and with the falling spectrum of an embedding. The projection's seconds include the choice of its directions. "
              "Equal to brute force in distance and index on the part.", "", "| points | method | measured on | full size, CPU s | of brute force |", "|---|---|---|---:|---:|"]
    lines += [f"| {name} | {row['method']} | {row['measured_on']} | {row['full_cpu_seconds']:,.1f}{' (projected)' if row['projected'] else ''} | {row['of_brute']:.3f} |"
              for name, rows in report["euclidean"].items() for row in rows]
    lines += ["", "## Separation from a stream", ""]
    for name, row in report["stream"].items():
        lines += [f"{name}, {row['radius']} levels: {row['pixels']} of {row['of']:,} pixels leave {row['left']:,} of {row['pairs']:,} pairs, of which {row['close']:,} are close; {row['cpu_seconds']:.1f} CPU s with the pass over memory, "
                  f"{row['search_cpu_seconds']:.2f} for the search on the witnesses ({row['ns_per_pair']:.3f} ns a pair). At this slope ImageNet-1k's 1,281,167 pictures take {row['imagenet_cpu_minutes']:,.0f} CPU minutes on "
                  f"{row['imagenet_megabytes']:,.0f} MB of witnesses, beside one reading of the pictures, and about {row['imagenet_left']:,.0f} pairs a second look.", ""]
    first = report["first_call"]
    return "\n".join(lines + [f"First search of a fresh process: {first['compiling']:.1f} s when it compiles, "
                              f"{first['cached']:.1f} s from the compiler's cache.", "", "![scaling](separation.png)", ""])


def plot(report: dict, path: Path) -> None:
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    for name, data in report["datasets"].items():
        for axis, key in zip(axes, ("n", "d")): axis.loglog(*zip(*data["scaling"][key].items()), "o-", label=name)
    axes[0].set(xlabel="images", ylabel="CPU seconds", title="train-train, all pixels")
    axes[1].set(xlabel="pixels", title="10,000 images, random pixels")
    for axis in axes: axis.legend(), axis.grid(alpha=.3)
    figure.tight_layout()
    atomic_write(path, lambda target: figure.savefig(target, format="png", dpi=110))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["mnist", "cifar10"], choices=DATASETS)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--references", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    report = {"environment": environment(), "load": os.getloadavg()[0], "cpus": len(os.sched_getaffinity(0)), "first_call": first_call(),
              "datasets": {name: {**measure(name, options.queries, options.references), "within": within(name, options.queries, options.references)}
                           for name in options.datasets},
              "euclidean": {name: euclidean(name, options.queries) for name in [*(d for d in options.datasets if d == "cifar10"), "noise", "embedding"]},
              "stream": {name: stream(name, STREAM.get(name, 60)) for name in options.datasets}}
    options.out.mkdir(parents=True, exist_ok=True)
    plot(report, options.out / "separation.png")
    atomic_write(options.out / "separation.json", json.dumps(report, indent=1) + "\n")
    atomic_write(options.out / "separation.md", as_markdown(report))
    print(as_markdown(report))


if __name__ == "__main__": main()
