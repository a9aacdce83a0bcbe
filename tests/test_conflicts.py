"""The optimal robust loss against everything that can be computed another way: all subsets, full programmes, optimal transport."""
import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from robustacc._cliques import maximal_cliques, neighbour_bits, packing_programme
from robustacc.conflicts import OptimalLoss, check_certificate, _conflicting, frontier, optimal_robust_loss
from robustacc.data import load
from robustacc.search import Pairs, pairs_within


def enclosing(points):
    "Bounds on the squared radius of the smallest ball around points: Frank and Wolfe's method on its dual, with away steps."
    inner = points @ points.T
    square, share = np.diag(inner), np.full(len(points), 1 / len(points))
    for _ in range(2000):
        low, slope = share @ square - share @ inner @ share, square - 2 * inner @ share
        high = (slope + share @ inner @ share).max()
        if high - low < 1e-10 * max(1, low): break
        used = np.flatnonzero(share > 0)
        up, down = slope.argmax(), used[slope[used].argmin()]
        step = np.zeros(len(points))
        step[up] += 1
        step[down] -= 1
        curve = step @ inner @ step
        share = share + min(share[down], (slope[up] - slope[down]) / (2 * curve) if curve > 0 else 1) * step
        share[share < 1e-15] = 0
    return low, high


def share_a_point(points, eps, p):
    "Whether closed balls around the points have a point in common; None if it is too close to call."
    if p == math.inf: return bool(np.ptp(points, axis=0).max() <= 2 * eps)
    low, high = enclosing(points)
    return True if high <= eps**2 + 1e-9 else False if low > eps**2 + 1e-9 else None


def by_subsets(points, labels, eps, p):
    "Deterministic and randomised loss by brute force: every subset, and the programme over all subsets that share a point."
    n, share = len(points), []
    for k in range(1, n + 1):
        for s in combinations(range(n), k):
            if len(set(labels[list(s)].tolist())) < k or any(pair not in share for pair in combinations(s, 2) if k > 2): continue
            meet = share_a_point(points[list(s)], eps, p)
            if meet is None: return None
            if meet: share.append(s)
    pairs = {s for s in share if len(s) == 2}
    independent = (k for k in range(n, -1, -1) for s in combinations(range(n), k) if not any(pair in pairs for pair in combinations(s, 2)))
    return n - next(independent), n + packing_programme(np.ones(n), share).fun


@pytest.mark.parametrize("p", [math.inf, 2])
def test_hundreds_of_small_sets(p):
    rng, compared, differ = np.random.default_rng(5), 0, 0
    for trial in range(220):
        n, d, classes = int(rng.integers(3, 9)), int(rng.integers(1, 5)), int(rng.integers(2, 7))
        images = rng.integers(0, 256 >> 4, (n, d), dtype=np.uint8) * 16
        labels = np.array([0, 1, *rng.integers(0, classes, n - 2)])
        eps = Fraction(int(rng.integers(0, 150)), 255)
        if trial % 3 == 0:                                                        # nearly regular simplices: balls that meet in pairs only
            images, labels, eps = (100 * np.eye(n) + rng.integers(0, 9, (n, n))).astype(np.uint8), np.arange(n) % 6, Fraction(int(rng.integers(69, 95)), 255)
        expected = by_subsets(images.astype(float), labels, float(255 * eps), p)
        if expected is None: continue
        loss = optimal_robust_loss(images, labels, eps, p=p)
        assert loss.exact and loss.open == 0
        assert loss.deterministic == expected[0]
        assert float(loss.randomised) == pytest.approx(expected[1], abs=1e-6)
        compared, differ = compared + 1, differ + (loss.randomised != loss.deterministic)
        floats = optimal_robust_loss(images.astype(float), labels, 255 * eps, p=p)
        assert (floats.deterministic, floats.randomised) == (loss.deterministic, loss.randomised)
        if p == math.inf: check_certificate(loss, *_conflicting(pairs_within(images, labels, 1.), labels, eps))
    assert compared > 200 and (differ > 5 or p == math.inf)


def test_balls_that_meet_in_pairs_only():
    "Three corners of an equilateral triangle, and four of a regular tetrahedron, in the Euclidean norm."
    corners = np.sqrt(2) * np.eye(4)                                              # side 2
    triangle = [optimal_robust_loss(corners[:3], [0, 1, 2], eps, p=2) for eps in (.99, 1.01, 1.16)]
    assert [(loss.deterministic, loss.randomised) for loss in triangle] == [(0, 0), (2, Fraction(3, 2)), (2, 2)]
    tetrahedron = [optimal_robust_loss(corners, range(4), eps, p=2) for eps in (1.01, 1.16, 1.23)]     # circumradius sqrt(3/2) = 1.2247
    assert [(loss.deterministic, loss.randomised) for loss in tetrahedron] == [(3, 2), (3, Fraction(8, 3)), (3, 3)]
    assert all(loss.exact for loss in triangle + tetrahedron)


