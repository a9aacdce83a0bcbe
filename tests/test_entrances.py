"""Every public function that takes values of users, with bad ones: right as an equivalent value, refused by name, or, where neither is said here, at least answered.

A function has a valid call, and each of its parameters a kind. A kind says which values mean the same as the valid one (the result must be equal) and which must be
refused; all others, of a list and of a seeded generator, may be used or refused. What is refused is a ValueError, TypeError or OSError that names the parameter or the value.
test_arguments.py does the same, with fewer demands, for data, networks, theory and the staircase."""
import dataclasses
import functools
import importlib
import inspect
import json
import math
import os
import pkgutil
import random
import shutil
import tempfile
import types
import warnings
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import robustacc
import test_arguments
from robustacc import (adapters, attacks, auditing, benchmarking, checkpoints, checks, conflicts, controls, cost, curation, curation_page, data, dropout, evaluation, experiments, files, fitting,
                       guard, imagenet, ledger, lipschitz, masking, measuring, methods, nearest, noise, planting, pictures, proof, publishing, radii, readers, recipes, records, registry, results, rows,
                       runs, search, separation, statistics, streaming, strong_attacks, theory, train, verdicts)

SEED, LEAST = 2020, 60  # of the generator; values per function
APART = {  # modules that no user calls with values of his own, and why; those with an underscore need no reason
    "audit_command": "a command", "benchmark_command": "a command", "cli": "a command", "commands": "what commands are made of: test_fuzz.py tries all of them",
    "arguments": "the checks of numbers that the entries below reach", "graphs": "a training step that fitting has made", "processes": "the launcher's variables", "training_state": "a training that fitting has made"}
MODULES = sorted(m.name for m in pkgutil.iter_modules(robustacc.__path__) if not m.name.startswith("_") and m.name not in ("site", *APART))
BLOCKS = {  # what only other code of the package calls, with tensors or records that it has made itself
    "attacks": "per_example Goal steepest_direction ascend Attack worst_case start_point ranked_targets check_threat",
    "auditing": "audit_command audit_page", "augmentation": "Ragged", "benchmarking": "Benchmark", "checkpoints": "CheckpointError digest deferred_interrupt piecewise save_checkpoint",
    "checks": "unknown_name check_values notebook_parameters check_parameters warn_of_range warn_of_tiny logits_of check_output check_logits check_pixels check_choice",
    "conflicts": "OptimalLoss Tradeoff check_certificate", "curation": "Curation", "data": "Split Data",
    "dropout": "effects interactions",
    "evaluation": "channels_last pixel_batches check_inputs Robustness", "experiments": "trials_command", "files": "as_json checkout clear_leftovers LockedError",
    "fitting": "replayable augmented", "guard": "find_modules train_mode ordinary weight_types input_gradient warn_of_flat check_repeatable", "ledger": "Paired compare",
    "lipschitz": "top_two_margin", "losses": "at_least_float32 cross_entropy margin carlini_wagner dlr divergence", "masking": "MaskingReport", "methods": "Method", "nearest": "NearestCertificates",
    "networks": "CNN1 CNN2 ResNet50 ResNet18 WideResNet", "planting": "Planted", "proof": "union Proof run",
    "records": "source published_name RecordExistsError", "registry": "Registry",
    "search": "Neighbours Pairs", "separation": "statistics show_pairs", "statistics": "Difference",
    "streaming": "Certificate", "strong_attacks": "PeerAutoAttack", "theory": "SignedDistance ClassDistance WeakFeatures", "train": "Plan keep_freed_memory save_outcomes"}
EVERYTHING = [None, True, 0, -1, 1, 2, .5, math.nan, math.inf, -math.inf, 10**30, 10**400, 1e-300, "", "x", "3", "\uff11", "inf", b"x", [], [0], [[1]], (1, 2), {}, {"a": 1}, set(), object(), np.array(3),
              np.zeros((2, 2)), np.zeros((2, 3, 3), np.uint8), np.array(["a"]), torch.zeros(2), torch.zeros(2, requires_grad=True), np.float32(.3), np.int64(2), 1j, Path("/nonexistent"),
              lambda x: x, slice(3), -0., "a\0b", iter([1]), np.array([None]), np.datetime64("2020-01-01"), range(3), int, torch.zeros(2, 3).half(), torch.zeros(2, device="meta"), pd.Series(["a", "b"]), Fraction(1, 3)]


@dataclass(frozen=True)
class Kind:
    "Functions of the valid value that mean the same, and values, or functions of the valid one, that must be refused."
    same: tuple = ()
    refuse: tuple = ()


def read_only(a):
    b = np.array(a)
    b.flags.writeable = False
    return b


def spoilt(value): return lambda a: np.where(np.arange(a.size).reshape(a.shape) == 1, value, a / 255 if a.dtype == np.uint8 else a)


def listed(f): return lambda v: f(np.asarray(v))


TABLE = lambda a: pd.DataFrame(a.reshape(len(a), -1))  # noqa: E731
NO_ARRAY = (None, 3, "x", b"x", {}, {"a": 1}, set(), object(), iter([1]), 1j, np.array(3), lambda x: x)
IMAGES = Kind((torch.from_numpy, np.asfortranarray, read_only, lambda a: a[::-1][::-1], memoryview, lambda a: list(torch.from_numpy(a))),
              (*NO_ARRAY, spoilt(math.nan), spoilt(math.inf), lambda a: a.astype(np.int64), lambda a: a.tolist(), lambda a: a.astype(complex), lambda a: a.astype(str), lambda a: a[:0], lambda a: a[:, 0, 0, 0], lambda a: torch.from_numpy(a).to("meta")))
POINTS = Kind((torch.from_numpy, np.asfortranarray, read_only, lambda a: a.astype(">f8"), lambda a: a.tolist(), lambda a: torch.from_numpy(a).requires_grad_(), TABLE),
              (*NO_ARRAY, spoilt(math.nan), spoilt(-math.inf), lambda a: a.astype(complex), lambda a: a.astype(str), lambda a: a[:0], lambda a: torch.from_numpy(a).to("meta")))
LABELS = Kind((torch.tensor, np.asarray, tuple, listed(lambda a: a.astype(np.int32)), listed(lambda a: a.astype(">i8")), listed(read_only), listed(pd.Series), listed(lambda a: a.astype(object)),
               listed(lambda a: torch.from_numpy(a.astype(np.uint8)))),
              (*NO_ARRAY, listed(lambda a: a + .5), listed(lambda a: a.astype(float)), listed(lambda a: np.where(a == 1, math.nan, a)), listed(lambda a: np.eye(3)[a]), listed(lambda a: np.eye(3, dtype=int)[a]),
               listed(lambda a: a[:, None]), listed(lambda a: a.astype(str)), listed(lambda a: a[:-1]), listed(lambda a: np.r_[a, a]), listed(lambda a: a.astype(np.uint64) + np.uint64(2**63)), listed(lambda a: torch.from_numpy(a).to("meta"))))
NORM = Kind((lambda v: math.inf, lambda v: "Linf", lambda v: "inf", lambda v: "L_inf", lambda v: np.float64("inf"), lambda v: "ℓ∞"),
            (None, 0, 1, 3, "l1", "x", "", True, math.nan, -math.inf, "-inf", "-2", [2], "0", -2, np.zeros(2), object()))
WRONG = ("x", b"x", "", "\uff11", [], {}, object(), 1j, math.nan, [1], np.zeros(2), "inf")
RADIUS = Kind((np.float64, lambda v: Fraction(str(v))), (*WRONG, None, 0, -1, math.inf, -math.inf, 8, True, 10**400))
OWN_RADIUS = Kind((np.float64, lambda v: Fraction(str(v))), (*WRONG, None, -1, math.inf, -math.inf, True, 10**400))
MAYBE_RADIUS = Kind((np.float64,), tuple(v for v in RADIUS.refuse if v is not None))
COUNT = Kind((np.int64, np.int32), (*WRONG, None, 0, -1, .5, 2.5, math.inf, True, "3"))
MAYBE_COUNT = Kind((np.int64,), tuple(v for v in COUNT.refuse if v is not None))
FROM_0 = Kind((np.int64,), (*WRONG, None, -1, .5, math.inf, True, "3"))
SHARE = Kind((np.float64,), (*WRONG, None, 0, -1, 1.5, math.inf, True))
POSITIVE = Kind((np.float64,), (*WRONG, None, -1, math.inf, -math.inf, True))
MAYBE = Kind((np.float64,), (*WRONG, -1, math.inf, -math.inf))
NAME = Kind((), ("x", "", " ", 3, math.nan, b"x", [], {}, object(), np.zeros(2), "a\0b"))
DEVICE = Kind((), ("x", "cuda:99", "", 3.5, math.nan, [], object(), None, "cpu:x"))
ANY = Kind()
def only(*refuse): return Kind((), (*refuse, 3, "x", math.nan, [1], object(), {"a": 1}))


