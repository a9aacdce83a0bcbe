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
from robustacc.auditing import audit
from robustacc.data import load
from robustacc._blocks import Search, largest_differences
from robustacc.records import read_record
from robustacc.search import closest_pairs, nearest_other, nearest_own, pairs_within

COMMAND = [sys.executable, "-m", "robustacc.separation"]


def run(*arguments, **options):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
                          **options)


@pytest.fixture
def command(capsys):
    "The command within this process: its exit status, output and errors."
    def call(*arguments):
        try: status = separation.main(list(map(str, arguments))) or 0
        except SystemExit as end: status = end.code
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())
    return call


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
from robustacc.search import nearest_other
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


def test_command_measures_a_data_set(tmp_path, command):
    done = run("--dataset", "digits", "--json", tmp_path / "digits.json")
    assert done.returncode == 0, done.stderr
    assert "train-train min  0.41176" in done.stdout
    record = read_record(tmp_path / "digits.json")
    assert sum(record["histograms"]["test_train"]["counts"]) == record["metrics"]["test_train"]["n"] == 360
    drawn = command("--dataset", "digits", "--labels", "random", "--seed", 3)
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
    assert tuple(round(metrics[part][key], 5) for part in separation._PARTS for key in ("min", "mean")) == expected
    assert done.stdout.count("agrees") == 4


def test_command_audits_arrays_and_folders(tmp_path, command):
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
    names = [tmp_path / "pictures" / f"class{label}" / f"{i:02}.png" for i, label in ((0, 0), (59, 2))]
    for i, (image, label) in enumerate(zip(images, labels)):
        folder = tmp_path / "pictures" / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i:02}.png")
    done = command("--images", tmp_path / "pictures", "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    of_folder = json.loads((tmp_path / "b.json").read_text())
    assert of_folder["mean"] == pytest.approx(report["mean"], abs=1e-12)
    assert of_folder["conflicts"][0]["files"] == [f"{name.parent.name}/{name.name}" for name in names]
    assert of_folder["conflicts"][0]["classes"] == ["class0", "class2"] and list(of_folder["classes"]) == ["class0", "class1", "class2"]
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / "class0" / "odd.png")
    assert "--size" in command("--images", tmp_path / "pictures").stderr
    assert command("--images", tmp_path / "pictures", "--size", 8).returncode == 0


@pytest.mark.parametrize("arguments, message", [
    (["--dataset", "imagenet"], "invalid choice"), ([], "required"), (["--dataset", "digits", "--labels", "shuffled"], "permutation"),
    (["--images", "nowhere.npy", "--labels-file", "y.npy"], "nowhere.npy"), (["--images", "x.npy"], "--labels-file"),
    (["--dataset", "digits", "--threads", "0"], "threads"), (["--dataset", "digits", "--memory", "0"], "memory"),
    (["--dataset", "digits", "--html", "x.html"], "--images"), (["--dataset", "digits", "--p", "2", "--backend", "filter"], "uint8"),
    (["--dataset", "digits", "--pairs", "0"], "it must be at least 1"),
    (["--dataset", "digits", "--memory", "nan"], "memory"), (["--dataset", "digits", "--json", "."], "a file, not a folder"),
    (["--dataset", "digits", "--labels", "random", "--seed", "-1"], "seed -1"), (["--images", ".", "--labels-file", "y.npy"], "sub-folders"),
    (["--dataset", "digits", "--p", "3"], "inf, 2"), (["--dataset", "digits", "--device", "nowhere"], "nowhere")])
def test_bad_input_is_named(arguments, message, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, value, message", [("datset", "mnist", "dataset"), ("p", 3, "inf, 2"), ("random_draws", "five", "int"),
                                                  ("dataset", "imagenet", "resimagenet")])
def test_the_notebook_refuses_bad_parameters(name, value, message, opened, tmp_path):
    "In this process; that papermill ends there, and says so, is tested with the chapter that trains."
    with pytest.raises(ValueError, match=message): opened("01_separation", **{"results": str(tmp_path / "runs"), name: value})
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


@pytest.mark.parametrize("backend", [pytest.param("brute", marks=pytest.mark.slow), "filter"])
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


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(("other", "same", "all")), st.integers(0, 255))
def test_pairs_by_filter_are_the_definition(problem, which, radius):
    from robustacc._kernels import pairs_by_filter
    q, ql, r, rl = problem
    ql, rl = ql.astype(np.int32), rl.astype(np.int32)
    for sets, within in (((q, ql, r, rl), False), ((r, rl, r, rl), True)):
        a, la, b, lb = sets
        value = np.abs(a[:, None].astype(int) - b[None]).max(2)
        counts = value <= radius
        if which != "all": counts &= (la[:, None] == lb) == (which == "same")
        if within: counts = np.triu(counts, 1)
        i, j = np.nonzero(counts)
        expected = sorted(zip(value[i, j], i, j))
        assert list(zip(*pairs_by_filter(Search(*sets, which, within, threads=2), radius))) == expected
        small = Search(np.asfortranarray(a), la, np.asfortranarray(b), lb, which, within, memory=max(64 * 1000, 48 * len(expected)))
        assert list(zip(*pairs_by_filter(small, radius))) == expected  # blocks of 64 and a few more, strided