def test_a_clique_too_large_for_subsets_gives_bounds():
    corners = np.sqrt(2) * np.eye(12)
    loss = optimal_robust_loss(corners, range(12), 1.01, p=2)
    assert loss.deterministic == 11 and not loss.exact and loss.open == 12
    assert loss.randomised_at_least == 6 and loss.randomised == 11                # edges; cliques


def rings(n):
    "Images of n pixels whose conflicts at 2 eps = 100 are a ring of n different classes."
    images = np.zeros((n, n), np.uint8)
    for v in range(n): images[v, [(v + k) % n for k in range(2, n - 1)]] = 200
    return images


@pytest.mark.parametrize("n", [5, 7, 9])
def test_odd_rings_tell_the_losses_apart(n):
    distance = cdist(rings(n).astype(float), rings(n).astype(float), "chebyshev")
    first, second = np.nonzero(np.triu(distance <= 100, 1))
    wanted = {(v, (v + 1) % n) for v in range(n)}
    rows = [(u, v) for u, v in combinations(range(n), 2) if (u, v) in wanted or (v, u) in wanted]
    pairs = Pairs(*np.array(rows).T, np.full(n, 100 / 255))
    loss = optimal_robust_loss(np.zeros((n, 1), np.uint8), range(n), "100/510", pairs=pairs, reach="100/255")
    assert (loss.deterministic, loss.randomised) == ((n + 1) // 2, Fraction(n, 2)) and loss.exact
    check_certificate(loss, *_conflicting(pairs, range(n), "100/510"))


@pytest.mark.parametrize("p", [math.inf, 2])
def test_two_classes_are_optimal_transport(p):
    "arXiv 1909.12272: for two classes the loss is a transport cost with cost 1 beyond 2 eps."
    digits = load("digits").train
    for a, b, eps in ((3, 8, .3), (1, 7, .35), (5, 9, .37), (4, 9, .4)):
        eps = eps if p == math.inf else 12 * eps
        some = np.flatnonzero(np.isin(digits.labels, (a, b)))
        images, labels = digits.images[some], digits.labels[some]
        flat = images.reshape(len(images), -1).astype(float)
        squared = cdist(flat[labels == a], flat[labels == b], "chebyshev" if p == math.inf else "sqeuclidean")
        meets = squared <= (510 * Fraction(str(eps)) if p == math.inf else (510 * Fraction(str(eps)))**2)
        matched = meets[linear_sum_assignment(~meets)].sum()
        loss = optimal_robust_loss(images, labels, eps, p=p)
        assert loss.deterministic == loss.randomised == matched > 0 and loss.exact


def whole_graph(pairs, labels, eps):
    "Both losses over all maximal cliques of the whole graph, by HiGHS alone."
    first, second = _conflicting(pairs, labels, eps)
    examples, ends = np.unique(np.concatenate([first, second]), return_inverse=True)
    near = [[] for _ in examples]
    for u, v in ends.reshape(2, -1).T.tolist(): near[u].append(v), near[v].append(u)
    cliques = maximal_cliques(neighbour_bits(near), 2**len(near) - 1, 10**6)
    return [len(near) + packing_programme(np.ones(len(near)), cliques, whole=whole, seconds=900).fun for whole in (True, False)]


def test_digits_without_reduction_and_relabelled():
    digits, rng = load("digits").train, np.random.default_rng(0)
    pairs = pairs_within(digits.images, digits.labels, 165 / 255, which="all")
    noise = np.where(rng.random(len(digits)) < .02, rng.integers(0, 10, len(digits)), digits.labels)
    for labels, levels in ((digits.labels, (120, 150, 165)), (noise, (105, 120))):
        for level in levels:
            eps = Fraction(level, 510)
            ready, searched = (optimal_robust_loss(digits.images, labels, eps, **given) for given in (dict(pairs=pairs, reach="165/255"), {}))
            check_certificate(ready, *_conflicting(pairs, labels, eps))
            assert ready.exact and (ready.deterministic, ready.randomised, ready.cliques) == (searched.deterministic, searched.randomised, searched.cliques)
            assert whole_graph(pairs, labels, eps) == pytest.approx([ready.deterministic, float(ready.randomised)], abs=1e-6)


@pytest.mark.slow
def test_cifar10_without_reduction():
    train = load("cifar10").train
    pairs = pairs_within(train.images, train.labels, 100 / 255)
    expected = {54: 1, 64: 8, 80: 119, 90: 436, 100: 1220}
    losses = optimal_robust_loss(train.images, train.labels, [Fraction(level, 510) for level in expected], pairs=pairs, reach="100/255")
    assert [loss.deterministic for loss in losses] == [loss.randomised for loss in losses] == list(expected.values())
    for level, loss in zip(expected, losses):
        check_certificate(loss, *_conflicting(pairs, train.labels, Fraction(level, 510)))
        assert whole_graph(pairs, train.labels, Fraction(level, 510)) == pytest.approx([expected[level]] * 2, abs=1e-6)


def test_dense_graphs_are_merged():
    "Two and four classes of identical images: every example conflicts with every other class."
    images = np.zeros((3000, 1), np.uint8)
    labels = np.repeat([0, 1, 2, 3], [900, 800, 700, 600])
    first, second = np.nonzero(np.triu(labels[:, None] != labels, 1))
    pairs = Pairs(first, second, np.zeros(len(first)))
    loss = optimal_robust_loss(images, labels, 0, pairs=pairs, reach=0)
    assert (loss.deterministic, loss.randomised) == (2100, 2100) and loss.exact
    load = np.zeros(3000)
    for members, weight in loss.cliques: load[list(members)] += float(weight)
    assert load.max() <= 1 + 1e-12 and len(set(labels[loss.given_up])) == 3


def test_the_frontier_ends_where_it_should():
    rng = np.random.default_rng(3)
    for trial in range(40):
        images = rng.integers(0, 12, (12, 2), dtype=np.uint8)
        labels = np.array([0, 1, 2, *rng.integers(0, 3, 9)])
        eps = Fraction(int(rng.integers(0, 7)), 255)
        corners = frontier(images, labels, eps)
        loss, still = optimal_robust_loss(images, labels, eps), optimal_robust_loss(images, labels, 0)
        assert corners[0].robust == 12 - loss.randomised and corners[-1].clean == 12 - still.randomised
        slopes = [(a.robust - b.robust) / (b.clean - a.clean) for a, b in zip(corners, corners[1:])]
        assert all(s > 0 for s in slopes) and slopes == sorted(set(slopes)), "concave"
        assert all(c.robust <= c.clean for c in corners)


@pytest.mark.parametrize("change, words", [
    (dict(eps=-1e-9), "it must be a number of at least 0"), (dict(eps="1/0"), "it must be a number"), (dict(eps=math.nan), "it must be a number"),
    (dict(labels=np.zeros(4, int)), "at least two classes"), (dict(labels=np.arange(3)), r"for 4 images: it must be \(4,\)"), (dict(labels=np.array(list("abab"))), "integers"),
    (dict(images=np.zeros((4, 2), int)), "uint8 or float"), (dict(p=3), "unknown norm p"), (dict(attacker="8bit"), "8-bit"), (dict(attacker="8-bit", p=2), "not decided"),
    (dict(reach=1.), "it must be given with pairs"),
    (dict(pairs=Pairs(np.array([0]), np.array([4]), np.array([0.])), reach=1), "beyond the 4 images"),
    (dict(pairs=Pairs(np.array([0]), np.array([1]), np.array([0.])), reach=.19), "at most half of reach")])
def test_bad_input_is_named(change, words):
    given = dict(images=np.arange(8, dtype=np.uint8).reshape(4, 2), labels=np.array([0, 1, 0, 1]), eps=.1) | change
    with pytest.raises(ValueError, match=words): optimal_robust_loss(**given)


def test_levels_decide_and_not_floats():
    "Every pair of levels, at the radius where the two just meet and one half level below."
    for distance in range(1, 256):
        images = np.array([[0], [distance]], np.uint8)
        for eps, lost in ((distance / 510, 1), (np.float32(distance / 510), 1), ((distance - .5) / 510, 0)):
            assert optimal_robust_loss(images, [0, 1], eps).deterministic == lost
            assert optimal_robust_loss(images, [0, 1], eps, p=2).deterministic == lost
        assert optimal_robust_loss(images, [0, 1], distance / 510, attacker="8-bit").deterministic == 1 - distance % 2


def test_nothing_conflicts():
    loss = optimal_robust_loss(np.array([[0], [255]], np.uint8), [0, 1], .1)
    assert isinstance(loss, OptimalLoss) and loss.exact and (loss.deterministic, loss.randomised, loss.conflicts) == (0, 0, 0)
    assert optimal_robust_loss(np.array([[0], [255]], np.uint8), [0, 1], []) == []


def test_half_of_the_reach_is_within_the_reach():
    "The fraction that a float stands for must not decide what the search decides by floats."
    points, labels = np.array([[0.], [.1]]), [0, 1]
    for reach in (.100001, .100039, .2000006):
        pairs = pairs_within(points, labels, reach)
        assert optimal_robust_loss(points, labels, reach / 2, pairs=pairs, reach=reach).deterministic == 1
        with pytest.raises(ValueError, match="at most half of reach"): optimal_robust_loss(points, labels, reach * .501, pairs=pairs, reach=reach)
    assert optimal_robust_loss(points, labels, np.array(.06)).deterministic == 1