X = np.random.default_rng(0).integers(0, 256, (9, 1, 4, 4)).astype(np.uint8)
Y = [0, 1, 2] * 3
P, Q = np.random.default_rng(1).random((9, 3)), np.random.default_rng(2).random((4, 3))
NET = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
with torch.no_grad():
    NET[1].weight.copy_(torch.from_numpy(np.random.default_rng(3).normal(0, 1, (3, 16))).float())
    NET[1].bias.zero_()
T, DIGITS = attacks.Threat(.1), test_arguments.DIGITS.take(train=40, test=20)
PAIRS = search.pairs_within(X, Y, .7)


class Returns(nn.Module):
    "A network that returns something else than logits."
    def __init__(self, how): super().__init__(); self.net, self.how = NET, how
    def forward(self, v): return self.how(self.net(v))


class HasLogits:
    def __init__(self, logits): self.logits = logits


class NoGraph(nn.Module):
    @torch.no_grad()
    def forward(self, v): return NET(v)


MODEL_SAME = (lambda m: lambda v: m(v), lambda m: functools.partial(m), lambda m: m.forward, lambda m: nn.Sequential(m), lambda m: nn.Sequential(nn.ReLU(inplace=True), m), lambda m: nn.DataParallel(m), lambda m: Returns(HasLogits),
              lambda m: Returns(lambda z: {"logits": z}), lambda m: torch.jit.script(m), lambda m: nn.Sequential(m, nn.Dropout(.5)).train())
MODEL_REFUSED = (None, 3, "x", nn.Linear, [], Returns(lambda z: (z, z)), Returns(lambda z: {"a": z}), Returns(lambda z: z.detach().numpy()), Returns(lambda z: z[:, 0]), Returns(lambda z: z.argmax(1)),
                 nn.Sequential(nn.Flatten(), nn.Linear(16, 3, device="meta")), Returns(lambda z: z.to(torch.complex64)), Returns(lambda z: z * math.nan), Returns(lambda z: z[:1]), Returns(lambda z: None), Returns(lambda z: z[:, :1]))
ONE_OUTPUT = MODEL_REFUSED[-1]                                                # legal where a margin is not needed
MODEL = Kind(MODEL_SAME, (*MODEL_REFUSED, NoGraph(), Returns(lambda z: z.detach())))
SMOOTH = Kind(MODEL_SAME, tuple(m for m in MODEL.refuse if m is not ONE_OUTPUT))
CLASSIFIER = Kind((*MODEL_SAME, lambda m: NoGraph()), MODEL_REFUSED)
THREAT = Kind((lambda t: attacks.Threat(np.float64(.1), math.inf),), (None, .1, "x", attacks.Threat, 8, "inf", {}, [.1]))
ATTACK = only(None, attacks.PGD, "pgd", 3)
DATA = only(None, X, "digits")
ANY_SEED = Kind((np.int64,), tuple(v for v in FROM_0.refuse if not (type(v) is int and v == -1)))
SMALL = dict(model=MODEL, images=IMAGES, labels=LABELS, threat=THREAT, seed=ANY_SEED, first=FROM_0, batch_size=MAYBE_COUNT, device=Kind((), (*DEVICE.refuse, "meta")))
def small(attack): return dict(model=NET, images=X, labels=Y, attack=attack, threat=T, seed=0, first=0, batch_size=5, device="cpu")


RECORD = sorted((files.checkout() / "results" / "smoke" / "digits" / "CNN2").glob("at-seed0.json"))[0]
RUN = records.read_record(RECORD) | {"file": "x"}
def changed(**values): return lambda d: {**d, **values}
def lacking(key): return lambda d: {k: v for k, v in d.items() if k != key}


SETTINGS = Kind((dict, types.MappingProxyType), (None, 3, "x", {}, [], [("a", 1)], {"kind": "train"}, *map(lacking, ("profile", "dataset", "arch", "method", "dropout", "eps", "recipe", "seed")), changed(method={}), changed(method=None), changed(method="AT"),
                                               changed(method={"name": 3, "label": "AT", "variant": "paper"}), changed(recipe=[]), changed(recipe=None), changed(eps="x"), changed(seed=.5), changed(seed="0"), changed(profile=3), changed(profile="x"), changed(tools=[1]), changed(own="x")))
RUN_RECORD = Kind((dict, types.MappingProxyType), (None, 3, "x", {}, [], {"kind": "train"}, lacking("settings"), lacking("metrics"), changed(settings={}), changed(settings=None), changed(metrics=None), changed(metrics=[])))
METRICS = (changed(metrics={}), *(lambda d, c=c, v=v: {**d, "metrics": {**d["metrics"], c: v}} for c in ("test_acc", "gap", "adv_test_acc", "counts") for v in ("x", {}, [1], {"pgd": "x", "mt": 1.})))
RUNS = Kind((tuple, iter), (3, None, [3], ["x"], [{}], [{"settings": {}}], {"a": 1}, *(lambda d, f=f: [f(d[0])] for f in (lacking("settings"), lacking("metrics"), changed(settings={"method": {}})))))
SEARCHED = dict(queries=X[:4], query_labels=Y[:4], reference=X[4:], reference_labels=Y[4:], p="inf", backend="auto", memory=2**24, threads=1, device="cpu")
REFERENCE = Kind(IMAGES.same, tuple(v for v in IMAGES.refuse if v is not None))
SEARCH = dict(queries=IMAGES, query_labels=LABELS, reference=REFERENCE, reference_labels=LABELS, p=NORM, backend=NAME, memory=COUNT, threads=MAYBE_COUNT, device=Kind((), (*DEVICE.refuse, "meta")))
WITHIN = dict(images=X, labels=Y, radius=.7, which="other", p="inf", memory=2**24, threads=1)
STEPS = dict(steps=2, step=.2, start="uniform", keep="final", mode="eval", dtype=None, restarts=1)
STEP = dict(steps=FROM_0, step=Kind((np.float64,), (*WRONG, None, 0, -1, math.inf)), start=NAME, keep=NAME, mode=NAME, dtype=only("float16", torch.int32), restarts=COUNT, loss=NAME, variant=NAME, queries=COUNT,
            share=SHARE, momentum=SHARE, rho=SHARE, n_targets=COUNT, pull=SHARE, beyond=SHARE, back=SHARE)
STRENGTHS = dict(variant="paper", steps=3, step=.2, dtype=None, label_smoothing=None)
STRENGTH = dict(variant=NAME, steps=FROM_0, step=STEP["step"], dtype=only("float16", torch.int32), label_smoothing=Kind((), (*WRONG, 0, 1, 2, -1)), beta=POSITIVE, lam=POSITIVE, mu=POSITIVE, h=ANY, finite_difference=ANY)


HELD = tempfile.TemporaryDirectory()                                           # files of every kind; gone when the process ends
KEPT = Path(HELD.name)
for at, (picture, kind) in enumerate(zip(X, "abc" * 3)):
    (KEPT / "folder" / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture[0]).save(KEPT / "folder" / kind / f"{at}.png")
np.save(KEPT / "x.npy", X)
np.save(KEPT / "y.npy", np.array(Y))
SET = readers.LabelledSet(X, np.array(Y), ("a", "b", "c"), tuple("abcdefghi"), np.array(list("gghhiijjk")), np.array(["train"] * 5 + ["test"] * 4))
LARGER = X.repeat(2, 2).repeat(2, 3)                                          # of a size that is no number of channels
PAIRS_OF = list(zip(LARGER, Y))
WHERE = Kind((Path,), (None, 3, [], {}, math.nan, object(), "", "a\0b"))
WRITTEN = Kind((), (None, 3, [], {}, math.nan, object(), "a\0b"))
SET_KIND = only(None, X, [])
CURATE = dict(radii={"inf": .2}, eps=.1, embedding=None, review=3, listed=5, draws=2, seconds=60., memory=2**24, threads=1)
PERCENTS = Kind((np.array, tuple), (None, 3, "x", [], [math.nan], [-1.], [101.], ["a"], {"a": 1}))


