"""The staircase: solutions against peers, certificates against everything that can be tried, and pinned numbers.

The pins of `RECIPE` were measured by running the published notebook's own steps (features by recursion, pseudo-inverse, cvxpy)
on its training set of 40; they are facts of that recipe, not of this package."""
import json
import re
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize

from robustacc import staircase
from robustacc._objectives import (AT, EPS, FEATURES, GR, KNOTS, LLR, METHODS, PENALTY, RELEASED, RST, TRADES, Natural, Sample, describe, draw, spline)
from robustacc.staircase import (_TOLERANCE, _case_name, _expected_worst, _fit_all, _local, _max_slope, _moments, _places, _population, measure, solve)

RECIPE = {"Natural": .00593182, "AT": .01677985, "RST(lambda=.5)": .01926315, "RST(lambda=1)": .02285771, "RST(lambda=2)": .02923415,
          "TRADES(beta=1)": .01604527, "TRADES(beta=3)": .01722094, "TRADES(beta=6)": .01759892}
EVERYWHERE = np.linspace(-EPS, 9 + EPS, 300)


def objective(theta, sample, method, ridge):
    "A method's objective, from its losses alone."
    v = method.expand(describe(theta, sample))[0]
    total = v.sum(1).max() if method.pooled else v.max(0).sum()
    return (total + ridge * theta @ PENALTY @ theta) / len(sample.y)


def test_the_published_training_set_and_its_fits():
    "Draws in the published order, and the objectives that the published recipe reaches with its ridge."
    rng = np.random.RandomState(1)
    stair = rng.choice(10, p=np.array([.2]*5 + [.01]*5) / 1.05, size=40).astype(float)
    y = stair + .1 * rng.randn(40)
    sign, hit = rng.rand(40) < .5, rng.rand(40) < .005
    x = stair + hit * (2.*sign - 1) / 3
    sample = draw(40, 1)
    order = np.lexsort((y, x))
    np.testing.assert_array_equal(sample.y, y[order])
    np.testing.assert_allclose(sample.step / 3, x[order], atol=1e-15)
    for method in RELEASED:
        if method.label not in RECIPE: continue
        found = solve(method, sample, ridge=.01)
        assert found.gap < _TOLERANCE and -1e-8 < found.value - RECIPE[method.label] < _TOLERANCE + 1e-8, method


def test_basis_by_the_recursion():
    "Features by the Cox-de Boor recursion, written out, at all points that occur."
    x = np.arange(-2, 30) / 3
    x[0] += 1e-12  # the recursion is half-open
    b = ((x[:, None] >= KNOTS[:-1]) & (x[:, None] < KNOTS[1:])).astype(float)
    for k in (1, 2, 3):
        left = (x[:, None] - KNOTS[:-k - 1]) / (KNOTS[k:-1] - KNOTS[:-k - 1]) * b[:, :-1]
        right = (KNOTS[k + 1:] - x[:, None]) / (KNOTS[k + 1:] - KNOTS[1:-k]) * b[:, 1:]
        b = left + right
    np.testing.assert_allclose(spline(x), b, atol=1e-9)


@pytest.mark.parametrize("seed", [1, 4, 9])
def test_at_by_a_third_solver(seed):
    "AT with one slack per example by sequential quadratic programming, from the natural solution."
    sample = draw(25, seed)
    points = np.concatenate([spline((sample.step + shift) / 3) for shift in (-1, 0, 1)])
    y, n = np.tile(sample.y, 3), len(sample.y)
    start = solve(Natural(), sample).theta
    slack = abs(points @ start - y).reshape(3, n).max(0)
    rows = np.concatenate([np.hstack([sign * points, np.tile(np.eye(n), (3, 1))]) for sign in (1, -1)])
    lower = np.concatenate([y, -y])

    def cost(v): return (v[FEATURES:] @ v[FEATURES:] + .1 * v[:FEATURES] @ PENALTY @ v[:FEATURES]) / n
    def slope(v): return 2 * np.concatenate([.1 * PENALTY @ v[:FEATURES], v[FEATURES:]]) / n
    found = minimize(cost, np.concatenate([start, slack]), jac=slope, method="SLSQP", options=dict(maxiter=2000, ftol=1e-13),
                     constraints=dict(type="ineq", fun=lambda v: rows @ v - lower, jac=lambda v: rows))
    ours = solve(AT(), sample)
    assert abs(found.fun - ours.value) < 5e-6, (found.fun, ours)
    assert found.fun > ours.value - ours.gap - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("method", [AT(), RST(lam=1.), TRADES(beta=6.), GR("released", beta=1e-4)], ids=lambda m: m.label)
