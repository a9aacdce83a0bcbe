"""Attacks against three independent libraries, on a small network trained here on digits, plainly and adversarially.

A test is skipped where its library is not installed. Where the algorithm is the same step by step, so are the iterates: in float64, since
an iterate that lands on a kink of a ReLU turns one way or the other by its last bit (ART computes in float32 only, so there a few images
may differ). Where it is the same up to random draws, accuracies are compared, on so many digits that .2 points can be told apart.
"""
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustacc import random_search, strong_attacks
from robustacc.attacks import PGD, Threat, ascend, start_point
from robustacc.checks import to_float
from robustacc.data import load
from robustacc.evaluation import correct, evaluate_robustness, robust
from robustacc.losses import cross_entropy, margin
from robustacc.methods import TRADES, Method
from robustacc.noise import NoiseKey
from robustacc.random_search import Square
from robustacc.strong_attacks import FAB, APGD, APGDTargeted

EPS = .15


def train(attack, n_classes=10, steps=250):
    "A small convolutional network after a few seconds of training, on adversarial examples if an attack is given, or by a method."
    split = load("digits").train
    keep = np.flatnonzero(split.labels < n_classes)
    x, y = to_float(split.images[keep]), torch.as_tensor(split.labels[keep])
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 16, 4, 2), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(800, n_classes))
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(steps):
        pick = torch.randint(len(x), (64,))
        if isinstance(attack, Method): loss = attack(net, x[pick], y[pick], Threat(EPS), NoiseKey(pick, 0, step)).mean()
        else:
            images = attack(net, x[pick], y[pick], Threat(EPS), index=pick, stream=step) if attack else x[pick]
            loss = F.cross_entropy(net(images), y[pick])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    "Small batches: threads cost more than they give."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def nets():
    "A plain and an adversarially trained network."
    return {"plain": train(None), "trained": train(PGD(steps=5, step=.4))}


@pytest.fixture(scope="module")
def digits():
    "All test digits as tensors."
    test = load("digits").test
    return to_float(test.images), torch.as_tensor(test.labels)


@pytest.fixture(scope="module")
def thousand():
    "The test digits and as many of the training digits as make 1,000: two of them are .2 points."
    data = load("digits")
    return tuple(torch.cat([make(data.test), make(data.train)])[:1000] for make in (lambda s: to_float(s.images), lambda s: torch.as_tensor(s.labels)))


def in_precision(dtype, net, x, y):
    "The network, and those of the images that it classifies correctly, computing in `dtype`."
    keep = correct(net, x, y)
    return deepcopy(net).to(dtype), x[keep].to(dtype), y[keep]


def peer_iterates(library, net, x, y, norm, steps, eps, step):
    "What PGD of a library makes of the images, from the images themselves."
    if library == "foolbox":
        fb = pytest.importorskip("foolbox")
        kind = {"inf": fb.attacks.LinfProjectedGradientDescentAttack, "2": fb.attacks.L2ProjectedGradientDescentAttack}[norm]
        attack = kind(abs_stepsize=step, steps=steps, random_start=False)
        return attack.run(fb.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, fb.criteria.Misclassification(y), epsilon=eps)
    if library == "torchattacks":
        ta = pytest.importorskip("torchattacks")
        kind = {"inf": ta.PGD, "2": ta.PGDL2}[norm]
        return kind(net, eps=eps, alpha=step, steps=steps, random_start=False)(x, y).detach()
    pytest.importorskip("art")
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier
    classifier = PyTorchClassifier(net, nn.CrossEntropyLoss(reduction="sum"), x.shape[1:], net[-1].out_features, clip_values=(0, 1), device_type="cpu")
    attack = ProjectedGradientDescentPyTorch(classifier, norm={"inf": np.inf, "2": 2}[norm], eps=eps, eps_step=step, max_iter=steps,
                                             num_random_init=0, batch_size=len(x), verbose=False)
    return torch.as_tensor(attack.generate(x.numpy(), F.one_hot(y, net[-1].out_features).numpy()))