ROW = dict(dataset="digits", arch="CNN1", method="rst", beta=None, lam=1., mu=None, hyper=None, variant="paper", dropout=.1, validation=.1, ema=.9, weight_decay=.1, label_smoothing=.1, augment="crop", eps=.1, profile="smoke",
           epochs=2, train=100, precision="float32", pgd_train=50, mt=20, seed=0, device="cpu", results="_runs")
ROW_KINDS = {**dict.fromkeys(("dataset", "arch", "method", "variant", "augment", "profile", "precision", "device"), NAME), **dict.fromkeys(("beta", "lam", "mu"), MAYBE), **dict.fromkeys(("epochs", "train", "pgd_train", "mt"), MAYBE_COUNT), "seed": FROM_0,
             "hyper": Kind((), ("x", "", 3, "a=1,a=2", "x=1")), "dropout": Kind((np.float64,), (*WRONG, 1, -1, math.inf)), "validation": Kind((np.float64,), (*WRONG, 0, .6, -1)), "ema": Kind((np.float64,), (*WRONG, 0, 1)),
             "weight_decay": Kind((np.float64,), (*WRONG, 0, -1, math.inf)), "label_smoothing": Kind((np.float64,), (*WRONG, 0, 1)), "eps": MAYBE_RADIUS, "results": Kind((), (None, 3, [], "a\0b"))}


def tidied(function):
    "A function whose new files in this folder, and at the path that is nowhere, go away again."
    def there(): return {*Path.cwd().iterdir(), *Path("/").glob("nonexistent*")}
    def call(**given):
        before = there()
        try: return function(**given)
        finally:
            for new in there() - before: shutil.rmtree(new) if new.is_dir() and not new.is_symlink() else new.unlink()
    return call


def labelled(**given): return curation.curate(readers.LabelledSet(**given), **CURATE).report


def locked(path):
    with files.lock(path): pass


def fitted(**given) -> float:
    torch.manual_seed(0)
    return fitting.fit(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), progress=False, **given)[-1]["test_acc"]


