"""Pieces of the ascent, where the chapter tries other cases."""
import torch

from robustacc import strong_attacks
from robustacc.attacks import Goal, Threat, ascend, steepest_direction
from robustacc.noise import NoiseKey
from robustacc.strong_attacks import APGD, _auto_ascend, _review, _State


def test_the_last_iterate_can_be_the_best():
    "A sum only rises, so with keep='best' the end is the last iterate, also after a single step."
    x = torch.full((2, 1, 2, 2), .5)
    for steps in (1, 2, 3):
        found = ascend(lambda v: v.flatten(1).sum(1), x, x, Threat(.3), steps=steps, step_size=.1, keep="best")
        assert torch.allclose(found, x + .1 * steps)
    falls = ascend(lambda v: -(v - .6).abs().flatten(1).sum(1), x, x, Threat(.3), steps=2, step_size=.08, keep="best")
    assert torch.allclose(falls, x + .08)                                          # the second step goes on to .66 or back to .5


def test_the_l2_projection_stays_in_the_box_too():
    x, threat = torch.full((3, 1, 2, 2), .95), Threat(.5, "2")
    for far in (x + .3, x + torch.tensor([[.04, 2.], [-.2, .1]])):
        found = threat.project(far, x)
        assert found.max() <= 1 and found.min() >= 0 and (threat.length(found - x) <= .5 + 1e-6).all()
    assert torch.allclose(threat.project(x - .1, x), x - .1)


def test_only_examples_that_are_not_won_get_a_random_step():
    points = torch.rand(6, 1, 3, 3).requires_grad_(True)
    won = torch.tensor([True, False, True, False, True, False])
    found = steepest_direction((points * 0).flatten(1).sum(1), points, Threat(.1), won=won, key=NoiseKey(torch.arange(6)))
    assert (found[won] == 0).all() and (found[~won].abs() == 1).all()
    assert (steepest_direction((points * 0).flatten(1).sum(1), points, Threat(.1)) == 0).all()


def test_the_first_step_of_apgd_has_no_momentum():
    "A step of 2 eps on a slope that never turns ends on the border of the ball; with momentum it would stop at 3/4 of the way."
    def model(x): return torch.stack([-x.flatten(1).sum(1), x.flatten(1).sum(1) - 10], 1)
    x = torch.full((2, 1, 2, 2), .5)
    assert torch.allclose(APGD(steps=1, start="none")(model, x, torch.tensor([0, 0]), Threat(.1)), x + .1)


def test_apgd_does_not_halve_twice_for_the_same_record():
    "At a checkpoint without a new record the step is halved, unless it was halved at the one before: the smaller step has not been tried yet."
    state = _State.at(torch.rand(3, 1, 2, 2), .1)
    state.best, state.mark = torch.tensor([1., 1., 2.]), torch.ones(3)             # a new record for the third alone
    state.rises, state.halved = torch.full((3,), 10.), torch.tensor([True, False, False])
    _review(state, state.x, span=10, rho=.75)                                      # every step rose
    assert torch.allclose(state.eta, torch.tensor([.2, .1, .2])) and state.halved.tolist() == [False, True, False]
    state.rises = torch.tensor([7., 8., 8.])
    _review(state, state.x, span=10, rho=.75)                                      # 7 of 10 are less than the share of 3/4
    assert torch.allclose(state.eta, torch.tensor([.1, .1, .1])) and state.halved.tolist() == [True, False, True]


def test_the_first_step_of_apgd_is_a_rise_only_if_it_ends_above_zero(monkeypatch):
    "As in the reference code; the later steps are compared with the one before, whatever the sign."
    class Slope(Goal):
        def __call__(self, v): return v.flatten(1).sum(1) + self.labels, torch.zeros(len(v), dtype=torch.bool)
    seen = []
    monkeypatch.setattr(strong_attacks, "_review", lambda state, best, span, rho: seen.append((span, state.rises.tolist())))
    x, threat = torch.full((2, 1, 2, 2), .1), Threat(.8)
    _auto_ascend(Slope(None, "ce", torch.tensor([-100., 100.])), x, x, threat, steps=10)
    assert seen[:2] == [(0, [0., 0.]), (3, [0., 1.])]                                  # one step of 2 eps ends on the border, where nothing rises
    start, seen[:] = x - .09, []
    monkeypatch.setattr(_State, "at", classmethod(lambda cls, points, eps, at=_State.at.__func__: at(cls, points, eps / 80)))  # steps of .02
    _auto_ascend(Slope(None, "ce", torch.tensor([-100., 100.])), x, start, threat, steps=10)
    assert seen[1] == (3, [2., 3.])
