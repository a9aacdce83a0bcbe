"""The losses of the methods against formulas for a linear model, where the chapter leaves a term out."""
import torch
import torch.nn.functional as F
from torch import nn

from robustacc.attacks import Threat
from robustacc.methods import LLR


def test_both_terms_of_llr_are_those_of_one_perturbation():
    """For two logits that differ by z = w x + b, l = softplus(-z) and delta . grad l = -sigmoid(-z) u, with u the change of z. So the linear term gives |u|,
    and the linearity error must be that of u or -u."""
    torch.manual_seed(0)
    weight, bias, x, eps = torch.randn(12).double(), .3, torch.rand(40, 1, 3, 4).double() * .6 + .2, .1
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 2).double())
    with torch.no_grad():
        linear[1].weight.copy_(torch.stack([weight, torch.zeros(12).double()]))
        linear[1].bias.copy_(torch.tensor([bias, 0.], dtype=torch.float64))
    y, z = torch.zeros(40, dtype=torch.int64), x.flatten(1) @ weight + bias
    def term(**strengths): return LLR(**strengths)(linear, x, y, Threat(eps)).detach() - F.softplus(-z)
    slope, linear_term, error = torch.sigmoid(-z), term(lam=0., mu=1.), term(lam=1., mu=0.)
    u = linear_term / slope
    assert (u <= eps * weight.abs().sum() + 1e-9).all() and (u > .1 * eps * weight.abs().sum()).any()
    errors = torch.stack([(F.softplus(-(z + v)) - F.softplus(-z) + slope * v).abs() for v in (u, -u)])
    assert ((errors - error).abs().amin(0) < 1e-9).all()
    assert torch.allclose(term(lam=2., mu=5.), 2 * error + 5 * linear_term, atol=1e-9)