FUNCTIONS = {  # name: the function, a valid call, and the kinds of its parameters; those without one may be anything
    "search.nearest_other": (None, SEARCHED, SEARCH),
    "search.nearest_own": (None, SEARCHED, SEARCH),
    "search.closest_pairs": (None, dict(queries=X, query_labels=Y, k=3, p="inf", neighbours=None), dict(SEARCH, k=COUNT, neighbours=only())),
    "search.pairs_within": (None, WITHIN, dict(SEARCH, images=IMAGES, labels=LABELS, radius=OWN_RADIUS, which=NAME)),
    "search.widest_radius": (None, dict(images=X, p="inf"), dict(images=Kind(IMAGES.same, NO_ARRAY), p=NORM)),
    "separation.separation": (None, dict(data=DIGITS, p="inf"), dict(data=DATA, p=NORM)),
    "separation.margins": (None, dict(data=DIGITS, p="inf", other=None), dict(data=DATA, p=NORM, other=only())),
    "separation.class_minima": (None, dict(queries=X, query_labels=Y, p="inf"), SEARCH),
    "separation.duplicates": (None, dict(images=X, labels=Y), dict(images=IMAGES, labels=LABELS)),
    "separation.ignored_examples": (None, dict(images=X, labels=Y, eps=.3, p="inf"), dict(images=IMAGES, labels=LABELS, eps=OWN_RADIUS, p=NORM)),
    "separation.random_labels": (None, dict(data=DIGITS, kind="random", seed=0), dict(data=DATA, kind=NAME, seed=FROM_0)),
    "auditing.audit": (None, dict(images=X, labels=Y, eps=.1, p="inf", k=3, files=[*"abcdefghi"], classes=[*"xyz"]),
                       dict(images=IMAGES, labels=LABELS, eps=MAYBE_RADIUS, p=NORM, k=COUNT, files=Kind((), (3, [], ["a"])), classes=Kind((), (3, [], ["a"])))),
    "conflicts.exact_radius": (None, dict(eps=.1), dict(eps=Kind((np.float64, lambda v: "0.1", lambda v: Fraction(1, 10)), ("x", "", None, -1, math.nan, math.inf, [1], object(), 1j)))),
    "conflicts.conflict_level": (None, dict(eps=.1, attacker="real", p="inf"), dict(eps=Kind((), ("x", None, -1, math.nan, math.inf)), attacker=NAME, p=NORM)),
    "conflicts.optimal_robust_loss": (None, dict(images=X, labels=Y, eps=.35, p="inf", attacker="real", seconds=60.),
                                      dict(images=IMAGES, labels=LABELS, eps=Kind((np.float64,), ("x", None, -1, math.nan, math.inf)), p=NORM, attacker=NAME, seconds=POSITIVE)),
    "conflicts.optimal_robust_loss of points": (None, dict(images=P, labels=Y, eps=.2), dict(images=POINTS, labels=LABELS)),
    "conflicts.frontier": (None, dict(images=X, labels=Y, eps=.35, attacker="real", seconds=60.),
                           dict(images=IMAGES, labels=LABELS, eps=Kind((np.float64,), ("x", None, -1, math.nan, math.inf)), attacker=NAME, seconds=POSITIVE)),
    "conflicts.population_loss": (None, dict(loss=conflicts.optimal_robust_loss(X, Y, .35), confidence=.95), dict(loss=only(None), confidence=SHARE)),
    "conflicts.label_agreement": (None, dict(pairs=PAIRS, labels=Y, among=None, draws=5, seed=0),
                                  dict(pairs=only(None), labels=Kind(LABELS.same, NO_ARRAY), among=only(np.ones(3, bool)), draws=COUNT, seed=FROM_0)),
    "controls.diagnose": (None, dict(points=P, labels=Y, fresh=Q, fresh_labels=[0, 1, 2, 0], eps=.1, seed=0),
                          dict(points=POINTS, labels=LABELS, fresh=POINTS, fresh_labels=LABELS, eps=OWN_RADIUS, seed=FROM_0)),
    "nearest.nearest_certificates": (None, dict(queries=X[:4], reference=X, reference_labels=Y), dict(queries=IMAGES, reference=IMAGES, reference_labels=LABELS)),
    "nearest.nearest_certificates of points": (None, dict(queries=Q, reference=P, reference_labels=Y), dict(queries=POINTS, reference=POINTS, reference_labels=LABELS)),
    "attacks.Threat": (None, dict(eps=.1, norm="inf"), dict(eps=RADIUS, norm=NORM)),
    "attacks.PGD": (None, dict(**STEPS, loss="ce"), STEP),
    "attacks.MultiTargeted": (None, dict(**STEPS, variant="paper"), STEP),
    "strong_attacks.APGD": (None, dict(steps=3, loss="ce", restarts=1, start="uniform", momentum=.75, rho=.75, mode="eval"), STEP),
    "strong_attacks.APGDTargeted": (None, dict(steps=3, loss="dlr", restarts=1, start="uniform", momentum=.75, rho=.75, mode="eval", n_targets=2), STEP),
    "strong_attacks.FAB": (None, dict(steps=3, n_targets=2, restarts=1, pull=.1, beyond=1.05, back=.9, mode="eval"), dict(STEP, beyond=Kind((), (*WRONG, None, 1, 0, -1, 3)))),
    "strong_attacks.Square": (None, dict(queries=5, share=.8, mode="eval"), STEP),
    "strong_attacks.strong_attacks": (lambda **given: strong_attacks.strong_attacks(**given), dict(norm="inf", steps=3, queries=4, n_targets=2), dict(STEP, norm=NORM)),
    "evaluation.correct": (None, dict(model=NET, images=X, labels=Y, batch_size=5, device="cpu"), dict(SMALL, model=CLASSIFIER)),
    "evaluation.evaluate_robustness": (lambda attack, **given: evaluation.evaluate_robustness(attacks=attack, **given).worst, small(attacks.PGD(steps=2)), dict(SMALL, attack=Kind((lambda a: [a], lambda a: {"x": a}), (None, attacks.PGD, "pgd", 3, [], {})))),
    "lipschitz.local_lipschitz": (None, dict(model=NET, images=X, eps=.1, search=lipschitz.LocalLipschitz(steps=2), seed=0, first=0, batch_size=5, device="cpu"),
                                  dict(SMALL, model=SMOOTH, eps=RADIUS, search=only(None, lipschitz.LocalLipschitz))),
    "lipschitz.coordinate_lipschitz": (None, dict(model=NET, images=X[:4], eps=.1, search=lipschitz.LocalLipschitz(steps=1), seed=0, device="cpu"),
                                       dict(SMALL, model=SMOOTH, eps=RADIUS, search=only(None, lipschitz.LocalLipschitz))),
    "lipschitz.LocalLipschitz": (None, dict(steps=2, step=.2, p=1, q="inf", keep="best", variant="paper", normalise="none"),
                                 dict(STEP, p=Kind((lambda v: "L1", lambda v: 1.), ("x", "", None, 0, .5, True, math.nan, -1)), q=NORM, normalise=NAME)),
    "lipschitz.operator_norm": (None, dict(weight=P[:3], p=1, q="inf"), dict(weight=POINTS, p=Kind((lambda v: "L1",), ("x", None, 0, 3, math.nan)), q=NORM)),
    "lipschitz.norm_product": (None, dict(net=nn.Linear(4, 2), p=1, q="inf"), dict(net=only(None, nn.Conv2d(1, 1, 1)), p=Kind((), ("x", None, 0, 3, math.nan)), q=NORM)),
    "lipschitz.exact_lipschitz": (None, dict(net=nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), image=P[0], eps=.1, p=1),
                                  dict(net=only(None), image=Kind((torch.from_numpy, lambda a: a.tolist(), read_only), (None, "x", lambda a: a[:2], lambda a: a + 1, lambda a: a * math.nan)), eps=RADIUS, p=Kind((), ("x", None, 0, 3, math.nan)))),
    "masking.masking_report": (None, dict(model=NET, images=X[:3], labels=NET(torch.from_numpy(X[:3] / 255).float()).argmax(1), threat=T, attack=attacks.PGD(steps=1),
                                                            black_box=strong_attacks.Square(queries=1), radii=(.1,), limits={}, seed=0, batch_size=3, device="cpu"),
                               dict(SMALL, model=Kind(MODEL_SAME[:-1], (*MODEL_REFUSED, NoGraph())), seed=FROM_0, attack=ATTACK, black_box=only(attacks.PGD), radii=Kind((), (0, "x", [], [0], [2], [math.nan])), limits=Kind((), ({"x": 1}, {"train mode": math.nan}, "x", 3)), batch_size=MAYBE_COUNT)),
    **{f"methods.{m.__name__}": (m, dict(STRENGTHS, **more), STRENGTH) for m, more in ((methods.Natural, {}), (methods.AT, {}), (methods.RST, dict(lam=1.)), (methods.TRADES, dict(beta=6.)),
                                                                                      (methods.GR, dict(beta=.5, h=1., finite_difference=None)), (methods.LLR, dict(lam=4., mu=3.)))},
    "methods.make_method": (None, dict(name="trades", beta=6., variant="paper", dtype=None, label_smoothing=None), dict(STRENGTH, name=NAME, beta=MAYBE)),
    "fitting.fit": (fitted,
                    dict(data=DIGITS.take(train=20, test=10), method=methods.Natural(), recipe=recipes.Recipe(1, 1e-3), eps=.1, seed=0, device="cpu", ema=None, weight_decay=None, every=1e9),
                    dict(data=DATA, method=only(None, methods.Natural, "at"), recipe=only(None), eps=MAYBE_RADIUS, seed=FROM_0, device=Kind((), (*DEVICE.refuse, "meta")), ema=Kind((), (*WRONG, 1, 2, -1)),
                         weight_decay=Kind((), (*WRONG, -1, math.inf)), every=Kind((), (*WRONG, None, -1)))),
    "fitting.hold_out": (None, dict(data=test_arguments.DIGITS.take(train=200, test=10), share=.3, seed=0), dict(data=DATA, share=Kind((), (*WRONG, 0, 1, 2, -1)), seed=FROM_0)),
    "fitting.tensorboard": (tidied(lambda folder: fitting.tensorboard(folder) and None), dict(folder="x"), dict(folder=WRITTEN)),
    "recipes.Recipe": (None, dict(epochs=2, lr=.1, milestones=(1,), optimiser="sgd", momentum=.9, batch_size=3, reduction="sum", train=None, test=None, pgd_train=None, mt=None, precision="float32"),
                       dict(epochs=FROM_0, lr=POSITIVE, milestones=Kind((list,), (3, "x", None, (-1,), (.5,))), optimiser=NAME, momentum=Kind((), (*WRONG, None, -1, 2)), batch_size=COUNT, reduction=NAME, train=MAYBE_COUNT, test=MAYBE_COUNT, pgd_train=MAYBE_COUNT,
                            mt=MAYBE_COUNT, precision=NAME)),
    "recipes.find_recipe": (None, dict(profile="smoke", dataset="digits", method="at"), dict(profile=NAME, dataset=NAME, method=Kind((), (3, None, [])))),
    "recipes.find_proof_recipe": (None, dict(profile="smoke", dataset="digits"), dict(profile=NAME, dataset=NAME)),
    "recipes.stretched": (recipes.Recipe(2, .1, (1,)).stretched, dict(epochs=4), dict(epochs=COUNT)),
    "recipes.default_strengths": (None, dict(method="llr", dataset="digits"), {}),
    "recipes.find_dropout": (None, dict(dropout=.3, arch="CNN1"), dict(dropout=Kind((np.float64,), (*WRONG, 1, -1, math.inf)))),
    "recipes.Tools": (None, dict(weight_decay=.1, label_smoothing=.1, ema=.9, validation=.2, augment="crop"), dict(weight_decay=Kind((), (*WRONG, 0, -1, math.inf)), label_smoothing=Kind((), (*WRONG, 0, 1)),
                                                                                                                           ema=Kind((), (*WRONG, 0, 1)), validation=Kind((), (*WRONG, 0, 1)))),
    "recipes.find_augment": (None, dict(augment="crop", dataset="digits"), dict(augment=NAME)),
    "runs.RunName": (runs.RunName.parse, dict(path="smoke/digits/CNN1/at-seed0.json"), dict(path=Kind((Path,), ("x", "", 3, None, "a\0b", "smoke/digits/CNN1/at-seedx.json")))),
    "runs.number_text": (None, dict(value=.5), dict(value=Kind((np.float64,), ("x", None, [], object(), 1j)))),
    "runs.listed_rows": (None, dict(profile="smoke", datasets=None, studies=(), seeds=None), dict(profile=NAME, datasets=Kind((), (["x"], 3, "x")), studies=Kind((), (["x"], 3, "x")), seeds=Kind((), (["x"], 3, "x", [-1], [.5])))),
    "records.read_record": (None, dict(path=RECORD), dict(path=Kind((str,), (None, 3, "x", "", "a\0b", [], {}, math.nan, ".", "x" * 5000)))),
    "records.write_record": (tidied(lambda path, record: records.write_record(path, record)), dict(path="a.json", record=RUN), dict(path=Kind((Path,), (None, 3, "a\0b", [], {}, "x" * 5000)), record=Kind((dict, types.MappingProxyType), (None, 3, "x", {}, [], {"kind": "train"}, lacking("settings"), changed(settings={}), changed(metrics=3))))),
    "records.find_records": (None, dict(dataset="digits", kind="train", folders=(RECORD.parents[3],)), dict(dataset=Kind((), (None, 3, [], "a\0b")), kind=Kind((), (None, 3, [])), folders=Kind((), (3, None, "a\0b", ["a\0b"])))),
    **{f"comparison.{n}": (None, dict(settings=RUN["settings"], **({"attack": "pgd"} if n == "printed_row" else {})), dict(settings=SETTINGS, attack=NAME)) for n in ("printed_row", "comparable")},
    "comparison.beside_paper": (None, dict(record=RUN), dict(record=Kind(RUN_RECORD.same, (*RUN_RECORD.refuse, *METRICS)))),
    **{f"runs.{n}": (None, dict(settings=RUN["settings"]), dict(settings=SETTINGS)) for n in ("row_name", "row_label")},
    "runs.departures": (None, dict(settings=RUN["settings"], measurement=True), dict(settings=SETTINGS, measurement=Kind((), (None, 1, "x", [])))),
    "runs.run_name": (None, dict(settings=RUN["settings"], study="ledger"), dict(settings=SETTINGS, study=Kind((), (3, [], math.nan)))),
    "runs.RunName of a record": (runs.RunName.of, dict(record=RUN, name="record"), dict(record=RUN_RECORD)),
    "runs.setting_text": (None, dict(name="epochs", value=12), dict(name=Kind((), (3, None, [])), value=Kind((np.int64,), ([1], object(), "x", {})))),
    "runs.each_row": (lambda rows: list(runs.each_row(rows)), dict(rows=[{"seed": [0, 1]}]), dict(rows=Kind((tuple,), (3, None, "x", [3], {"a": 1})))),
    "ledger.metric": (None, dict(record=RUN, path=("adv_test_acc", "pgd")), dict(record=Kind((dict, types.MappingProxyType), (None, 3, "x", {}, [], lacking("metrics"), changed(metrics=None), changed(metrics=[]))), path=Kind((list,), (None, 3, {}, set())))),
    "measuring.subsets": (None, dict(data=DIGITS, recipe=recipes.Recipe(1, .1, mt=10)), dict(data=DATA, recipe=only(None))),
    "measuring.evaluate": (lambda model, data, recipe, eps, seed, device: measuring.evaluate(model, data, recipe=recipe, eps=eps, seed=seed, device=device, progress=False)[0]["test_acc"],
                           dict(model=nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval(), data=DIGITS.take(train=4, test=4), recipe=recipes.Recipe(1, .1, mt=2), eps=.1, seed=0, device="cpu"),
                           dict(model=Kind((), (None, 3, "x", nn.Linear)), data=DATA, recipe=only(None), eps=MAYBE_RADIUS, seed=Kind((), (None, "x", .5)), device=Kind((), ("x", "cuda:99", "", "meta", None)))),
    "records.environment": (None, dict(device="cpu"), dict(device=Kind((torch.device,), DEVICE.refuse))),
    "records.differences": (None, dict(old=RUN["settings"], new=RUN["settings"] | {"seed": 9}), dict.fromkeys(("old", "new"), Kind((dict, types.MappingProxyType), (None, 3, "x", [], [("a", 1)])))),
    "records.finished": (None, dict(path=RECORD, settings=RUN["settings"]), dict(path=Kind((str,), (None, 3, "a\0b", [], {})), settings=Kind((dict, types.MappingProxyType), (None, 3, "x", [])))),
    "records.save_weights": (tidied(lambda model, path: records.save_weights(model, path)), dict(model=NET, path="a"), dict(model=Kind((), (None, 3, "x", nn.Linear)), path=WRITTEN)),
    "records.load_trained": (lambda path: records.load_trained(path), dict(path=RECORD), dict(path=Kind((), (None, 3, "x", "", "a\0b", [])))),
    "publishing.publish": (lambda paths, runs, results: publishing.publish(paths, runs=runs, results=results), dict(paths=[], runs="_runs", results="results"),
                           dict(paths=Kind((), ("x", 3, None, [3], ["x"], ["a\0b"])), runs=Kind((), (None, 3, [], "a\0b")), results=Kind((), (None, 3, [], "a\0b")))),
    "publishing.clean_page": (None, dict(path=Path(__file__).parent.parent / "nbs" / "000b_files.ipynb"), dict(path=Kind((str,), (None, 3, "x", "", "a\0b", [])))),
    **{f"results.{n}": (getattr(results, n), dict(records=[RUN], attack="pgd"), dict(records=RUNS, attack=NAME)) for n in ("results_table", "against_paper")},
    "statistics.wilson": (None, dict(hits=3, n=7, z=1.96), dict(hits=FROM_0, n=COUNT, z=POSITIVE)),
    "statistics.upper_bound": (None, dict(k=1, n=7, confidence=.95), dict(k=FROM_0, n=COUNT, confidence=SHARE)),
    "statistics.half_width": (None, dict(percent=50., n=10), dict(percent=Kind((), (*WRONG, None, -1, 101, math.inf)), n=COUNT)),
    "statistics.difference_half_width": (None, dict(first=50., n_first=10, second=40., n_second=10), dict(first=Kind((), (*WRONG, None, -1, 101)), second=Kind((), (*WRONG, None, -1, 101)), n_first=COUNT, n_second=COUNT)),
    "statistics.example_spread": (None, dict(percent=50., n=10), dict(percent=Kind((), (*WRONG, None, -1, 101, math.inf)), n=COUNT)),
    "statistics.student": (None, dict(level=.95, degrees=3), dict(level=SHARE, degrees=COUNT)),
    "statistics.prediction_interval": (None, dict(values=[1., 2.], level=.95), dict(values=Kind((np.array, torch.tensor), (None, 3, "x", [1.], [1., math.nan], [1., math.inf], ["a", "b"])), level=SHARE)),
    "statistics.paired_difference": (None, dict(first=[1., 2.], second=[2., 4.], level=.95),
                                     {**dict.fromkeys(("first", "second"), Kind((np.array, torch.tensor), (None, 3, "x", [1.], [1., math.nan], ["a", "b"]))), "level": SHARE}),
    "statistics.holm": (None, dict(p_values=[.1, .2]), dict(p_values=Kind((np.array, torch.tensor), (None, 3, "x", [2.], [-.1], ["a"], [math.inf])))),
    "noise.counter_uniform": (None, dict(index=torch.arange(3), shape=(2,), seed=0, stream=0), dict(index=Kind((), (None, 3, "x", torch.zeros(2))), shape=Kind((list,), (3, "x", None, (-1,), (.5,))), seed=Kind((np.int64,), (*WRONG, None, .5, True, 10**30)), stream=Kind((), (None, .5, [], object(), torch.zeros(3))))),
    "noise.counter_normal": (None, dict(index=torch.arange(3), shape=(2,), seed=0, stream=0), dict(index=Kind((), (None, 3, "x", torch.zeros(2))), shape=Kind((list,), (3, "x", None, (-1,), (.5,))), seed=Kind((np.int64,), (*WRONG, None, .5, True, 10**30)), stream=Kind((), (None, .5, [], object(), torch.zeros(3))))),
    "noise.NoiseKey": (lambda index, seed, stream: noise.NoiseKey(index, seed, stream).uniform((2,)), dict(index=torch.arange(3), seed=0, stream=0), dict(index=Kind((), (None, 3, "x", torch.zeros(2))), seed=Kind((np.int64,), (*WRONG, None, .5, True, 10**30)))),
    "imagenet.restricted_imagenet": (None, dict(root="/nonexistent", download=False), dict(root=Kind((), (3, math.nan, [], "a\0b")))),
    "checkpoints.read_checkpoint": (None, dict(path="/nonexistent"), dict(path=Kind((), (None, 3, "", "a\0b", [])))),
    "checkpoints.load_checkpoint": (None, dict(path="/nonexistent", settings={}), dict(path=Kind((), (None, 3, "a\0b", [])))),
    "ledger.second_opinion": (None, dict(path="/nonexistent.json", examples=3, device="cpu"), dict(path=Kind((), (None, 3, "", "a\0b", [])), examples=COUNT, device=ANY)),
    "dropout.published_effects": (None, dict(dataset="mnist", attack="pgd"), dict(dataset=Kind((), (3, None, [])), attack=NAME)),
    "dropout.study_rows": (None, dict(dataset="digits", profile="smoke", study="dropout"), dict(dataset=NAME, profile=NAME, study=Kind((), ("x", " ", 3, [], None)))),
    "proof.relabelled": (None, dict(data=DIGITS, test_labels="random", seed=0), dict(data=DATA, test_labels=NAME, seed=FROM_0)),
    "proof.plan": (None, dict(dataset="digits", profile="smoke", test_labels="true", lam=2., epochs=3, eps=.1, precision="float32", restarts=1, seed=0, device="cpu", results="_runs"),
                   dict(dataset=NAME, profile=NAME, test_labels=NAME, lam=POSITIVE, epochs=MAYBE_COUNT, eps=MAYBE_RADIUS, precision=NAME, restarts=COUNT, seed=FROM_0, device=NAME)),
    "checks.as_array": (None, dict(values=P), dict(values=Kind(POINTS.same, NO_ARRAY))),
    "checks.check_images": (None, dict(images=X), dict(images=IMAGES)),
    "checks.check_labels": (None, dict(labels=Y, n=9), dict(labels=LABELS)),
    "checks.check_norm": (None, dict(norm="inf"), dict(norm=NORM)),
    "checks.check_eps": (None, dict(eps=.1, norm="inf"), dict(eps=RADIUS, norm=NORM)),
    "guard.frozen": (lambda model: list(guard.find_modules(guard.check_model(model))) and None, dict(model=NET), dict(model=Kind((), (None, 3, "x", nn.Linear)))),
    "adapters.from_examples": (None, dict(train=PAIRS_OF, test=PAIRS_OF[:3], eps=.1, picture="image", label="label"),
                               {**dict.fromkeys(("train", "test"), Kind((tuple, lambda v: [(torch.from_numpy(x), torch.tensor(y)) for x, y in v], lambda v: [{"image": x, "label": y} for x, y in v], lambda v: [(Image.fromarray(x[0]), np.int32(y)) for x, y in v]),
                                    (None, 3, "x", [], [3], [(1, 2)], [("x", 0)], [(X[0], "a")], [(X[0], 1.5)], [(X[0], -1)], [(X[0], None)], [(X[0], math.nan)], [(X[0] * math.nan, 1)], [{"image": X[0]}], {"a": 1}))), "eps": RADIUS}),
    "adapters.from_folder": (None, dict(folder=KEPT / "folder", eps=.1, size=3, test=.4, seed=0), dict(folder=Kind((str,), WHERE.refuse), eps=RADIUS, size=MAYBE_COUNT, test=Kind((np.float64,), (*WRONG, None, 0, -1, 1, 1.5, math.inf, True)), seed=FROM_0)),
    "readers.read_set": (None, dict(path=KEPT / "folder", labels=None, groups=None, columns={}, pattern=None, size=3, channels=3),
                         dict(path=Kind((str,), WHERE.refuse), labels=Kind((), (3, "x", [])), groups=Kind((), (3, "x", [])), columns=Kind((), ({"x": "y"}, 3, "x")), pattern=Kind((), ("(", "x", 3, [])), size=MAYBE_COUNT, channels=Kind((np.int64,), (0, 2, 4, None, "3", 1.5, True)))),
    "readers.read_set of arrays": (None, dict(path=KEPT / "x.npy", labels=KEPT / "y.npy", groups=KEPT / "y.npy"), dict(path=Kind((str,), WHERE.refuse), labels=Kind((str,), (None, 3, "x", [], "a\0b")), groups=Kind((str,), (3, "x", [], "a\0b")))),
    "readers.LabelledSet": (labelled, dict(images=X, labels=np.array(Y), classes=("a", "b", "c"), files=tuple("abcdefghi"), groups=np.array(list("gghhiijjk")), parts=None),
                            dict(images=Kind((torch.from_numpy, np.asfortranarray, read_only), IMAGES.refuse), labels=Kind((torch.tensor, list, tuple, lambda a: a.astype(np.int32)), (*NO_ARRAY, lambda a: a + .5, lambda a: a[:-1], lambda a: -a, lambda a: a + 1, lambda a: a[:, None])),
                                 classes=Kind((list,), (None, 3, ("a", "b"), ())), files=Kind((list,), (3, ("a",), [])), groups=Kind((list,), (3, ["a"], [])), parts=Kind((), (3, ["a"])))),
    "curation.curate": (lambda **given: curation.curate(**given).report, dict(data=SET, **CURATE),
                        dict(data=SET_KIND, radii=Kind((), ({}, {"x": 1}, {"inf": -1}, {"inf": math.nan}, {"inf": "x"}, {"inf": 2}, 3, "x", [])), eps=MAYBE_RADIUS, embedding=Kind((), (P, X, 3, "x")), review=COUNT, listed=FROM_0, draws=FROM_0, seconds=POSITIVE, memory=COUNT, threads=MAYBE_COUNT)),
    "curation.curate with features": (lambda embedding, radii: curation.curate(SET, **{**CURATE, "embedding": embedding, "radii": radii}).report, dict(embedding=P, radii={"embedding": .3}), dict(embedding=Kind(POINTS.same, (*POINTS.refuse, lambda a: a[:-1])), radii=Kind((), ({}, {"inf": .1}, {"embedding": -1}, {"embedding": math.inf})))),
    "curation_page.curation_page": (None, dict(data=SET, found=curation.curate(SET, **CURATE), title="t", thumbnails=True, most=3), dict(data=SET_KIND, found=only(None, {}), title=Kind((), (None, 3, b"x")), most=FROM_0)),
    "planting.plant": (None, dict(data=SET, each=1, seed=0), dict(data=SET_KIND, each=COUNT, seed=FROM_0)),
    "streaming.certify_separation": (None, dict(read=X.__getitem__, labels=np.array(Y), radius=.1, which="other", pixels=4, step=3, memory=2**24, threads=1),
                                     dict(read=only(None, X, len, *map(functools.partial, (lambda at: None, lambda at: X, lambda at: X[at] / 255, lambda at: X[at][:-1]))), labels=Kind(LABELS.same, LABELS.refuse[:19] + LABELS.refuse[20:]), radius=OWN_RADIUS, which=NAME, pixels=COUNT, step=COUNT, memory=COUNT, threads=MAYBE_COUNT)),
    "benchmarking.benchmark": (tidied(lambda **given: benchmarking.benchmark(progress=False, **given).robust), dict(model=NET, images=X, labels=Y, eps=.1, norm="inf", attacks=attacks.PGD(steps=1), masking=2, lipschitz=False, seed=0, batch_size=5, part=4, device="cpu", stochastic=False, save=None),
                               dict(SMALL, eps=RADIUS, norm=NORM, attacks=Kind((lambda a: [a], lambda a: {"x": a}), (None, attacks.PGD, "pgd", 3, [], {})), masking=FROM_0, part=COUNT, lipschitz=ANY, save=Kind((), (3, [], {}, math.nan, "", "a\0b")))),
    "radii.minimal_eps": (None, dict(model=NET, images=X, labels=Y, norm="inf", search=strong_attacks.FAB(steps=1, n_targets=2), seed=0, batch_size=5, device="cpu"), dict(SMALL, norm=NORM, search=only(None, strong_attacks.FAB, attacks.PGD()))),
    "radii.robust_curve": (None, dict(model=NET, images=X, labels=Y, attacks=attacks.PGD(steps=1), radii=[.05, .1], norm="inf", seed=0, batch_size=5, device="cpu"),
                           dict(SMALL, attacks=Kind((lambda a: [a], lambda a: {"x": a}), (None, attacks.PGD, "pgd", 3, [], {})), radii=Kind((tuple, np.array, torch.tensor), (None, 3, .1, "x", [], [.1, .05], [.1, .1], [0], [-1], [2], [math.nan], ["a"])), norm=NORM)),
    "radii.transfer": (lambda **given: radii.transfer(**given).worst, dict(source=NET, target=NET, images=X, labels=Y, attack=attacks.PGD(steps=1), eps=.1, norm="inf", seed=0, batch_size=5, device="cpu"), dict(SMALL, source=MODEL, target=CLASSIFIER, attack=ATTACK, eps=RADIUS, norm=NORM)),
    "evaluation.accuracy": (None, dict(model=NET, images=X, labels=Y, batch_size=5, device="cpu"), dict(SMALL, model=CLASSIFIER)),
    "evaluation.robust_accuracy": (None, dict(model=NET, images=X, labels=Y, attack=attacks.PGD(steps=1), eps=.1, norm="inf", seed=0, first=0, batch_size=5, device="cpu"),
                                   dict(SMALL, attack=Kind((lambda a: [a], lambda a: {"x": a}), (None, attacks.PGD, "pgd", 3, [], {})), eps=RADIUS, norm=NORM)),
    "evaluation.named_attacks": (lambda attacks: list(evaluation.named_attacks(attacks)), dict(attacks=attacks.PGD()), dict(attacks=Kind((lambda a: [a], lambda a: (a,), lambda a: {"pgd": a}), (None, attacks.PGD, "pgd", 3, [], {}, [None], {"a": 3})))),
    "evaluation.robust": (None, dict(small(attacks.PGD(steps=1))), dict(SMALL, attack=Kind((lambda a: [a],), ATTACK.refuse))),
    "strong_attacks.autoattack": (None, dict(norm="inf", version="standard", steps=3, queries=4, n_targets=2, draws=2), dict(STEP, norm=NORM, version=NAME, draws=COUNT)),
    "theory.linear_radius": (None, dict(points=P, labels=Y, weight=P[:3], bias=[0., .1, .2], p="inf"),
                             dict(points=POINTS, labels=LABELS, weight=Kind(POINTS.same[:5], (*POINTS.refuse, lambda a: a[:2], lambda a: a[:, :2])), bias=Kind((tuple, np.array, torch.tensor), (None, 3, "x", [1., 2.], [math.nan] * 3, [[0., .1, .2]], ["a"] * 3)), p=NORM)),
    "theory.weighted_accuracy": (None, dict(world=theory.WeakFeatures(4, .3, .1), weight=[0., 1.], eps=.1), dict(world=only(None), weight=Kind((tuple, np.array, torch.tensor), (None, "x", [-1.], [math.nan], [math.inf], ["a"], {}, object())), eps=OWN_RADIUS)),
    "runs.table_attack": (None, dict(number=2), dict(number=Kind((np.int64,), (*WRONG, None, 1, 5, 0, -1, 15, 2.5, True)))),
    "runs.table_row": (None, dict(number=2, row="AT, CNN1", dataset="mnist", dropout=0.), dict(number=Kind((np.int64,), (*WRONG, None, 1, 5, 0, -1, 15, 2.5, True)), row=Kind((str.lower, lambda r: r.replace(" ", "")), ("x", "", 3, None, [], b"x")), dataset=Kind((), ("x", 3, [], "digits")), dropout=Kind((), (*WRONG, -1, 2)))),
    "pictures.stack_pictures": (lambda files, size: pictures.stack_pictures(pictures.read_pictures([KEPT / "folder" / "a" / "0.png"] * 2), files, size=size), dict(files=["a", "b"], size=3), dict(files=Kind((tuple,), (None, 3, [], ["a"])), size=MAYBE_COUNT)),
    "checks.check_device": (lambda device: str(checks.check_device(device)), dict(device="cpu"), dict(device=Kind((torch.device,), DEVICE.refuse))),
    "checks.check_model": (None, dict(model=NET), dict(model=Kind((), (None, 3, "x", nn.Linear, [])))),
    "checks.to_float": (None, dict(images=X, device="cpu", dtype=torch.float32), dict(images=Kind((torch.from_numpy, np.asfortranarray, read_only, lambda a: a[::-1][::-1]), (None, "x", {}, object(), X.astype(np.int64), X.astype(complex), X.astype(str))), device=DEVICE, dtype=only(torch.int32))),
    "distances.as_rows": (None, dict(points=P, name="points"), dict(points=POINTS)),
    "distances.perturb": (None, dict(points=P, radius=.1, kind="squeeze", p="inf", towards=P[::-1].copy(), away=P, seed=0), dict(points=POINTS, radius=Kind((np.float64, lambda r: [r] * 9), (*WRONG[:7], None, -1, math.nan, math.inf, [.1], [-1] * 9)), kind=NAME, p=NORM, towards=Kind(POINTS.same, (*NO_ARRAY, None, P[:4], P * math.nan)),
                                                                                                                                     away=Kind(POINTS.same, (*NO_ARRAY, None, P[:4], P * math.nan)), seed=FROM_0)),
    "files.atomic_write": (tidied(files.atomic_write), dict(path="a", content="b"), dict(path=WRITTEN, content=Kind((str.encode,), (None, 3, math.nan, [1], object(), {"a": 1})))),
    "files.check_writable": (tidied(files.check_writable), dict(folder="a"), dict(folder=WRITTEN)),
    "files.results_folder": (None, dict(results="a"), dict(results=WRITTEN)),
    "files.lock": (tidied(locked), dict(path="a"), dict(path=WRITTEN)),
    "registry.imported": (None, dict(kind="network", place="robustacc.networks:CNN1"), dict(place=Kind((), (None, 3, "x", "", "x:y", "robustacc:x", "a\0b:c", ":", [], b"a:b", object())))),
    "registry.Registry": (lambda name, text: (registry.Registry("method", ["at"], check=lambda thing, what: None).register(name)(nn.Linear), registry.Registry("method", ["at"], check=lambda thing, what: None).find(text).name)[1], dict(name="own", text="at"),
                          dict(name=Kind((), ("", " ", "at", "AT", 3, None, [], "a/b", "../x", "a\0b", "\uff11", "a\n")), text=NAME)),
    "experiments.Trial": (None, dict(dataset="digits", method="at", n=64, eps=.1, width=1., noise=.1, kept="all", steps=3, seed=0, precision="float32"),
                          dict(dataset=NAME, method=NAME, n=COUNT, eps=RADIUS, width=Kind((np.float64,), (*WRONG, None, 0, -1, 9, True, math.inf)), noise=Kind((np.float64,), (*WRONG, None, -1, 2, True, math.inf)), kept=NAME, steps=COUNT, seed=FROM_0, precision=NAME)),
    "experiments.published_trials": (None, dict(kind="cost", dataset="digits", folders=(RECORD.parents[3],)), dict(kind=Kind((), (None, 3, [])), dataset=Kind((), (None, 3, [], "a\0b")), folders=Kind((list,), (3, None, "a\0b", ["a\0b"], [3])))),
    "rows.all_rows": (None, dict(records=[RUN]), dict(records=RUNS)),
    "rows.table_rows": (None, dict(number=2, rows=[]), dict(number=Kind((np.int64,), (*WRONG, None, 0, -1, 15, 2.5, True)), rows=Kind((tuple,), (3, None, [3], ["x"], [{}])))),
    "smoothness.orderings": (None, dict(rows=rows.all_rows([]), attack="pgd"), dict(rows=Kind((tuple, iter), (3, None, [3], ["x"], [{}])), attack=NAME)),
    "verdicts.pooled_spread": (None, dict(column="test_acc", rows=[[1., 2.], [3., 4., 5.], [5., 6., 8.]]), dict(column=NAME, rows=Kind((tuple, lambda v: [np.array(r) for r in v], lambda v: map(tuple, v)), (None, 3, "x", [3], ["ab"], [[1., math.nan]], [[1., 101.]], [[1., None]], [["a", "b"]])))),
    "verdicts.judge": (None, dict(column="test_acc", values=[50., 51.], printed=52., spread=verdicts.pooled_spread("test_acc", [[50., 51., 52.], [60., 61., 62., 63.]]), columns=3, n=100, n_printed=1000),
                       dict(column=NAME, values=PERCENTS, printed=Kind((np.float64,), (*WRONG, None, -1, 101, True)), spread=only(None), columns=COUNT, n=MAYBE_COUNT, n_printed=MAYBE_COUNT)),
    "train.Settings": (lambda **given: train.plan(train.Settings(**given)).settings, ROW, ROW_KINDS),
    "train.plan": (lambda settings, **given: train.plan(settings, **given).settings, dict(settings=train.Settings(), seed=0, method="at"), dict(settings=only(None, {}), seed=FROM_0, method=NAME)),
    "train.run": (tidied(lambda settings, every: train.run(settings, every=every, progress=False)), dict(settings=train.Settings(method="at", device="cpu", results=str(RECORD.parents[3])), every=60.), dict(settings=only(None, {}), every=Kind((), (*WRONG, None, -1, math.inf)))),
    "train.find_device": (None, dict(device="cpu"), dict(device=DEVICE)),
    "proof.Settings": (lambda **given: proof.plan(proof.Settings(**given)).settings, dict(dataset="digits", profile="smoke", test_labels="true", lam=2., epochs=3, eps=.1, precision="float32", restarts=1, seed=0, device="cpu", results="_runs"),
                       dict(dataset=NAME, profile=NAME, test_labels=NAME, lam=POSITIVE, epochs=MAYBE_COUNT, eps=MAYBE_RADIUS, precision=NAME, restarts=COUNT, seed=FROM_0, device=NAME)),
}


