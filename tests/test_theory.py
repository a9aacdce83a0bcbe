"""Theorems 4.2 and 4.4 and the certificates of `robustacc.theory` on sets that hypothesis makes up: small grids, so that
ties, duplicates of coordinates and collinear points are common, which random floats never give."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robustacc.theory import (KINDS, ClassDistance, SignedDistance, astute, box_certified, by_class, check_lemma, class_distances,
                              class_margins, falsify, lipschitz_ratios, perturb, separation_radius, withstood)

NEAR = 1 - 1e-6
metrics = st.sampled_from([2, np.inf])


@st.composite
def grid_sets(draw, dtype=float, top=12):
    "Distinct points of a small grid with two to four classes, all present: separated for some r > 0, whatever the labels."
    n, d = draw(st.integers(4, 14)), draw(st.integers(1, 4))
    points = np.unique(draw(arrays(np.int64, (n, d), elements=st.integers(0, top))), axis=0)
    classes = draw(st.integers(2, 4))
    assume(len(points) >= classes)
    labels = np.array([*range(classes), *draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))])[:len(points)]
    return (points * (255 // top)).astype(np.uint8) if dtype is np.uint8 else points.astype(dtype), labels


def exhaustive(points, labels, p):
    "Distances (n, C) by plain loops."
    return np.array([[min(np.linalg.norm(x - z, ord=p) for z in points[labels == c]) for c in range(labels.max() + 1)] for x in points])


@settings(max_examples=60, deadline=None)
@given(grid_sets(), metrics, st.integers(0, 2**16))
def test_theorem_4_2(case, p, seed):
    points, labels = case
    samples = by_class(points, labels)
    np.testing.assert_allclose(class_distances(points, samples, p=p), exhaustive(points, labels, p), atol=1e-12)
    classifier = ClassDistance(samples, separation_radius(samples, p=p), p)
    check = check_lemma(classifier, points, labels, seed=seed)
    assert check.holds.all()
    enemy = np.stack([points[labels != y][np.linalg.norm(points[labels != y] - x, ord=p, axis=1).argmin()]
                      for x, y in zip(points, labels)])
    assert astute(classifier.g, points, labels, classifier.r * NEAR, p=p, towards=enemy, seed=seed).all()
    a, b = np.random.default_rng(seed).uniform(-30, 40, (2, 50, points.shape[1]))
    assert lipschitz_ratios(classifier.f, a, b, p=p).max() * classifier.r <= 1 + 1e-9


@settings(max_examples=60, deadline=None)
@given(grid_sets(), metrics, st.integers(0, 2**16))
def test_theorem_4_4(case, p, seed):
    points, labels = case
    y = np.where(labels == 0, 1, -1)
    clouds = points[y > 0], points[y < 0]
    classifier = SignedDistance(*clouds, separation_radius(clouds, p=p), p)
    assert check_lemma(classifier, points, y, seed=seed).holds.all()
    assert astute(classifier.g, points, y, classifier.r * NEAR, p=p, seed=seed).all()
    a, b = np.random.default_rng(seed).uniform(-30, 40, (2, 50, points.shape[1]))
    assert lipschitz_ratios(classifier.f, a, b, p=p).max() * classifier.r <= 1 + 1e-9


@settings(max_examples=40, deadline=None)
@given(grid_sets(), metrics)
def test_a_radius_that_is_too_large_is_noticed(case, p):
    "With a larger r than the set has, condition (b) fails at the closest pair and a move towards it misleads g."
    points, labels = case
    samples = by_class(points, labels)
    r = separation_radius(samples, p=p)
    classifier = ClassDistance(samples, 1.5 * r, p)
    closest = np.isclose(classifier.margin(points, labels) * classifier.r, 2 * r)
    assert closest.sum() >= 2 and not check_lemma(classifier, points, labels).apart[closest].any()
    enemy = np.stack([points[labels != y][np.linalg.norm(points[labels != y] - x, ord=p, axis=1).argmin()]
                      for x, y in zip(points, labels)])
    moved = points + (enemy - points) * .75
    assert (classifier.g(moved[closest]) != labels[closest]).any()


@settings(max_examples=40, deadline=None)
@given(grid_sets(dtype=np.uint8), st.integers(0, 2**16))
def test_certificates_withstand_every_corner(case, seed):
    "All corners of the certified ball, not a sample: at most 2^4 of them."
    points, labels = case
    queries = np.random.default_rng(seed).integers(0, 256, (12, points.shape[1]), dtype=np.uint8)
    margins = class_margins(queries, points, labels)
    table = class_distances(queries, by_class(points, labels))
    np.testing.assert_allclose(np.sort(table, 1)[:, :2], np.stack([margins.d1, margins.d2], 1), atol=1e-12)
    np.testing.assert_allclose(margins.radius, (margins.d2 - margins.d1) / 2, atol=1e-12)
    signs = np.stack(np.meshgrid(*[[-1., 1.]] * points.shape[1]), -1).reshape(-1, points.shape[1])
    sure = margins.radius > 0
    for sign in signs:
        moved = queries / 255 + sign * margins.radius[:, None] * NEAR
        assert (class_distances(moved, by_class(points, labels)).argmin(1) == margins.label)[sure].all()
    assert not any(broken for _, broken in falsify(queries, margins, points, labels, seed=seed).values())


@settings(max_examples=30, deadline=None)
@given(grid_sets(dtype=np.uint8), st.integers(1, 60), st.integers(0, 2**16))
def test_sandwich(case, level, seed):
    "Certified without the pixel range => certified within it => no attack succeeds; and exhaustively so in one dimension."
    points, labels = case
    queries = np.random.default_rng(seed).integers(0, 256, (12, points.shape[1]), dtype=np.uint8)
    margins = class_margins(queries, points, labels)
    box = box_certified(queries, margins, points, labels, level / 255)
    plain = np.rint(510 * margins.radius) > 2 * level
    stands = withstood(queries, margins.label, margins, points, labels, [level], seed=seed)[0]
    assert (~plain | box).all() and (~box | stands).all()
    if points.shape[1] > 1: return
    for query, label, safe in zip(queries[:, 0].astype(int), margins.label, box):
        ball = np.arange(max(query - level, 0), min(query + level, 255) + 1).astype(np.uint8)[:, None]
        if safe: assert class_margins(ball, points, labels).correct(np.full(len(ball), label)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_moves_of_images_stay_in_the_ball_and_the_range(kind):
    rng = np.random.default_rng(0)
    x, z, w = rng.choice(np.array([0, 1, 128, 254, 255], np.uint8), (3, 100, 30))
    radius = rng.integers(0, 256, 100)
    moved = perturb(x, radius, kind, towards=z, away=w)
    assert moved.dtype == np.uint8 and (abs(moved.astype(int) - x).max(1) <= radius).all()
    if kind in ("towards", "squeeze"):
        before, after = abs(z.astype(int) - x).max(1), abs(z.astype(int) - moved).max(1)
        assert (after <= np.maximum(before - radius, 0)).all()
