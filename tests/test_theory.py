"""Theorems 4.2 and 4.4 and the certificates of `robustacc.theory` on sets that hypothesis makes up: small grids, so that
ties, duplicates of coordinates and collinear points are common, which random floats never give."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robustacc.distances import MOVES, by_class, class_distances, perturb, separation_radius
from robustacc.theory import (ClassDistance, SignedDistance, WeakFeatures, linear_radius, _lipschitz_ratios, _log_close_pair, _sample_size_for, _TubeDistance,
                              weighted_accuracy, astute, _box_certified, check_lemma, class_margins, _falsify, spiral, _spiral_support, _withstood)

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
    assert _lipschitz_ratios(classifier.f, a, b, p=p).max() * classifier.r <= 1 + 1e-9


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
    assert _lipschitz_ratios(classifier.f, a, b, p=p).max() * classifier.r <= 1 + 1e-9


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
@given(grid_sets(), metrics, st.floats(.1, 5), st.data())
def test_a_set_that_is_not_separated_fails(case, p, r, data):
    "One point under two labels: no radius, no classifier, and with an invented radius the lemma fails at exactly the two copies or more."
    points, labels = case
    i = data.draw(st.integers(0, len(points) - 1))
    other = data.draw(st.sampled_from(sorted(set(labels) - {labels[i]})))
    points, labels = np.vstack([points, points[i]]), np.append(labels, other)
    samples = by_class(points, labels)
    assert separation_radius(samples, p=p) == 0
    with pytest.raises(ValueError, match="not separated"): ClassDistance(samples, separation_radius(samples, p=p), p)
    pretended = ClassDistance(samples, r, p)
    assert not check_lemma(pretended, points, labels).apart[[i, -1]].any()
    right = astute(pretended.g, points, labels, 1e-9, p=p)
    assert right[[i, -1]].sum() <= 1 and not class_margins(points, points, labels, p=p).correct(labels)[[i, -1]].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(1, 5), st.integers(0, 2**16))
def test_the_radius_of_a_linear_classifier_is_exact(classes, d, seed):
    "Linear scores are extreme at the corners of the ball, and there are few: inside none misleads, outside one does."
    rng = np.random.default_rng(seed)
    weight, bias, x = rng.normal(size=(classes, d)), rng.normal(size=classes), rng.normal(size=(20, d))
    label = (x @ weight.T + bias).argmax(1)
    radius = linear_radius(x, label, weight, bias)
    corners = np.stack(np.meshgrid(*[[-1., 1.]] * d), -1).reshape(-1, d)
    answers = lambda scale: ((x[:, None] + scale * radius[:, None, None] * corners) @ weight.T + bias).argmax(-1)
    assert (answers(1 - 1e-9) == label[:, None]).all() and (answers(1 + 1e-9) != label[:, None]).any(1).all()
    wrong = (label + 1) % classes
    assert (linear_radius(x, wrong, weight, bias) < 0).all()
    assert (linear_radius(x, label, weight, bias, p=2) >= radius * (1 - 1e-12)).all()


@settings(max_examples=40, deadline=None)
@given(grid_sets(), metrics, st.floats(.01, .95), st.integers(0, 2**16))
def test_theorem_4_4_on_tubes(case, p, share, seed):
    "Balls around the points of a separated set are supports too: the theorem holds at points inside that nobody listed."
    points, labels = case
    y = np.where(labels == 0, 1, -1)
    clouds = points[y > 0], points[y < 0]
    width = share * separation_radius(clouds, p=p)
    tube = _TubeDistance(*clouds, separation_radius(clouds, p=p) - width, p, width=width)
    inside = perturb(points, width * NEAR, "random", p=p, seed=seed)
    assert (tube.margin(inside, y) >= 1 - 1e-9).all() and (tube.g(inside) == y).all()
    enemy = np.stack([points[y != s][np.linalg.norm(points[y != s] - x, ord=p, axis=1).argmin()] for x, s in zip(inside, y)])
    assert astute(tube.g, inside, y, tube.r * NEAR, p=p, towards=enemy, seed=seed).all()
    a, b = np.random.default_rng(seed).uniform(-30, 40, (2, 50, points.shape[1]))
    assert _lipschitz_ratios(tube.f, a, b, p=p).max() * tube.r <= 1 + 1e-9
    ball = {np.inf: lambda x, c: np.clip(x, c - width, c + width),
            2: lambda x, c: c + (x - c) * min(1, width / max(np.linalg.norm(x - c), 1e-300))}[p]
    near, far = (np.array([min(np.linalg.norm(x - ball(x, c), ord=p) for c in cloud) for x in a]) for cloud in clouds)
    np.testing.assert_allclose(tube.f(a) * 2 * tube.r, far - near, atol=1e-9)


def test_the_supports_of_the_spiral_hold_every_sample():
    "Samples lie inside their tube, never closer than the supports, and a finer grid only raises r."
    coarse, fine = _spiral_support(grid=4000), _spiral_support(grid=20_000)
    assert 0 < coarse.r < fine.r
    for seed in range(3):
        points, y = spiral(3000, seed=seed)
        own = np.where(y > 0, *class_distances(points, (fine.positive, fine.negative)).T)
        assert (own <= fine.width + .01).all() and (fine.margin(points, y) >= 1).all()
        assert separation_radius([points[y < 0], points[y > 0]]) > fine.r


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.floats(.05, 1), st.floats(.01, .5), st.floats(0, 100), st.floats(0, .9), st.integers(0, 2**16))
def test_accuracy_on_weak_features_is_what_a_simulation_finds(k, mean, flip, weight, eps, seed):
    "The closed form against the exact radius of every sampled point; and the bound of Tsipras et al. from 2 eta on."
    world = WeakFeatures(k, mean, flip)
    x, y = world.sample(2000, seed=seed)
    row = np.array([weight, *np.ones(k)])
    radius = linear_radius(x, (y > 0).astype(int), np.stack([-row, row]), [0, 0])
    exact = weighted_accuracy(world, weight, eps)
    assert abs((radius > eps).mean() - exact) <= 6 * np.sqrt(exact * (1 - exact) / 2000) + 3e-3
    assert (1 - flip) / flip * (1 - weighted_accuracy(world, weight)) >= weighted_accuracy(world, weight, max(eps, 2 * mean)) - 1e-12
    best = ((world.log_odds(x) > 0) == (y > 0)).mean()
    assert best >= (radius > 0).mean() - .08


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_distance_between_the_classes_of_weak_features_goes_to_zero(k):
    "Samples against the closed form, and the other two ways to a sample that looks separated: many features, or no flips."
    world = WeakFeatures(k, .3, flip=.2)
    found = []
    for seed in range(21):
        x, y = world.sample(1000, seed=seed)
        found.append(2 * separation_radius([x[y < 0], x[y > 0]]))
    assert .5 < 10 ** (_sample_size_for(world, float(np.median(found))) - 3) < 2
    x, y = world.sample(400_000, seed=0)
    apart = abs(x[y > 0][:190_000] - x[y < 0][:190_000]).max(1)
    for t in (1, 1.9, 2.5): assert abs((apart <= t).mean() / np.exp(_log_close_pair(world, t)) - 1) < .05
    sizes = [_sample_size_for(world, t) for t in (1e-1, 1e-2, 1e-3)]
    np.testing.assert_allclose(np.diff(sizes), k / 2, atol=.02)
    assert _sample_size_for(WeakFeatures(500, .3), 1.2) > 50 and _sample_size_for(WeakFeatures(k, .3, flip=0), 1.9) == np.inf
    assert _log_close_pair(WeakFeatures(k, .3), 50.) > -1e-9


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
    assert not any(broken for _, broken in _falsify(queries, margins, points, labels, seed=seed).values())


@settings(max_examples=30, deadline=None)
@given(grid_sets(dtype=np.uint8), st.integers(1, 60), st.integers(0, 2**16))
def test_sandwich(case, level, seed):
    "Certified without the pixel range => certified within it => no attack succeeds; and exhaustively so in one dimension."
    points, labels = case
    queries = np.random.default_rng(seed).integers(0, 256, (12, points.shape[1]), dtype=np.uint8)
    margins = class_margins(queries, points, labels)
    box = _box_certified(queries, margins, points, labels, level / 255)
    plain = np.rint(510 * margins.radius) > 2 * level
    stands = _withstood(queries, margins.label, margins, points, labels, [level], seed=seed)[0]
    assert (~plain | box).all() and (~box | stands).all()
    if points.shape[1] > 1: return
    for query, label, safe in zip(queries[:, 0].astype(int), margins.label, box):
        ball = np.arange(max(query - level, 0), min(query + level, 255) + 1).astype(np.uint8)[:, None]
        if safe: assert class_margins(ball, points, labels).correct(np.full(len(ball), label)).all()


@pytest.mark.parametrize("kind", MOVES)
def test_moves_of_images_stay_in_the_ball_and_the_range(kind):
    rng = np.random.default_rng(0)
    x, z, w = rng.choice(np.array([0, 1, 128, 254, 255], np.uint8), (3, 100, 30))
    radius = rng.integers(0, 256, 100)
    moved = perturb(x, radius, kind, towards=z, away=w)
    assert moved.dtype == np.uint8 and (abs(moved.astype(int) - x).max(1) <= radius).all()
    if kind in ("towards", "squeeze"):
        before, after = abs(z.astype(int) - x).max(1), abs(z.astype(int) - moved).max(1)
        assert (after <= np.maximum(before - radius, 0)).all()


def test_whatever_a_user_has_gives_the_same_distances():
    "Lists, tensors, other byte orders and bools; what is no number, or has no class, is refused by name."
    import pandas
    import torch
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 3, 3), np.uint8)
    labels = np.arange(12) % 3
    expected = class_margins(images[:4], images[4:], labels[4:])
    for some in (torch.from_numpy(images), images.tolist() and list(images)):
        found = class_margins(some[:4], some[4:], torch.from_numpy(labels[4:]))
        assert np.array_equal(found.radius, expected.radius) and np.array_equal(found.label, expected.label)
    floats = torch.from_numpy(images / 255).requires_grad_()
    for some in (floats, (images / 255).astype(">f8")): np.testing.assert_allclose(class_margins(some[:4], some[4:], labels[4:]).radius, expected.radius, atol=1e-12)
    black = images > 99
    assert np.array_equal(class_distances(black[:4], [black[4:]]), class_distances(black[:4] * np.uint8(255), [black[4:] * np.uint8(255)]))
    points = images.reshape(12, 9) / 255
    for p in (np.inf, "inf", "Linf"): assert np.array_equal(class_distances(points[:4], [points[4:]], p=p), class_distances(points[:4], [points[4:]]))
    for p in (2, "2", "L2"): assert np.array_equal(class_distances(points[:4], [points[4:]], p=p), class_distances(pandas.DataFrame(points[:4]), [points[4:]], p=2))
    for wrong, match in ((["a", "b"], "points"), ([], "points"), ([[np.inf]], "finite"), ({"x": 1}, "points")):
        with pytest.raises(ValueError, match=match): class_distances(wrong, [points])
    for wrong, match in ((["a"] * 12, "labels: dtype"), ([0] * 11, "labels of shape"), ([.5] * 12, "labels are float"), ([-1] + [0] * 11, "label -1"), ([0, 2] * 6, "none of")):
        with pytest.raises(ValueError, match=match): by_class(points, wrong)
    for wrong in (0, -1, np.nan, np.inf, "1", None, True):
        with pytest.raises(ValueError, match="^r "): ClassDistance([points], wrong)
    for wrong in (1, 0, "1", None, True):
        with pytest.raises(ValueError, match="unknown p"): ClassDistance([points], 1., wrong)
    with pytest.raises(ValueError, match="tries 0"): check_lemma(ClassDistance([points[:6], points[6:]], 1.), points, [0] * 6 + [1] * 6, tries=0)


def test_integers_that_could_be_pixels_or_points_are_refused_everywhere():
    "Grey levels as int64 would be taken as points in units of their own, 255 times too far apart."
    for call in (lambda: class_distances([[0]], ([[0]], [[255]])), lambda: separation_radius(([[0]], [[255]])), lambda: class_margins([[10]], [[0], [255]], [0, 1])):
        with pytest.raises(ValueError, match=r"astype\(numpy.uint8\)"): call()
    grey = [np.array(a, np.uint8) for a in ([[10]], [[0], [255]])]
    assert class_margins(*grey, [0, 1]).radius == pytest.approx(235 / 2 / 255)


def test_a_move_towards_points_of_another_kind_is_refused():
    x, far = np.array([[10, 20, 30]], np.uint8), np.array([[200, 200, 200]], np.uint8)
    assert perturb(x, 20, "towards", towards=far).tolist() == [[30, 40, 50]]
    for points, radius, other in ((x, 20, far / 255), (x / 255, .1, far)):
        with pytest.raises(ValueError, match="towards of type .*: it must be of the points' kind"): perturb(points, radius, "towards", towards=other)


def test_labels_of_a_margin_are_as_many_as_the_points_and_are_signs():
    f = SignedDistance([[4.]], [[0.]], r=1.)
    assert f.margin([[0.], [4.]], [-1, 1]).tolist() == [2., 2.]
    for wrong in ([0, 1], [1, 2]):
        with pytest.raises(ValueError, match=r"they must be -1 and \+1"): f.margin([[0.], [4.]], wrong)
    for wrong in ([1], [[-1], [1]], [1, 1, 1]):
        with pytest.raises(ValueError): f.margin([[0.], [4.]], wrong)
    with pytest.raises(ValueError): astute(lambda x: np.ones(len(x), int), [[0.], [1.], [2.]], [1], .1)