def function_of(name: str):
    "The function of an entry: that of its name, wherever no other is given; an inner one has an underscore."
    module, _, attribute = name.split()[0].partition(".")
    module = importlib.import_module(f"robustacc.{module}")
    return FUNCTIONS[name][0] or getattr(module, attribute, None) or getattr(module, "_" + attribute)


def equal(a, b) -> bool:
    "Whether two results say the same; numbers to eight digits."
    if isinstance(a, dict) and isinstance(b, dict): return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)): return len(a) == len(b) and all(map(equal, a, b))
    if dataclasses.is_dataclass(a): return type(a) is type(b) and all(equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, nn.Module) or callable(a): return type(a) is type(b)
    try: return bool(np.allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-5, atol=1e-7, equal_nan=True))
    except (TypeError, ValueError, RuntimeError): return str(a) == str(b)


def damaged(rng: random.Random, value):
    "A value near the valid one that nobody foresaw."
    if isinstance(value, bool) or value is None: return rng.choice([value, str(value), int(bool(value)) + 2])
    if isinstance(value, (int, float)): return rng.choice([value * 10.**rng.randint(-320, 300), -value, str(value), value + rng.uniform(-1, 1) * 10.**rng.randint(-9, 9), int(rng.uniform(-10, 10) * 10**rng.randint(0, 25)), np.float16(min(value, 60000)), torch.tensor(float(value))])
    if isinstance(value, str): return rng.choice([value.upper(), value + " ", value[:-1], value[::-1], value + "\0", value * 500, value.encode(), "".join(rng.sample(value, len(value))) + rng.choice("é/.$\n")])
    if isinstance(value, np.ndarray) and value.dtype.kind == "U": return rng.choice([value[:-1], value[:, None], np.char.add(value, "\0"), value.astype("S"), np.where(np.arange(len(value)) == 1, "", value), value.astype(object)])
    if isinstance(value, np.ndarray): return rng.choice([value * 1e300, -value.astype(float), value[..., None], value.ravel(), value[:1], value.astype(np.float16), value.astype(object), value.astype("M8[s]") if value.dtype.kind == "i" else value > 0, value.T])
    if isinstance(value, (list, tuple)): return rng.choice([value[:-1], [*value, None], [value], [-1 for _ in value], value * 2, str(value)])
    return rng.choice(EVERYTHING)