def test_thirty_thousand_examples_by_cvxpy(method):
    cp = pytest.importorskip("cvxpy")
    sample = draw(30_000, 2)
    theta, slack, y, n = cp.Variable(FEATURES), cp.Variable(30_000), sample.y, 30_000
    low, mid, high = (spline((sample.step + shift) / 3) @ theta for shift in (-1, 0, 1))
    moves = [low - mid, high - mid] if method.title == "TRADES" else [low - y, mid - y, high - y]
    constraints = [c for move in moves for c in (move <= slack, -move <= slack)]
    cost = {"AT": cp.sum_squares(slack)}.get(method.title, cp.sum_squares(mid - y))
    if method.title in ("RST", "TRADES"): cost += getattr(method, "lam", getattr(method, "beta", None)) * cp.sum_squares(slack)
    if method.title == "GR":
        cost, constraints = cost + method.beta / 2 * cp.sum(cp.multiply(np.linalg.norm(spline(sample.step / 3), axis=1), cp.abs(mid - y))), []
    value = cp.Problem(cp.Minimize((cost + .1 * cp.sum_squares(np.diff(np.eye(FEATURES), 2, axis=0) @ theta)) / n), constraints).solve(solver="CLARABEL")
    ours = solve(method, sample)
    assert ours.gap < _TOLERANCE and -1e-7 < ours.value - value < _TOLERANCE + 1e-7
    assert abs(spline(EVERYWHERE) @ (ours.theta - theta.value)).max() < .02


@pytest.mark.parametrize("method", [*METHODS, *RELEASED], ids=lambda m: f"{m.label}, {m.variant}")
def test_no_function_beats_a_certificate(method):
    "The bound holds against random functions near and far, and against fits of every other method."
    rng = np.random.default_rng(3)
    for n, seed in ((40, 2), (300, 5)):
        sample = draw(n, seed)
        found = solve(method, sample, starts=_places(sample, 3))
        assert abs(objective(found.theta, sample, method, .1) - found.value) < 1e-12
        if found.gap == np.inf: assert method.title == "GR" and method.variant == "paper"
        rivals = [solve(m, sample, starts=_places(sample, 2)).theta for m in METHODS]
        rivals += [found.theta + scale * rng.normal(size=FEATURES) for scale in (1e-6, 1e-4, 1e-2, 1, 10) for _ in range(40)]
        bound = found.value - (found.gap if np.isfinite(found.gap) else _TOLERANCE)
        assert min(objective(theta, sample, method, .1) for theta in rivals) >= bound - 1e-12


@pytest.mark.parametrize("method", [m for m in dict.fromkeys([*METHODS, *RELEASED]) if m.few], ids=lambda m: f"{m.label}, {m.variant}")
def test_moments_are_all_that_some_methods_see(method):
    sample, rng = draw(500, 3), np.random.default_rng(0)
    short = _moments(sample)
    assert len(short.y) <= 60 and short.count.sum() == 500
    for _ in range(5):
        theta = 3 * rng.normal(size=FEATURES)
        a, b = (_local(theta, s, method, .1, .01) for s in (sample, short))
        np.testing.assert_allclose((a.value, a.exact, *a.gradient), (b.value, b.exact, *b.gradient), rtol=1e-9)


def test_moments_are_not_all_that_at_sees():
    sample = draw(500, 3)
    theta = solve(Natural(), sample).theta
    assert abs(_local(theta, sample, AT(), .1, 1e-9).exact - _local(theta, _moments(sample), AT(), .1, 1e-9).exact) > 1e-5


def test_expected_worst_by_quadrature():
    "Against the integral over y, with a rule of 200,001 points."
    predictions = np.random.default_rng(1).normal(_population()[0], .2, size=(3, 30))
    z = np.linspace(-8, 8, 200_001)
    density = np.exp(-z*z/2) / np.sqrt(2*np.pi) * (z[1] - z[0])
    worst, square = _expected_worst(predictions)
    for site in (0, 7, 29):
        error = abs(predictions[:, site, None] - _population()[0][site] - .1*z).max(0)
        np.testing.assert_allclose((worst[site], square[site]), (error @ density, error**2 @ density), rtol=1e-8)


def test_max_slope_of_random_splines():
    rng, grid = np.random.default_rng(2), spline(np.linspace(-EPS, 9 + EPS, 20_001), 1)
    for _ in range(50):
        theta = rng.normal(size=FEATURES)
        dense = abs(grid @ theta).max()
        assert dense <= _max_slope(theta) * (1 + 1e-12) and _max_slope(theta) < dense + 1e-4
    ramp = (KNOTS[1:-3] + KNOTS[2:-2] + KNOTS[3:-1]) / 3
    assert abs(_max_slope(-3*ramp) - 3) < 1e-12 and _max_slope(np.ones(FEATURES)) < 1e-12


