"""Replayed training steps beside launched ones, on a CUDA device; skipped without one, and in part without two.

Kernels are deterministic here, so both must end with the same weights to the last bit: a random start, a dropout mask, a learning rate or
an optimiser's moment that a recording had frozen, or used twice, would show.
"""
import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch
from torch import nn

from robustacc.data import load
from robustacc.graphs import _WARM_UP
from robustacc.methods import make_method
from robustacc.networks import build
from robustacc.fitting import fit
from robustacc.recipes import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
ADAM = Recipe(3, 1e-3, (2,), optimiser="adam", batch_size=64, reduction="mean", channels_last=True)
SGD = Recipe(3, 1e-4, (1,), momentum=.9, batch_size=64)


@pytest.fixture(autouse=True)
def deterministic():
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def replays(monkeypatch):
    "How often a graph was replayed, in a list of one number."
    count, replay = [0], torch.cuda.CUDAGraph.replay
    def counted(graph):
        count[0] += 1
        return replay(graph)
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    return count


def trained(method, recipe, *, arch="CNN2", replay=True, net=None, device="cuda", **options):
    "Weights and losses after three epochs of 10 full batches and a short one."
    torch.manual_seed(0)
    net = build(arch, in_shape=(1, 28, 28)) if net is None else net
    history = fit(net, load("digits").take(train=650, test=50), method, recipe=recipe, eps=.1, seed=1, device=device, replay=replay, progress=False, **options)
    return torch.cat([v.detach().flatten().double() for v in net.state_dict().values()]).cpu(), [h["loss"] for h in history]


@pytest.mark.parametrize("recipe", [ADAM, SGD], ids=["adam", "sgd"])
@pytest.mark.parametrize("arch", ["CNN1", "CNN2"])
@pytest.mark.parametrize("name,variant", [("natural", "paper"), ("gr", "paper"), ("at", "paper"), ("at", "released"), ("rst", "paper"), ("trades", "paper"),
                                          ("llr", "released"), ("llr", "paper")])
def test_replayed_and_launched_steps_end_the_same(name, variant, arch, recipe, replays):
    method = make_method(name, variant=variant)
    replayed, losses = trained(method, recipe, arch=arch)
    assert replays == [30 - _WARM_UP if (name, variant) != ("llr", "paper") else 0]
    launched, expected = trained(method, recipe, arch=arch, replay=False)
    assert replays == [30 - _WARM_UP if (name, variant) != ("llr", "paper") else 0]
    assert losses == expected
    assert torch.equal(replayed, launched), f"{(replayed - launched).abs().max():.2g}"


def test_lower_precision_inside_the_attack_and_an_average(replays):
    method = make_method("at", dtype=torch.bfloat16)
    (replayed, losses), (launched, expected) = trained(method, ADAM, ema=.9), trained(method, ADAM, ema=.9, replay=False)
    assert replays == [30 - _WARM_UP]
    assert losses == expected and torch.equal(replayed, launched)


def test_batch_norm(replays):
    def net():
        torch.manual_seed(2)
        return nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(.3), nn.Flatten(), nn.Linear(8 * 13 * 13, 10))
    (replayed, losses), (launched, expected) = (trained(make_method("trades"), SGD, net=net(), replay=replay) for replay in (True, False))
    assert replays == [30 - _WARM_UP]
    assert losses == expected and torch.equal(replayed, launched)


@pytest.mark.parametrize("arch,recipe", [("CNN1", ADAM), ("CNN2", SGD)])
def test_a_training_that_is_interrupted_goes_on_to_the_same_end(tmp_path, arch, recipe, replays):
    "Stopped at the end of the second epoch, before that is kept; the second training goes on after the first one, warms up and records anew."
    method, whole = make_method("rst"), trained(make_method("rst"), recipe, arch=arch)
    def stop(epoch, entry, net):
        if epoch == 2: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): trained(method, recipe, arch=arch, checkpoint=tmp_path / "c", callbacks=[stop])
    parts = trained(method, recipe, arch=arch, checkpoint=tmp_path / "c")
    assert replays == [30 - _WARM_UP + 20 - _WARM_UP + 20 - _WARM_UP]
    assert parts[1] == whole[1] and torch.equal(parts[0], whole[0])


def test_a_network_that_looks_at_a_value_is_trained_all_the_same():
    class Looking(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(4)
            self.net, self.drop = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), nn.Dropout(.2)
        def forward(self, x): return self.drop(self.net(x) * (1 if x.mean().item() < 2 else 0))
    usual = torch.cuda.current_stream()
    with pytest.warns(UserWarning, match="cannot be recorded as a CUDA graph"): replayed, losses = trained(make_method("at"), ADAM, net=Looking())
    assert torch.cuda.current_stream() == usual
    launched, expected = trained(make_method("at"), ADAM, net=Looking(), replay=False)
    assert losses == expected and torch.equal(replayed, launched)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_two_devices_one_after_the_other():
    one, two = (trained(make_method("at"), ADAM, device=f"cuda:{k}") for k in range(2))
    assert one[1] == two[1] and torch.equal(one[0], two[0])