def short(value) -> str:
    try: return f"{type(value).__name__} {' '.join(repr(value).split())}"[:70]
    except Exception: return type(value).__name__


def said_by_name(error: Exception, key: str, value) -> bool:
    "Whether an error names the parameter, or the value, or its type."
    text, near = str(error).lower().replace("_", " "), ALIASES.get(key, ())
    words = [*key.lower().split("_"), key.rstrip("s"), *near, type(value).__name__.lower(), str(value)[:30].lower(), repr(value)[:30].lower()]
    return "unexpected keyword argument" in text or any(word and word.replace("_", " ") in text for word in words)


ALIASES = {"settings": ("profile", "method"), "source": ("model", "logits"), "target": ("model", "logits"), "points": ("weight", "images", "queries", "towards"), "weight": ("matrix", "bias"), "classes": ("label",), "read": ("images",), "found": ("report",), "hyper": ("method",), "towards": ("points",), "away": ("points",), "dataset": ("data set",), "examples": ("no such file",), "model": ("logits", "gradient", "classified"), "radii": ("eps", "radius", "distance"), "limits": ("limit", "check"), "net": ("linear, relu",), "queries": ("points", "images"), "reference": ("points", "images", "queries"), "fresh": ("points", "queries", "images"), "n": ("images",), "hits": ("n ",),
           "attack": ("returned", "attacks"), "images": ("shape", "queries", "labels"), "labels": ("images",), "query_labels": ("images",), "reference_labels": ("images",), "first": ("index", "values", "percent"), "second": ("values", "percent"), "records": ("record",), "path": ("file", "record"), "paths": ("runs", "record", "file"),
           "step": ("steps",), "k": ("pairs",), "eps": ("radius",), "index": ("int64",), "dtype": ("mode",), "start": ("restarts",), "restarts": ("start",), "folders": ("path",), "z": ("n ",), "data": ("dataset",), "datasets": ("data set",), "studies": ("study",), "name": ("method",), "share": ("validation",), "n_first": ("n ",), "n_second": ("n ",)}