def test_pairs_of_a_memory_map_in_blocks(tmp_path):
    rng = np.random.default_rng(11)
    base = rng.integers(0, 256, (30, 3, 24, 24))
    images = np.clip(base[rng.integers(30, size=2500)] + rng.integers(-40, 41, (2500, 3, 24, 24)), 0, 255).astype(np.uint8)
    labels = rng.integers(0, 5, 2500)
    np.save(tmp_path / "x.npy", np.asfortranarray(images))
    whole, blocks = (pairs_within(x, labels, 77 / 255, memory=memory) for x, memory in
                     ((images, 2**32), (np.load(tmp_path / "x.npy", mmap_mode="r"), 2**21)))
    flat = images.reshape(2500, -1)
    value = np.concatenate([largest_differences(flat[at:at + 250], flat) for at in range(0, 2500, 250)])
    i, j = np.nonzero(np.triu((value <= 77) & (labels[:, None] != labels), 1))
    assert 100 < len(whole) == len(i)
    for name in ("first", "second", "distance"): np.testing.assert_array_equal(getattr(whole, name), getattr(blocks, name))
    assert list(zip(whole.distance, whole.first, whole.second)) == sorted(zip(value[i, j] / 255, i, j))
    with pytest.raises(ValueError, match="do not fit"): pairs_within(images, labels, 1, "all", memory=2**21)


@pytest.mark.slow
def test_pairs_of_cifar10_and_mnist_at_full_size():
    try: cifar, mnist = (load(name, download=False).train for name in ("cifar10", "mnist"))
    except (OSError, ValueError): pytest.skip("CIFAR-10 or MNIST is not on this machine")
    for levels, which, expected in ((16, "other", 0), (54, "other", 1), (90, "other", 4482), (120, "other", 526_622), (120, "all", 686_930)):
        assert len(pairs_within(cifar.images, cifar.labels, levels / 255, which)) == expected
    assert len(pairs_within(mnist.images, mnist.labels, 200 / 255)) == 3


@pytest.mark.slow
def test_the_fewest_examples_are_ignored():
    try: cifar = load("cifar10", download=False).train
    except (OSError, ValueError): pytest.skip("CIFAR-10 is not on this machine")
    found = separation._ignored_examples(cifar.images, cifar.labels, 36 / 255)
    left = np.setdiff1d(np.arange(50_000), found["drop"])
    assert len(found["drop"]) == 31 and not np.isin(found["close"].first, left)[np.isin(found["close"].second, left)].any()


FOUR, TWO = [[0, 0], [0, 9], [200, 200], [200, 255]], [0, 1, 0, 1]


def read_only(array):
    array.flags.writeable = False
    return array


def held_in():
    "The same four pictures in everything that a user may bring."
    import pandas as pd
    grey = np.array(FOUR, np.uint8)
    return {"array": (grey, TWO), "tensor": (torch.tensor(FOUR, dtype=torch.uint8), torch.tensor(TWO)), "read-only": (read_only(grey.copy()), read_only(np.array(TWO))),
            "pandas": (pd.DataFrame(grey), pd.Series(TWO)), "int32 labels": (grey, np.array(TWO, np.int32)), "byte order": (grey, np.array(TWO, ">i8")),
            "bool labels": (grey, np.array(TWO, bool)), "floats": (grey / 255, TWO), "list": ((grey / 255).tolist(), TWO),
            "big-endian floats": ((grey / 255).astype(">f8"), TWO), "requires grad": ((torch.tensor(FOUR) / 255.).requires_grad_(), torch.tensor(TWO)),
            "list of tensors": ([torch.tensor(row, dtype=torch.uint8) for row in FOUR], TWO)}