def test_what_the_definitions_do_to_the_numbers():
    "Effects of the ledger on the published training set of 40: pinned, to three digits."
    fits = {name: measures for name, (_, measures) in _fit_all(40, 1).items()}
    text = {m.title: fits[_case_name(m, .1)] for m in (Natural(), GR(), LLR(), AT())}
    pins = {("Natural", "ridge .01"): (text["Natural"], fits["Natural, ridge 0.01"]), ("AT", "ridge .01"): (text["AT"], fits["AT, ridge 0.01"]),
            ("AT", "ridge .1 n"): (text["AT"], fits["AT, ridge 0.1 n"]), ("GR", "penalty"): (text["GR"], fits["GR, released, ridge 0.1"]),
            ("LLR", "penalty"): (text["LLR"], fits["LLR, released, ridge 0.1"])}
    changes = {key: new["test_mse"] - old["test_mse"] for key, (old, new) in pins.items()}
    expected = {("Natural", "ridge .01"): .000482, ("AT", "ridge .01"): .1812, ("AT", "ridge .1 n"): -.1369, ("GR", "penalty"): 1.1e-6,
                ("LLR", "penalty"): .002553}
    for key, change in changes.items(): assert change == pytest.approx(expected[key], rel=5e-3, abs=2e-6), changes
    assert text["AT"]["test_mse"] > 3 * text["Natural"]["test_mse"]


def test_a_weighted_sample_is_the_repeated_one():
    sample = draw(30, 7)
    twice = Sample(np.repeat(sample.step, 2), np.repeat(sample.y, 2), np.ones(60))
    counted = Sample(sample.step, sample.y, np.full(30, 2.))
    theta = np.random.default_rng(0).normal(size=FEATURES)
    for method in {*METHODS, *RELEASED}:
        a, b = (_local(theta, s, method, .1, .05) for s in (twice, counted))
        np.testing.assert_allclose((a.value, *a.gradient, *a.hessian.ravel()), (b.value, *b.gradient, *b.hessian.ravel()), rtol=1e-9, atol=1e-12)


def test_names_for_users_come_without_a_warning(root):
    "The example at the chapter's top, and every method; `import *` has what is public."
    text = "".join("".join(c["source"]) for c in json.loads((root / "nbs/07_staircase.ipynb").read_text())["cells"] if c["cell_type"] == "markdown")
    example, = re.findall(r"```python\n(from robustacc\.staircase import .*?)```", text, re.S)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(example, {})
        assert [getattr(staircase, m.title) for m in METHODS] == [type(m) for m in METHODS] and staircase.draw is draw and staircase.METHODS is METHODS
    assert set(staircase.__all__) == {"draw", "measure", "solve"}


def test_old_names_still_work():
    old = """STAIRS EPS NOISE X_NOISE WEIGHTS SITES KNOTS FEATURES PENALTY LOW MID HIGH SLOPE STAND_IN Y LENGTH POINTS RIDGE TOLERANCE RIDGES CASES site_maps
             describe product square Local smooth_max local moments newton places population expected_worst max_slope RELEASED Sample spline Method Natural AT
             RST TRADES LLR GR Solution case_name fit_all METHODS STAIRCASE_METHODS""".split()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = {name: getattr(staircase, name) for name in old}
    assert found["STAIRCASE_METHODS"] is METHODS and found["KNOTS"] is KNOTS and found["fit_all"] is _fit_all and found["LENGTH"].tolist() == [0]*6 + [1]
    with pytest.warns(DeprecationWarning, match="robustacc.staircase.STAIRCASE_METHODS is now robustacc.staircase.METHODS"): staircase.STAIRCASE_METHODS
    with pytest.raises(AttributeError, match="no attribute 'STEPS'"): staircase.STEPS


def test_the_notebook_refuses_what_it_does_not_know(opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value, message in (("seed", 3, "unknown parameter 'seed'"), ("profile", "full", "unknown profile 'full'"), ("small", 2, "small 2: it must be 10 or more")):
        with pytest.raises(ValueError, match=message): opened("07_staircase", **{name: value})
    assert not (tmp_path / "_runs").exists()
    assert opened("07_staircase", small=12)["settings"]["small"] == 12 and (tmp_path / "_runs").exists()


@pytest.mark.slow
def test_a_run_writes_its_record(python, root, opened, tmp_path, monkeypatch):
    run = "-m", "papermill", root / "nbs" / "07_staircase.ipynb", tmp_path / "out.ipynb", "-p", "seeds", 2, "-p", "large", 200, "-p", "small"
    done = python(*run, 30)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "_runs/smoke/staircase/staircase.json").read_text())
    assert record["kind"] == "staircase" and record["settings"]["seeds"] == 2 and record["data"]["train"] == [30, 200]
    rows = {(row["n"], row["case"]): row for row in record["metrics"]["rows"]}
    assert len(rows) == 2 * 26 and all(len(m["values"]) == 2 for row in rows.values() for m in row["metrics"].values())
    exact = measure(solve(AT(), draw(200, 2)).theta, draw(200, 2))["adv_test_mse"]
    assert rows[200, "AT, ridge 0.1"]["metrics"]["adv_test_mse"]["values"][1] == pytest.approx(exact, rel=1e-7)
    assert record["data"]["sha256"]["30-seed1"] == draw(30, 1).sha256()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="small: 30 -> 31"): opened("07_staircase", seeds=2, large=200, small=31)