@pytest.mark.parametrize("norm,eps", [("inf", EPS), ("2", 1.5)])
@pytest.mark.parametrize("steps", [4, 10])
@pytest.mark.parametrize("library", ["foolbox", "torchattacks", "art"])
def test_the_iterates_of_pgd_are_the_same(nets, digits, library, steps, norm, eps):
    exact = library != "art"
    for name, net in nets.items():
        net, x, y = in_precision(torch.float64 if exact else torch.float32, net, *digits)
        theirs = peer_iterates(library, net, x, y, norm, steps, eps, eps / 5)
        ours = PGD(steps=steps, start="none")(net, x, y, Threat(eps, norm))
        v = x.clone().requires_grad_(True)                     # some libraries add a constant to a gradient's length before dividing by it,
        length = torch.autograd.grad(cross_entropy(net(v), y).sum(), v)[0].flatten(1).norm(dim=1)      # or to a mean over the batch
        clear = length > 1e-2
        assert clear.float().mean() > .2
        inside = (theirs - x).flatten(1).norm(dim=1).max() < .99 * eps   # ART clips to [0, 1] first and projects then: another l2 point
        same_algorithm = exact or norm == "inf" or inside
        same = ((ours - theirs)[clear].abs() < 1e-5).flatten(1).all(1).float().mean().item()
        if same_algorithm: assert same >= (.9999 if exact else .98), f"{name}: {same:.2%} of the images"
        with torch.no_grad(): accuracy = [(net(v).argmax(1) == y).float().mean().item() for v in (ours, theirs)]
        assert abs(accuracy[0] - accuracy[1]) <= (.002 if exact else .01), f"{name}: {accuracy}"
        assert accuracy[0] < .95, "the attack does something"


@pytest.mark.parametrize("norm,eps", [("inf", EPS), ("2", 1.5)])
def test_the_iterates_from_the_same_random_start_are_the_same(nets, digits, norm, eps):
    fb, ep = pytest.importorskip("foolbox"), pytest.importorskip("eagerpy")
    x, y = digits[0].double(), digits[1]
    index = torch.arange(len(x)) + 7
    start = start_point(x, Threat(eps, norm), start="uniform", index=index, seed=3).clamp(0, 1)
    kind = {"inf": fb.attacks.LinfProjectedGradientDescentAttack, "2": fb.attacks.L2ProjectedGradientDescentAttack}[norm]
    class FromOurStart(kind):
        def get_random_start(self, x0, epsilon): return ep.astensor(start)
    for name, net in nets.items():
        exact = deepcopy(net).double()
        theirs = FromOurStart(abs_stepsize=eps / 5, steps=10, random_start=True).run(
            fb.PyTorchModel(exact, bounds=(0, 1), device="cpu"), x, fb.criteria.Misclassification(y), epsilon=eps)
        ours = PGD()(exact, x, y, Threat(eps, norm), index=index, seed=3)
        same = ((ours - theirs).abs() < 1e-5).flatten(1).all(1).float().mean().item()
        assert same >= .998, f"{name}: {same:.2%} of the images"
        assert np.mean(correct(net, ours, y) == correct(net, theirs, y)) >= .998


def test_pgd_with_random_starts_leaves_the_same_accuracy(nets):
    "All 1797 digits, the mean over three seeds of each side: at most .2 points apart."
    ta = pytest.importorskip("torchattacks")
    net, data = nets["trained"], load("digits")
    x = torch.cat([to_float(data.train.images), to_float(data.test.images)])
    y = torch.cat([torch.as_tensor(data.train.labels), torch.as_tensor(data.test.labels)])
    clean, theirs = correct(net, x, y), []
    ours = [robust(net, x, y, PGD(), Threat(EPS), seed=seed).mean() for seed in range(3)]
    for seed in range(3):
        torch.manual_seed(seed)
        theirs.append((clean & correct(net, ta.PGD(net, eps=EPS, alpha=EPS / 5, steps=10, random_start=True)(x, y), y)).mean())
    print("random starts: ours", ours, "theirs", theirs)
    assert abs(np.mean(ours) - np.mean(theirs)) <= .002, (ours, theirs)