@pytest.mark.parametrize("held", held_in())
def test_whatever_holds_the_pictures_the_answers_are_the_same(held):
    images, labels = held_in()[held]
    near = lambda found: found == pytest.approx([9 / 255, 55 / 255], abs=1e-7)
    assert near(closest_pairs(images, labels, k=2).distance)
    assert near(pairs_within(images, labels, 55.01 / 255).distance)
    assert nearest_other(images, labels).distance == pytest.approx([9 / 255, 9 / 255, 55 / 255, 55 / 255], abs=1e-7)
    assert nearest_own(images, labels).index.tolist() == [2, 3, 0, 1]
    assert separation._class_minima(images, labels)[0][0, 1] == pytest.approx(9 / 255, abs=1e-7)
    assert len(separation._ignored_examples(images, labels, 28 / 255)["drop"]) == 2
    assert separation.duplicates(images, labels) == []
    report = audit(images, labels, eps=.01)
    assert near([pair["distance"] for pair in report["pairs"][:2]]) and report["ratio"] == pytest.approx(9 / 2.55, abs=1e-4)


@pytest.mark.parametrize("wrong, message", [
    (np.array(FOUR, np.int32), "int32"), (np.array(FOUR) + 0j, "complex"), ({"x": FOUR}, "dict"), ([[0, 1], [2]], "images"),
    (np.array([["a", "b"]] * 4), "images"), (np.full((4, 2), np.nan), "NaN"), (np.zeros((4, 0)), "shape"), (np.zeros(4), "shape")])
def test_what_cannot_be_searched_is_named(wrong, message):
    for work in (nearest_other, nearest_own, closest_pairs, audit, separation._class_minima, separation.duplicates,
                 lambda x, y: pairs_within(x, y, .1), lambda x, y: separation._ignored_examples(x, y, .1)):
        with pytest.raises(ValueError, match=message): work(wrong, TWO)


def save_folder(folder, pictures):
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name) if hasattr(picture, "save") else (folder / name).write_bytes(picture)


@pytest.mark.parametrize("kind", ["truncated", "corrupt", "bomb"])
def test_damaged_pictures_are_named(kind, tmp_path, command):
    import io
    from PIL import Image
    whole, stream = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)), io.BytesIO()
    whole.save(stream, format="png")
    if kind == "bomb":
        stream = io.BytesIO()
        Image.new("1", (20_000, 20_000)).save(stream, format="png")
    damaged = {"truncated": stream.getvalue()[:900], "corrupt": b"no picture at all", "bomb": stream.getvalue()}[kind]
    save_folder(tmp_path / "it's a folder", {"cat/a.png": whole, "dog/b.png": whole, "dog/odd one.png": damaged})
    done = (run if kind == "corrupt" else command)("--images", tmp_path / "it's a folder", "--json", tmp_path / "a.json")
    assert done.returncode == 2 and "odd one.png" in done.stderr and "Traceback" not in done.stderr and not (tmp_path / "a.json").exists()


def test_sixteen_bits_do_not_turn_white(tmp_path, command):
    from PIL import Image
    levels = np.random.default_rng(0).integers(0, 65536, (4, 12, 12)).astype(np.uint16)
    save_folder(tmp_path / "x", {f"{'cat' if i % 2 else 'dog'}/{i}.png": Image.fromarray(level) for i, level in enumerate(levels)})
    done = command("--images", tmp_path / "x", "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["duplicates"] == [] and report["min"] == np.abs((levels[::2, None] >> 8).astype(int) - (levels[None, 1::2] >> 8)).max((2, 3)).min() / 255


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (3,)}\n", "archive"])
def test_files_that_are_no_arrays_are_named(content, tmp_path, command):
    if content == "archive": np.savez(tmp_path / "x.npz", a=np.zeros(3)), (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    else: (tmp_path / "x.npy").write_bytes(content)
    np.save(tmp_path / "y.npy", np.arange(3))
    done = command("--images", tmp_path / "x.npy", "--labels-file", tmp_path / "y.npy")
    assert done.returncode == 2 and "x.npy: it must be" in done.stderr and "Traceback" not in done.stderr


def test_outputs_are_tried_before_the_work(tmp_path, command):
    (tmp_path / "file").write_text("")
    done = command("--dataset", "digits", "--json", tmp_path / "file" / "r.json")
    assert done.returncode == 2 and not done.stdout and "file" in done.stderr


def test_a_read_only_package_folder_does_not_stop_it(tmp_path):
    import shutil
    from pathlib import Path
    shutil.copytree(Path(separation.__file__).parent, tmp_path / "robustacc", ignore=shutil.ignore_patterns("__pycache__"))
    code = ("import numba.core.caching as c, robustacc, numpy as np\n"
            "c._CacheLocator.ensure_cache_path = lambda self: (_ for _ in ()).throw(OSError('read-only'))\n"
            "from robustacc.search import nearest_other\nassert robustacc.__file__.startswith(%r)\n"
            "print((nearest_other(np.array([[0], [10], [30]], np.uint8), [0, 0, 1]).distance * 255).tolist())" % str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path,
                          env={k: v for k, v in __import__("os").environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(tmp_path)})
    assert done.stdout == "[30.0, 20.0, 20.0]\n", done.stderr
