"""Whatever surrounds a call, and whatever a network does with the images it is given: the numbers of the closed form, and nothing of the caller's is changed.

The classifier is linear with two logits. Within the l-infinity ball and [0, 1] each pixel loses at most the weight times its way to the nearer of ball and box, so the robust accuracy is a sum."""
import contextlib
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import robustacc as ra

EPS, N = .03, 40
RNG = np.random.default_rng(0)
X, W = RNG.integers(60, 196, (N, 1, 4, 4)).astype(np.uint8), RNG.normal(0, 1, (2, 16))
Y = (X.reshape(N, -1) / 255 @ W.T).argmax(1)
Y[::7] = 1 - Y[::7]
ATTACKS = {"pgd": ra.PGD(), "mt": ra.MultiTargeted(), "apgd": ra.APGD(steps=20), "apgd-t": ra.APGDTargeted(steps=20), "fab": ra.FAB(steps=20), "square": ra.Square(queries=300)}
METHODS = {"natural": ra.Natural(), "at": ra.AT(), "rst": ra.RST(), "trades": ra.TRADES(), "gr": ra.GR(), "llr": ra.LLR()}


def network(*before: nn.Module) -> nn.Module:
    with torch.random.fork_rng(): net = nn.Sequential(*before, nn.Flatten(), nn.Linear(16, 2, dtype=torch.float32)).eval()
    with torch.no_grad(): net[-1].weight.copy_(torch.from_numpy(W)), net[-1].bias.zero_()
    return net


def convolved() -> nn.Module:
    "The same as a convolution, whose weights are laid out anew while it is measured."
    net = nn.Sequential(nn.Conv2d(1, 2, 4, bias=False), nn.Flatten()).eval()
    with torch.no_grad(): net[0].weight.copy_(torch.from_numpy(W.reshape(2, 1, 4, 4)))
    return net


def expected() -> tuple[float, float]:
    "Accuracy and robust accuracy in closed form."
    x, d, sign = X.reshape(N, -1) / 255, W[1] - W[0], np.where(Y == 1, 1, -1)
    margin = sign * (x @ d)
    lost = (np.abs(d) * np.where(sign[:, None] * d < 0, np.minimum(EPS, 1 - x), np.minimum(EPS, x))).sum(1)
    return float((margin > 0).mean()), float((margin > lost).mean())


@contextlib.contextmanager
def default_dtype(kind):
    usual = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try: yield
    finally: torch.set_default_dtype(usual)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try: yield
    finally: torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def no_warnings():
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error", UserWarning)
        yield


SURROUNDINGS = {"none": contextlib.nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "float64": lambda: default_dtype(torch.float64), "float16": lambda: default_dtype(torch.float16),
                "bfloat16": lambda: default_dtype(torch.bfloat16), "deterministic": deterministic, "warnings are errors": no_warnings}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_measures_are_those_of_the_closed_form_in_any_surroundings(name):
    net, (accuracy, robust) = network(), expected()
    steepest = max(np.abs(W[0] + W[1]).sum(), np.abs(W[0] - W[1]).sum())           # the largest change of both logits, l1 over l-infinity
    assert robust < accuracy - .2
    with SURROUNDINGS[name]():
        assert ra.accuracy(net, X, Y) == pytest.approx(accuracy)
        assert {key: ra.robust_accuracy(net, X, Y, attack, eps=EPS) for key, attack in ATTACKS.items()} == pytest.approx(dict.fromkeys(ATTACKS, robust))
        assert .99 * steepest < ra.local_lipschitz(net, X, eps=EPS).max() <= steepest * (1 + 1e-4)
        assert ra.masking_report(net, X, Y, ra.Threat(EPS)).passed
        assert ra.benchmark(net, X, Y, eps=EPS, attacks=ra.PGD(), masking=10, progress=False).robust["value"] == pytest.approx(robust)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_convolution_is_measured_as_the_same_linear_map(name):
    with torch.random.fork_rng(): net = convolved()
    with SURROUNDINGS[name]():
        assert ra.accuracy(net, X, Y) == pytest.approx(expected()[0])
        assert ra.robust_accuracy(net, X, Y, eps=EPS) == pytest.approx(expected()[1])