def compare_apgd(net, x, y, *, classes, steps, targets, losses=("ce", "t"), chunk=100):
    "Who survives ours and theirs, by kind and seed; both look at the same number of targets."
    ta = pytest.importorskip("torchattacks")
    clean, outcomes = correct(net, x, y), {kind: [] for kind in losses}
    for seed in range(2):
        ours = {"ce": APGD(steps=steps), "t": APGDTargeted(steps=steps, n_targets=targets)}
        peers = {"ce": ta.APGD(net, norm="Linf", eps=EPS, steps=steps, loss="ce", seed=seed), "t": ta.APGDT(net, norm="Linf", eps=EPS, steps=steps, n_classes=classes, seed=seed)}
        peers["t"].n_target_classes = targets
        for kind in losses:
            moved = torch.cat([peers[kind](x[i:i + chunk], y[i:i + chunk]).detach() for i in range(0, len(x), chunk)])
            outcomes[kind].append((robust(net, x, y, ours[kind], Threat(EPS), seed=seed), clean & correct(net, moved, y)))
    return outcomes


def nearest_to_the_decision(net, x, y, n):
    "The digits on which two attacks can differ at all: those whose margin after PGD is closest to zero."
    found = PGD(loss="margin", keep="best")(net, x, y, Threat(EPS))
    with torch.no_grad(): near = margin(net(found), y).abs().argsort()[:n]
    return x[near], y[near]


@pytest.mark.parametrize("classes", [10, 9])
def test_apgd_breaks_the_same_digits_as_that_of_torchattacks_where_they_can_differ(nets, thousand, classes):
    "The 200 closest decisions of 1,000 digits, the three likeliest targets; two seeds of each side, which must not be further apart than two of ours."
    net = nets["trained"] if classes == 10 else train(PGD(steps=5, step=.4), n_classes=9)
    keep = thousand[1] < classes
    x, y = nearest_to_the_decision(net, thousand[0][keep], thousand[1][keep], 200)
    for kind, pairs in compare_apgd(net, x, y, classes=classes, steps=20, targets=3).items():
        print(kind, [(mine.mean(), theirs.mean(), np.mean(mine == theirs)) for mine, theirs in pairs], np.mean(pairs[0][0] == pairs[1][0]))
        own = np.mean(pairs[0][0] == pairs[1][0])                  # two seeds of ours differ too, so close to the decision
        assert all(np.mean(mine == theirs) >= own - .04 for mine, theirs in pairs), (kind, own)
        mine, theirs = np.mean([[a.mean() for a in pair] for pair in pairs], axis=0)
        assert round(abs(mine - theirs), 9) <= .02 and .1 < mine < .9, (kind, mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "trained"])
def test_apgd_leaves_the_same_accuracy_as_that_of_torchattacks(nets, thousand, name):
    "All targets, 1,000 digits; the means over two seeds of each side, as one seed alone moves the accuracy by .3 points."
    for kind, pairs in compare_apgd(nets[name], *thousand, classes=10, steps=30, targets=9).items():
        print(name, kind, [(mine.mean(), theirs.mean()) for mine, theirs in pairs])
        assert all(np.mean(mine == theirs) >= .98 for mine, theirs in pairs), kind
        mine, theirs = np.mean([[a.mean() for a in pair] for pair in pairs], axis=0)
        assert abs(mine - theirs) <= .002, (kind, mine, theirs)


@pytest.mark.slow
def test_apgd_with_nine_classes_leaves_the_same_accuracy(thousand):
    net = train(PGD(steps=5, step=.4), n_classes=9)
    keep = thousand[1] < 9
    pairs = compare_apgd(net, thousand[0][keep], thousand[1][keep], classes=9, steps=20, targets=8, losses=("t",))["t"]
    left = [(mine.mean(), theirs.mean()) for mine, theirs in pairs]
    print("nine classes", left)
    assert abs(np.subtract(*np.mean(left, axis=0))) <= .002, left


