"""Separation: what needs processes, signals, memory maps, other libraries or generated inputs."""
import json
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustacc import separation
from robustacc.data import load
from robustacc.records import read_record
from robustacc.separation import audit, closest_pairs, nearest_other, nearest_own

COMMAND = [sys.executable, "-m", "robustacc.separation"]


def run(*arguments, **options):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
                          **options)


def by_definition(queries, query_labels, reference=None, reference_labels=None, *, own=False, p=math.inf):
    within = reference is None
    if within: reference, reference_labels = queries, query_labels
    a, b = queries.reshape(len(queries), 1, -1).astype(np.int64), reference.reshape(1, len(reference), -1).astype(np.int64)
    difference = a - b
    value = np.abs(difference).max(2).astype(float) if p == math.inf else np.sqrt((difference**2).sum(2))
    struck = (np.asarray(query_labels)[:, None] == np.asarray(reference_labels)) != own
    if own and within: struck |= np.eye(len(queries), dtype=bool)
    value[struck] = np.inf
    return value.min(1) / 255, np.where(np.isinf(value.min(1)), -1, value.argmin(1))


def assert_same(found, expected):
    np.testing.assert_array_equal(found.distance, expected[0])
    np.testing.assert_array_equal(found.index, expected[1])


@st.composite
def problems(draw):
    "Small labelled sets with few levels, so that ties, duplicates and lone classes are common."
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, m = draw(st.integers(1, 140)), draw(st.integers(2, 200))
    d, classes = draw(st.sampled_from([1, 2, 7, 31, 32, 33, 63, 64, 65, 95, 96, 97, 160, 300])), draw(st.integers(2, 9))
    low, high = draw(st.sampled_from([(0, 256), (0, 2), (100, 103), (0, 1), (253, 256), (0, 9)]))
    queries, reference = (rng.integers(low, high, (k, d)).astype(np.uint8) for k in (n, m))
    if draw(st.booleans()): reference[rng.integers(m, size=m // 2)] = queries[rng.integers(n, size=m // 2)]
    labels = rng.integers(0, classes, m)
    labels[:2] = 0, 1
    return queries, rng.integers(0, classes, n), reference, labels


@settings(max_examples=60, deadline=None)
@given(problems(), st.booleans())
def test_filter_is_the_definition(problem, own):
    search = nearest_own if own else nearest_other
    assert_same(search(*problem, backend="filter", threads=2), by_definition(*problem, own=own))
    assert_same(search(*problem[2:], backend="filter"), by_definition(*problem[2:], own=own))


@pytest.mark.parametrize("backend", ["filter", "brute", "torch", "faiss"])
@pytest.mark.parametrize("own", [False, True])
def test_backends_agree(backend, own):
    if backend == "faiss": pytest.importorskip("faiss")
    rng = np.random.default_rng(1)
    images = np.concatenate([rng.integers(0, high, (150, 100)) for high in (256, 4)]).astype(np.uint8)
    images[40:60], images[100] = images[0], images[299]
    labels = rng.integers(0, 5, 300)
    search = nearest_own if own else nearest_other
    for sets in ((images, labels), (images[:90], labels[:90], images[90:], labels[90:])):
        assert_same(search(*sets, backend=backend), by_definition(*sets, own=own))


def test_larger_set_against_faiss():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(2)
    base = rng.integers(0, 256, (20, 200))
    images = np.clip(base[rng.integers(20, size=1500)] + rng.integers(-60, 61, (1500, 200)), 0, 255).astype(np.uint8)
    labels = rng.integers(0, 10, 1500)
    found, peer = (nearest_other(images, labels, backend=backend) for backend in ("filter", "faiss"))
    assert_same(found, (peer.distance, peer.index))


def test_l2_is_exact_in_integers():
    rng = np.random.default_rng(3)
    images, labels = rng.integers(0, 256, (60, 3072)).astype(np.uint8), rng.integers(0, 3, 60)
    for backend in ("brute", "torch"): assert_same(nearest_other(images, labels, p=2, backend=backend), by_definition(images, labels, p=2))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("backend", ["filter", "brute", "torch"])
def test_memory_maps_and_strides_in_blocks(tmp_path, order, backend):
    rng = np.random.default_rng(4)
    images, labels = rng.integers(0, 200, (900, 3, 24, 24)).astype(np.uint8), rng.integers(0, 300, 900)
    np.save(tmp_path / "x.npy", np.asarray(images, order=order))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    whole = nearest_other(images, labels, backend="filter")
    blocks = nearest_other(mapped, labels, backend=backend, memory=2**20)
    assert_same(blocks, (whole.distance, whole.index))
    strided = nearest_other(mapped[::-2, :, ::2, 1::3], labels[::-2], backend=backend, memory=2**20)
    assert_same(strided, by_definition_small(images[::-2, :, ::2, 1::3], labels[::-2]))


def by_definition_small(images, labels):
    "The definition, a few rows at a time."
    parts = [by_definition(images[at:at + 50], labels[at:at + 50], images, labels) for at in range(0, len(images), 50)]
    return tuple(np.concatenate(column) for column in zip(*parts))


PEAK = """
import resource, sys, numpy as np
from robustacc.separation import nearest_other
small = np.random.default_rng(0).integers(0, 256, (300, 64)).astype(np.uint8)
nearest_other(small, np.arange(300) % 3, backend="filter")
x, y = np.load(sys.argv[1], mmap_mode="r" if sys.argv[2] == "map" else None), np.load(sys.argv[3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
nearest_other(x[:64], y[:64], x, y, backend="filter", memory=int(sys.argv[4]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_working_memory_is_bounded(tmp_path):
    rng = np.random.default_rng(5)
    images, labels = rng.integers(0, 256, (100_000, 3072), dtype=np.uint8), rng.integers(0, 10, 100_000)
    np.save(tmp_path / "x.npy", images), np.save(tmp_path / "y.npy", labels)
    megabytes = images.nbytes / 2**20
    del images
    def peak(how, memory):
        command = [sys.executable, "-c", PEAK, tmp_path / "x.npy", how, tmp_path / "y.npy", str(memory)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)
    assert peak("memory", 2**32) < megabytes + 200  # the array itself was there before: twice the data in all
    within_budget = peak("map", 2**25) - megabytes  # pages of the map are counted as resident, though they can be dropped
    assert within_budget < 32 + 200


def test_command_measures_a_data_set(tmp_path):
    done = run("--dataset", "digits", "--json", tmp_path / "digits.json")
    assert done.returncode == 0, done.stderr
    assert "train-train min  0.41176" in done.stdout
    record = read_record(tmp_path / "digits.json")
    assert sum(record["histograms"]["test_train"]["counts"]) == record["metrics"]["test_train"]["n"] == 360
    drawn = run("--dataset", "digits", "--labels", "random", "--seed", 3)
    assert drawn.returncode == 0 and drawn.stdout != done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("dataset, labels, expected", [
    ("mnist", "original", (0.73725, 0.98956, 0.81176, 0.98963)), ("mnist", "random", (0.23137, 0.90180, 0.29020, 0.90424)),
    ("cifar10", "original", (0.21176, 0.47948, 0.21961, 0.47932)), ("cifar10", "random", (0.12549, 0.47583, 0.09804, 0.47541))])
def test_sixteen_figures_of_table_8(dataset, labels, expected, tmp_path):
    try: load(dataset, download=False)
    except (OSError, ValueError): pytest.skip(f"{dataset} is not on this machine")
    done = run("--dataset", dataset, "--labels", labels, "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    metrics = read_record(tmp_path / "r.json")["metrics"]
    assert tuple(round(metrics[part][key], 5) for part in separation.PARTS for key in ("min", "mean")) == expected
    assert done.stdout.count("agrees") == 4


def test_command_audits_arrays_and_folders(tmp_path):
    from PIL import Image
    rng = np.random.default_rng(6)
    images, labels = rng.integers(0, 256, (60, 3, 8, 8)).astype(np.uint8), np.arange(60) % 3
    images[59] = images[0]
    np.save(tmp_path / "x.npy", images), np.save(tmp_path / "y.npy", labels)
    done = run("--images", tmp_path / "x.npy", "--labels", tmp_path / "y.npy", "--json", tmp_path / "a.json",
               "--html", tmp_path / "a.html")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "a.json").read_text())
    assert [group["index"] for group in report["conflicts"]] == [[0, 59]] and report["verdict"] in done.stdout
    assert "positions [0, 59]" in (tmp_path / "a.html").read_text()
    for i, (image, label) in enumerate(zip(images, labels)):
        folder = tmp_path / "pictures" / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i:02}.png")
    done = run("--images", tmp_path / "pictures", "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "b.json").read_text())["mean"] == pytest.approx(report["mean"], abs=1e-12)
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / "class0" / "odd.png")
    assert "--size" in run("--images", tmp_path / "pictures").stderr
    assert run("--images", tmp_path / "pictures", "--size", 8).returncode == 0


@pytest.mark.parametrize("arguments, message", [
    (["--dataset", "imagenet"], "invalid choice"), ([], "required"), (["--dataset", "digits", "--labels", "shuffled"], "permutation"),
    (["--images", "nowhere.npy", "--labels-file", "y.npy"], "nowhere.npy"), (["--images", "x.npy"], "--labels-file"),
    (["--dataset", "digits", "--threads", "0"], "threads"), (["--dataset", "digits", "--memory", "0"], "memory"),
    (["--dataset", "digits", "--html", "x.html"], "--images"), (["--dataset", "digits", "--p", "2", "--backend", "filter"], "uint8"),
    (["--dataset", "digits", "--pairs", "0"], "expected at least 1")])
def test_bad_input_is_named(arguments, message, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode not in (0, 130) and message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, value, message", [("datset", "mnist", "dataset"), ("p", "3", "inf, 2"), ("random_draws", "five", "int"),
                                                  ("dataset", "imagenet", "resimagenet")])
def test_papermill_refuses_bad_parameters(name, value, message, root, python, tmp_path):
    done = python("-m", "papermill", root / "nbs" / "01_separation.ipynb", tmp_path / "page.ipynb", "-p", "results", tmp_path / "runs",
                  "-p", name, value)
    assert done.returncode != 0 and "ValueError" in done.stderr and message in done.stderr.split("ValueError")[-1]
    assert not (tmp_path / "runs").exists()


LONG = """
import sys, numpy as np
from robustacc.separation import main
rng, x = np.random.default_rng(0), np.zeros((60_000, 3072), np.uint8)
x[np.arange(60_000)[:, None], rng.integers(0, 3072, (60_000, 2))] = 1  # hardly any witnesses: minutes for every backend
np.save(sys.argv[1], x), np.save(sys.argv[2], rng.integers(0, 2, 60_000))
print("ready", flush=True)
main(["--images", sys.argv[1], "--labels-file", sys.argv[2], "--backend", sys.argv[3], "--json", sys.argv[4], "--threads", "1"])
"""


@pytest.mark.parametrize("backend", ["brute", "filter"])
def test_ctrl_c_stops_it(tmp_path, backend):
    report = tmp_path / "a.json"
    process = subprocess.Popen([sys.executable, "-c", LONG, tmp_path / "x.npy", tmp_path / "y.npy", backend, report],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a job in the background is started to ignore it
    assert process.stdout.readline() == "ready\n"
    time.sleep(3)
    assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors and not report.exists()


def test_works_without_numba(tmp_path):
    blocked = ("import sys; sys.modules['numba'] = sys.modules['llvmlite'] = None\n"
               "import numpy as np\nfrom robustacc.separation import nearest_other\n"
               "x = np.array([[0], [10], [30]], np.uint8)\nprint((nearest_other(x, [0, 0, 1]).distance * 255).tolist())\n"
               "try: nearest_other(x, [0, 0, 1], backend='filter')\nexcept ImportError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[0] == "[30.0, 20.0, 20.0]" and "needs numba" in done.stdout, done.stderr


@settings(max_examples=30, deadline=None)
@given(problems(), st.integers(1, 60))
def test_closest_pairs_are_the_first_of_all_pairs(problem, k):
    queries, query_labels, reference, labels = problem
    for sets in (problem, (reference, labels)):
        q, ql, r, rl = sets if len(sets) == 4 else (*sets, *sets)
        value = np.abs(q[:, None].astype(int) - r[None]).max(2) / 255
        allowed = ql[:, None] != rl[None]
        if len(sets) == 2: allowed = np.triu(allowed, 1)
        i, j = np.nonzero(allowed)
        got = closest_pairs(*sets, k=k)
        assert list(zip(got.distance, got.first, got.second)) == sorted(zip(value[i, j], i, j))[:k]


def test_audit_finds_every_planted_conflict():
    rng = np.random.default_rng(7)
    images, labels = rng.integers(0, 256, (3000, 200)).astype(np.uint8), rng.integers(0, 10, 3000)
    victims = rng.permutation(3000)[:400].reshape(200, 2)
    images[victims[:, 1]] = images[victims[:, 0]]
    labels[victims[:, 1]] = (labels[victims[:, 0]] + rng.integers(1, 10, 200)) % 10
    report = audit(images, labels, eps=.01)
    assert sorted(group["index"] for group in report["conflicts"]) == sorted(sorted(pair) for pair in victims.tolist())
    assert report["n_close"] == 200 and report["min"] == 0 and report["verdict"].startswith("Not separable")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same(tmp_path):
    rng = np.random.default_rng(8)
    images, labels = rng.integers(0, 256, (3000, 784)).astype(np.uint8), rng.integers(0, 10, 3000)
    for p in (math.inf, 2):
        found = nearest_other(images, labels, p=p, device="cuda")
        peer = nearest_other(images, labels, p=p, backend="brute")
        assert_same(found, (peer.distance, peer.index))