def judge(function, call: dict, key: str, value, expected: str, right) -> tuple[str, str | None]:
    "What became of one value (right, refused by name, warned of, or used as it is), and what is wrong with that, if anything."
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try: found = function(**(call | {key: value}))
        except (ValueError, TypeError, OSError, ImportError) as error:
            if expected == "same": return "refused", f"refused, though it means the same: {error}"[:150]
            if isinstance(right, ImportError) and str(error) == str(right): return "refused", None if expected == "either" else "not refused: " + str(error)
            return "refused", None if said_by_name(error, key, value) else f"refused without its name: {type(error).__name__}: {error}"[:150]
        except Exception as error: return "refused", f"{type(error).__name__}: {error}"[:150]
    became = "right" if expected == "same" else "warned" if [w for w in warned if issubclass(w.category, UserWarning)] else "used"
    if expected == "same" and not equal(right, found): return became, f"another result: {short(found)}"
    return became, f"not refused: {short(found)}" if expected == "refuse" and became != "warned" else None


def faults(name: str) -> tuple[list[str], Counter]:
    "All that is wrong with a function, and how many values had each outcome."
    function, (_, call, kinds) = function_of(name), FUNCTIONS[name]
    rng, wrong, outcomes = random.Random(f"{SEED} {name}"), [], Counter()
    try: right = function(**call)
    except (OSError, ImportError) as error: right = error                     # a file or a library that is not there
    for key, valid in call.items():
        kind = kinds.get(key, ANY)
        tried = [("same", make(valid), i) for i, make in enumerate(kind.same)] if not isinstance(right, Exception) and valid is not None else []
        tried += [("refuse", v(valid) if inspect.isfunction(v) and v.__module__ == __name__ and v not in NO_ARRAY else v, i) for i, v in enumerate(kind.refuse)]
        tried += [("either", v, i) for i, v in enumerate(EVERYTHING)] + [("either", damaged(rng, valid), i) for i in range(8)]
        for expected, value, i in tried:
            became, fault = judge(function, call, key, value, expected, right)
            outcomes["wrong" if fault else became] += 1
            if fault: wrong.append(f"{key} = {short(value)} [{expected} {i}]: {fault}")
    return wrong, outcomes


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTACC_DATA", "/nonexistent")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_value_is_right_refused_by_name_or_warned_of(name, empty_folder, record_property):
    wrong, outcomes = faults(name)
    record_property("outcomes", dict(outcomes))                               # conftest.py prints their sums
    assert not wrong, f"{len(wrong)} of {outcomes.total()} values:\n" + "\n".join(wrong[:60])
    assert outcomes.total() >= LEAST
    assert list(empty_folder.iterdir()) == []