def test_square_leaves_about_the_same_accuracy(nets, digits, monkeypatch):
    "Random search: the means over three seeds within a point, with the schedule of that library, which halves once more."
    ta = pytest.importorskip("torchattacks")
    net, (x, y) = nets["trained"], digits
    clean = correct(net, x, y)
    def ours(): return [robust(net, x, y, Square(queries=300), Threat(EPS), seed=seed).mean() for seed in range(3)]
    theirs = [(clean & correct(net, ta.Square(net, norm="Linf", eps=EPS, n_queries=300, seed=seed)(x, y).detach(), y)).mean() for seed in range(3)]
    as_published = ours()
    monkeypatch.setattr(random_search, "_HALVINGS", (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
    like_theirs = ours()
    print("square: ours", as_published, "with their schedule", like_theirs, "theirs", theirs)
    assert abs(np.mean(like_theirs) - np.mean(theirs)) <= .01, (like_theirs, theirs)
    assert np.mean(as_published) <= np.mean(theirs) + .01


def test_the_ensemble_of_the_peer_breaks_the_same_examples(nets, digits):
    "All four attacks of that library against our three, on the plain network, where its searches end soon."
    pytest.importorskip("torchattacks")
    x, y = digits[0][:60], digits[1][:60]
    ours, theirs = (robust(nets["plain"], x, y, attack, Threat(.08)) for attack in (APGDTargeted(steps=50), strong_attacks.PeerAutoAttack()))
    print("ensemble: ours", ours.mean(), "theirs", theirs.mean())
    assert np.sum(ours != theirs) <= 1 and 0 < ours.mean() < .6


def both_ensembles(net, x, y, eps, *, norm="inf", classes=10, steps=100, queries=5000, chunk=100, seed=0):
    "Who survives our AutoAttack and that of torchattacks, with the same budgets."
    ta = pytest.importorskip("torchattacks")
    where = dict(eps=eps, norm={"inf": "Linf", "2": "L2"}[norm], seed=seed)
    theirs = ta.MultiAttack([ta.APGD(net, steps=steps, **where), ta.APGDT(net, steps=steps, n_classes=classes, **where),
                             ta.FAB(net, steps=steps, multi_targeted=True, n_classes=classes, **where), ta.Square(net, n_queries=queries, **where)])
    moved = torch.cat([theirs(x[i:i + chunk], y[i:i + chunk]).detach() for i in range(0, len(x), chunk)])
    ours = evaluate_robustness(net, x, y, strong_attacks.autoattack(norm, steps=steps, queries=queries), Threat(eps, norm), batch_size=chunk, seed=seed).worst
    return ours, correct(net, x, y) & correct(net, moved, y)


@pytest.mark.parametrize("norm,eps", [("inf", EPS), ("2", 1.5)])
def test_autoattack_leaves_the_same_digits_as_that_of_torchattacks(nets, digits, norm, eps):
    "Both in full, with small budgets, on the adversarially trained network; the robust counts within one digit of 60, and the same survivors but for that one."
    x, y = digits[0][:60], digits[1][:60]
    ours, theirs = both_ensembles(nets["trained"], x, y, eps, norm=norm, steps=12, queries=100)
    print("autoattack", norm, ours.sum(), theirs.sum(), np.sum(ours != theirs))
    assert abs(int(ours.sum()) - int(theirs.sum())) <= 1 and np.sum(ours != theirs) <= 1 and 5 < ours.sum() < 55


NETWORKS = pytest.mark.parametrize("name", ["plain", "trained", "trades"])


def network(nets, name):
    return train(TRADES(beta=6., steps=5, step=.4)) if name == "trades" else nets[name]


@pytest.mark.slow
@NETWORKS
def test_autoattack_with_all_its_steps_leaves_the_same_digits(nets, thousand, name):
    "The published budgets, 200 digits, an undefended network and two robust ones: within one digit."
    ours, theirs = both_ensembles(network(nets, name), thousand[0][:200], thousand[1][:200], EPS)
    print("autoattack", name, ours.sum(), theirs.sum(), np.sum(ours != theirs))
    assert abs(int(ours.sum()) - int(theirs.sum())) <= 1 and np.sum(ours != theirs) <= 1


@pytest.mark.slow
@NETWORKS
def test_autoattack_with_all_its_steps_and_three_seeds_leaves_the_same_digits(nets, thousand, name):
    "A few digits are broken by Square alone, and with some seeds only. Who survives three seeds of one side survives those of the other, within one digit; so do the mean counts."
    net = network(nets, name)
    each = np.array([both_ensembles(net, thousand[0][:200], thousand[1][:200], EPS, seed=seed) for seed in (0, 1, 2)])
    ours, theirs = each.all(0)
    print("autoattack", name, "ours", each[:, 0].sum(1), "theirs", each[:, 1].sum(1), "all seeds", ours.sum(), theirs.sum(), np.sum(ours != theirs))
    assert abs(int(ours.sum()) - int(theirs.sum())) <= 1 and np.sum(ours != theirs) <= 1
    assert np.abs(each[:, 0].sum(1).mean() - each[:, 1].sum(1).mean()) <= 1


def test_the_losses_in_double_precision_against_a_derivation_of_their_own():
    "Values and gradients of the losses by numpy formulas, central differences included."
    from robustacc.attacks import _LOSSES
    from robustacc.losses import carlini_wagner, divergence, dlr
    rng = np.random.default_rng(0)
    z, labels, targets, clean = rng.normal(size=(6, 5)) * 3, np.arange(6) % 5, (np.arange(6) + 2) % 5, rng.normal(size=(6, 5))
    def log_softmax(v): return v - np.log(np.exp(v).sum())
    def by_hand(name, v, y, t, c):
        others = max(v[k] for k in range(5) if k != y)
        s = np.sort(v)[::-1]
        return {"ce": lambda: -log_softmax(v)[y], "margin": lambda: others - v[y], "cw": lambda: min(others - v[y], 1.),
                "dlr": lambda: -(v[y] - others) / (s[0] - s[2]), "dlr-t": lambda: -(v[y] - v[t]) / (s[0] - (s[2] + s[3]) / 2),
                "margin-t": lambda: v[t] - v[y], "ce-t": lambda: log_softmax(v)[t],
                "kl": lambda: (np.exp(log_softmax(c)) * (log_softmax(c) - log_softmax(v))).sum()}[name]()
    y, t, c = torch.tensor(labels), torch.tensor(targets), torch.tensor(clean)
    ours = {"ce": lambda v: cross_entropy(v, y), "margin": lambda v: margin(v, y), "cw": lambda v: carlini_wagner(v, y, confidence=1.),
            "dlr": lambda v: dlr(v, y), "dlr-t": lambda v: dlr(v, y, t), "margin-t": lambda v: margin(v, y, t),
            "ce-t": lambda v: cross_entropy(v, y, t), "kl": lambda v: divergence(c, v)}
    assert set(_LOSSES) <= set(ours)
    for name, loss in ours.items():
        v = torch.tensor(z, requires_grad=True)
        values = loss(v)
        gradient, = torch.autograd.grad(values.sum(), v)
        for i in range(6):
            assert values[i].item() == pytest.approx(by_hand(name, z[i], labels[i], targets[i], clean[i]), rel=1e-9, abs=1e-9), name
            for k in range(5):
                step = np.eye(5)[k] * 1e-6
                slope = (by_hand(name, z[i] + step, labels[i], targets[i], clean[i]) - by_hand(name, z[i] - step, labels[i], targets[i], clean[i])) / 2e-6
                assert gradient[i, k].item() == pytest.approx(slope, rel=1e-5, abs=1e-6), (name, i, k)


def test_attacks_leave_the_model_as_it_was_even_after_an_exception():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(.5), nn.Linear(64, 5)).train()
    net[3].bias.requires_grad_(False)
    x, y = torch.rand(8, 1, 8, 8), torch.arange(8) % 5
    before = {k: v.clone() for k, v in net.state_dict().items()}
    flags = [p.requires_grad for p in net.parameters()]
    def stop(_, inputs): raise RuntimeError("stop")
    for attack in (PGD(restarts=2), PGD(keep="first"), APGD(steps=5), APGDTargeted(steps=5), Square(queries=5)):
        found = attack(net, x, y, Threat(.1))
        handle = net[3].register_forward_pre_hook(stop)
        with pytest.raises(RuntimeError, match="stop"): attack(net, x, y, Threat(.1))
        handle.remove()
        assert net.training and all(m.training for m in net) and [p.requires_grad for p in net.parameters()] == flags
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
        assert all(p.grad is None for p in net.parameters()) and not found.requires_grad
    PGD(mode="train")(net, x, y, Threat(.1))
    assert int(net[1].num_batches_tracked) == 10


@pytest.mark.parametrize("attack", [PGD(restarts=2), PGD(keep="first"), APGD(steps=20), APGDTargeted(steps=20, n_targets=2), Square(queries=60)], ids=lambda a: a.name)
def test_outcomes_depend_neither_on_batches_nor_on_order(nets, digits, attack):
    net, (x, y) = nets["trained"], digits
    outcome = robust(net, x, y, attack, Threat(EPS))
    assert np.array_equal(outcome, robust(net, x, y, attack, Threat(EPS)))
    assert np.mean(outcome == robust(net, x, y, attack, Threat(EPS), batch_size=23)) >= .999 - 1 / len(x)
    points = {}
    for order in (torch.arange(60), torch.randperm(60, generator=torch.Generator().manual_seed(1))):
        points[len(points)] = attack(net, x[order], y[order], Threat(EPS), index=order)[order.argsort()]
    with torch.no_grad(): same = (net(points[0]).argmax(1) == net(points[1]).argmax(1)).float().mean().item()
    assert same >= 59 / 60


def test_the_objective_of_users_is_ascended_too():
    "`ascend` takes any per-example objective; PGD any loss of logits and labels."
    linear = nn.Linear(12, 3)
    x, y = torch.rand(9, 12) * .2 + .4, torch.arange(9) % 3
    def own(logits, labels): return -logits.gather(1, labels[:, None]).squeeze(1)
    found = PGD(loss=own)(linear, x, y, Threat(.1))
    assert torch.allclose(found, x - .1 * linear.weight.detach()[y].sign(), atol=1e-6)
    assert torch.allclose(ascend(lambda v: own(linear(v), y), x, x, Threat(.1), steps=10, step_size=.02), found, atol=1e-6)


@pytest.mark.parametrize("norm,eps", [("inf", EPS), ("2", 1.5)])
def test_fab_breaks_about_the_same_digits_as_that_of_torchattacks(nets, thousand, norm, eps):
    "The targeted form, the three likeliest targets, 80 digits on which the two can differ; ours must not be the weaker one."
    ta = pytest.importorskip("torchattacks")
    net = nets["trained"]
    x, y = nearest_to_the_decision(net, *thousand, 80)
    peer = ta.FAB(net, norm={"inf": "Linf", "2": "L2"}[norm], eps=eps, steps=20, n_restarts=1, multi_targeted=True, n_classes=10)
    peer.n_target_classes = 3
    theirs = correct(net, x, y) & correct(net, peer(x, y).detach(), y)
    ours = robust(net, x, y, FAB(steps=20, n_targets=3), Threat(eps, norm))
    print("fab", norm, ours.mean(), theirs.mean(), np.mean(ours == theirs))
    assert ours.mean() <= theirs.mean() + .03 and np.mean(ours == theirs) >= .9
