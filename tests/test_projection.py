"""The search by projection against brute force in float64, distance and index, ties included; and the certificate of a stream."""
import math

import numpy as np
import pytest

from robustacc._projection import projects
from robustacc.search import _brute, _distance, _pairs_brute, _search, nearest_other, nearest_own, pairs_within
from robustacc.streaming import certify_separation


def sets(kind: str, rng: np.random.Generator):
    "A difficult set of points and its labels."
    n, d = int(rng.integers(60, 250)), int(rng.choice([3, 33, 70, 200]))
    labels = rng.integers(0, 4, n)
    if kind == "levels": return rng.integers(0, int(rng.choice([2, 4, 256])), (n, d)).astype(np.uint8), labels
    x = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -rng.random()
    if kind == "repeated": x = x[rng.integers(0, n // 3, n)]
    if kind == "far away": x = 1e6 + x
    if kind == "an outlier": x[rng.integers(n)] *= 1e9
    if kind == "tiny and huge": x *= 10.0 ** rng.integers(-90, 90)
    if kind == "one point": x[:] = x[0]
    return x.astype(np.float32 if kind in ("repeated", "float32") else np.float64), labels


KINDS = ("levels", "repeated", "far away", "an outlier", "tiny and huge", "one point", "float32")


@pytest.mark.parametrize("kind", KINDS)
def test_equals_brute_force(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    for trial in range(12):
        x, y = sets(kind, rng)
        memory = int(rng.choice([2**20, 2**30]))
        half = len(x) // 2
        for find, which in ((nearest_other, "other"), (nearest_own, "same")):
            for given in ((x, y), (x[:half], y[:half], x[half:], y[half:])):
                got = find(*given, p=2, backend="projection", memory=memory)
                search = _search(*(*given, None, None)[:4], which=which, p=2, memory=2**30, threads=1)
                value, index = _brute(search)
                assert np.array_equal(got.index, index) and np.array_equal(got.distance, _distance(search, value)), (kind, trial)


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_equal_brute_force(kind):
    from robustacc.search import _pairs_projected
    rng = np.random.default_rng(100 + KINDS.index(kind))
    for trial in range(8):
        x, y = sets(kind, rng)
        for which in ("other", "same", "all"):
            search = _search(x, y, None, None, which=which, p=2, memory=2**30, threads=1)
            every = np.sort(_pairs_brute(search, math.inf)[2])
            for radius in {0.0, *every[[len(every) // 100, len(every) // 10]].tolist()}:
                expected, got = ([part.tolist() for part in find(search, radius)] for find in (_pairs_brute, _pairs_projected))
                assert sorted(zip(*got)) == sorted(zip(*expected)), (kind, trial, which, radius)


def test_larger_sets_take_the_projection_and_agree():
    rng = np.random.default_rng(7)
    x = (rng.normal(size=(2300, 300)) * np.arange(1, 301) ** -0.8).astype(np.float32)
    x[1000:1100] = x[:100]
    y = rng.integers(0, 10, len(x))
    got, plain = (nearest_other(x, y, p=2, backend=backend) for backend in ("auto", "brute"))
    assert np.array_equal(got.distance, plain.distance) and np.array_equal(got.index, plain.index)
    radius = float(np.sort(plain.distance)[30])
    pairs = pairs_within(x, y, radius, "all", p=2)
    search = _search(x, y, None, None, which="all", p=2, memory=2**30, threads=1)
    assert sorted(zip(pairs.distance, pairs.first, pairs.second)) == sorted(zip(*(_pairs_brute(search, radius)[k] for k in (2, 0, 1))))
    assert (np.diff(pairs.distance) >= 0).all() and pairs.distance[-1] <= radius


def test_cosine_by_normalised_rows():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(300, 40)), rng.integers(0, 3, 300)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = np.where(y[:, None] == y, np.inf, 1 - unit @ unit.T)
    got = nearest_other(unit, y, p=2, backend="projection")
    assert np.allclose(got.distance**2 / 2, cosine.min(1)) and np.array_equal(got.index, cosine.argmin(1))


def test_what_cannot_be_projected():
    x = np.full((3, 4), 1e200)
    assert not projects(_search(x, [0, 1, 1], None, None, which="other", p=2, memory=2**30, threads=1))
    with pytest.raises(ValueError, match="1e-100 to 1e100"): nearest_other(x, [0, 1, 1], p=2, backend="projection")
    assert np.array_equal(nearest_other(x, [0, 1, 1], p=2).index, [1, 0, 0])


def test_a_stream_equals_the_search_in_memory():
    rng = np.random.default_rng(5)
    for trial in range(10):
        x = rng.integers(0, 256, (int(rng.integers(2, 150)), 5, 7)).astype(np.uint8) // int(rng.choice([1, 40]))
        y, which = rng.integers(0, 3, len(x)), ("other", "same", "all")[trial % 3]
        if len(set(y.tolist())) < 2: continue
        radius = int(rng.integers(0, 200)) / 255
        proof = certify_separation(lambda at: x[at], y, radius, which, pixels=int(rng.integers(1, 35)), step=int(rng.integers(1, 50)))
        whole = pairs_within(x, y, radius, which)
        for name in ("first", "second", "distance"): assert np.array_equal(getattr(proof.close, name), getattr(whole, name))
        assert proof.separated == (len(whole) == 0) and proof.left >= len(whole)


def test_a_stream_says_what_is_wrong_before_its_pass():
    images, seen = np.random.default_rng(0).integers(0, 256, (40, 3, 3), np.uint8), []
    def read(at):
        seen.append(len(at))
        return images[at]
    for wrong in (dict(threads=0), dict(memory=-1), dict(pixels=2.5), dict(step=0)):
        with pytest.raises(ValueError): certify_separation(read, np.arange(40) % 2, .1, **wrong)
    assert sum(seen) <= 4 * 2
    seen.clear()
    certify_separation(read, np.arange(40) % 2, 1., pixels=2, step=8)
    assert max(seen[1:]) <= 40 and all(n <= 8 for n in seen[-3:])                          # the second look too


def test_witnesses_of_the_same_class_leave_out_the_image_itself():
    "An image is no neighbour of its own: else its limit is 0, and nothing would be chosen for it."
    images = np.random.default_rng(1).integers(0, 256, (3000, 64), np.uint8)
    found, brute = (nearest_own(images, np.arange(3000) % 10, backend=b) for b in ("auto", "brute"))
    assert np.array_equal(found.distance, brute.distance) and np.array_equal(found.index, brute.index)