def test_no_public_function_is_left_out():
    here = {getattr(importlib.import_module(f"robustacc.{module}"), attribute, None) for module, attribute in (name.split()[0].split(".", 1) for name in FUNCTIONS)}
    there = {name.split(".")[0] for name in test_arguments.FUNCTIONS} | {"method_label", "label_order", "published_label", "solve"}
    assert APART.keys() < {m.name for m in pkgutil.iter_modules(robustacc.__path__)} and BLOCKS.keys() <= set(MODULES)
    assert not [f"{module}.{n}" for module, names in BLOCKS.items() for n in names.split() if n not in importlib.import_module(f"robustacc.{module}").__all__]
    left = []
    for module in MODULES:
        m = importlib.import_module(f"robustacc.{module}")
        public = {n for n in m.__all__ if callable(getattr(m, n)) and not n.isupper()} - {"main"}  # test_fuzz.py tries the commands
        left += sorted(f"{module}.{n}" for n in public - there - set(BLOCKS.get(module, "").split()) if getattr(m, n) not in here)
    assert not left


if __name__ == "__main__":                                                    # the list of results
    import faulthandler
    import sys
    total = Counter()
    os.chdir(folder := tempfile.mkdtemp())
    os.environ["ROBUSTACC_DATA"] = "/nonexistent"
    for name in [n for n in FUNCTIONS if not sys.argv[1:] or n.startswith(tuple(sys.argv[1:]))]:
        faulthandler.dump_traceback_later(240, exit=True)
        wrong, outcomes = faults(name)
        total += outcomes
        print(f"{name}: {outcomes.total()} values, {dict(outcomes)}", flush=True)
        for line in wrong: print("   ", line)
    print(len(FUNCTIONS), "functions,", total.total(), "values:", dict(total), "; files left:", os.listdir(folder))
    shutil.rmtree(folder)