class InPlace(nn.Module):
    "Moves its images to and fro."
    def forward(self, v): return v.sub_(.5).add_(.5)


@pytest.mark.parametrize("first", [nn.ReLU(inplace=True), InPlace(), nn.Hardtanh(0, 1, inplace=True)], ids=lambda part: type(part).__name__)
def test_a_network_that_works_in_place_is_measured_as_any_other(first):
    net, (accuracy, robust), images = network(first), expected(), torch.from_numpy(X / 255).float()
    kept = images.clone()
    assert ra.accuracy(net, X, Y) == pytest.approx(accuracy)
    for key, attack in ATTACKS.items():
        assert ra.robust_accuracy(net, X, Y, attack, eps=EPS) == pytest.approx(robust), key
        points = attack(net, images, torch.tensor(Y), ra.Threat(EPS))
        assert torch.equal(images, kept) and (points - images).abs().max() <= EPS + 1e-6, key
    assert ra.masking_report(net, X, Y, ra.Threat(EPS)).passed


def data(): return ra.Data.from_arrays(X, np.arange(N) % 2, X[:10], np.arange(10) % 2, eps=EPS)


def trained(method, net=None) -> tuple[list[dict], torch.Tensor]:
    net = network() if net is None else net
    return ra.fit(net, data(), method, recipe=ra.Recipe(2, .1, batch_size=16, reduction="mean"), progress=False), net[-1].weight.detach().clone()


@pytest.mark.parametrize("name", [name for name in SURROUNDINGS if name != "none"])
def test_training_is_the_same_to_the_last_bit_in_any_surroundings(name):
    for key, method in METHODS.items():
        (history, weights), before = trained(method), network()[-1].weight
        net = network()                                                        # made outside: what inference mode makes cannot be trained
        with SURROUNDINGS[name](): other, same = trained(method, net)
        assert history == other and torch.equal(weights, same) and not torch.equal(weights, before), key


def state() -> tuple: return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate(), torch.get_default_dtype(), torch.is_grad_enabled()


def test_no_call_touches_the_random_numbers_of_its_caller():
    threat, net = ra.Threat(EPS), network()
    calls = {"accuracy": lambda: ra.accuracy(net, X, Y), **{key: lambda a=a: ra.robust_accuracy(net, X, Y, a, eps=EPS) for key, a in ATTACKS.items()}, "lipschitz": lambda: ra.local_lipschitz(net, X, eps=EPS),
             "masking": lambda: ra.masking_report(net, X, Y, threat), "benchmark": lambda: ra.benchmark(net, X, Y, eps=EPS, attacks=ra.PGD(), progress=False), "audit": lambda: ra.audit(X, Y, eps=EPS),
             "nearest": lambda: ra.nearest_other(X[:9], Y[:9], X[9:], Y[9:]), "pairs": lambda: ra.pairs_within(X, Y, .3), "loss": lambda: ra.optimal_robust_loss(X, Y, .2), "load": lambda: ra.load("digits"),
             **{key: lambda m=m: trained(m) for key, m in METHODS.items()}}
    for key, call in calls.items():
        before = state()
        call()
        assert state() == before, key


@pytest.mark.parametrize("label", [-100, -1, 3])
def test_a_label_that_is_no_class_has_no_loss(label):
    "Torch's own cross-entropy is 0 for -100."
    from robustacc.losses import cross_entropy
    with pytest.raises(IndexError, match="out of bounds"): cross_entropy(torch.zeros(1, 3), torch.tensor([label]))
    assert cross_entropy(torch.zeros(1, 3), torch.tensor([2])).item() == pytest.approx(np.log(3))
