"""Bad values for every public function of the low chapters: each call works, or raises ValueError or OSError with a text.

The values are the same for all; some are legal for some functions. Whether a legal value gives the right number is tested elsewhere."""
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustacc import augmentation, distances, networks, paper, pictures, staircase, theory
from robustacc.data import Data, batches, load

DIGITS = load("digits")
BAD = [None, True, 0, -1, 1, 2, .5, math.nan, math.inf, -math.inf, 10**30, 10**400, 1e-300, "", "x", "3", "\uff11", "inf", b"x", [], [0], [[1]], (1, 2), {}, {"a": 1},
       set(), object(), np.array(3), np.zeros((2, 2)), np.zeros((2, 3, 3), np.uint8), np.array(["a"]), torch.zeros(2), torch.zeros(2, requires_grad=True), np.float32(.3),
       np.int64(2), 1j, Path("/nonexistent"), DIGITS, DIGITS.train, lambda x: x, slice(3), -0., "a\0b", iter([1]), np.array([None]), np.datetime64("2020-01-01"), range(3)]
X, Y = np.where(np.arange(4) % 2, 9, 0).astype(np.uint8).reshape(4, 1, 1, 1) + np.zeros((1, 1, 6, 6), np.uint8), [0, 1, 0, 1]
POINTS, LABELS = np.random.default_rng(0).random((6, 2)), [0, 1, 0, 1, 0, 1]
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4), np.uint8)
MARGINS = theory.class_margins(IMAGES[:3], IMAGES, LABELS)
NEAREST = theory.ClassDistance(distances.by_class(POINTS, LABELS), .01)
SAMPLE = staircase.draw(12, 1)
BATCH, DRAWS, AUGMENT = torch.zeros(2, 1, 6, 6), torch.rand(2, 3, dtype=torch.float64), augmentation.Augment(1, 4)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "a.png"
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(path)
    return path


def first(**given): return next(batches(**given), None)


FUNCTIONS = {  # a function, and arguments that are right; each is replaced in turn
    "from_arrays": (Data.from_arrays, dict(train_images=X, train_labels=Y, test_images=X, test_labels=Y, eps=.1, n_classes=2, name="own", classes=("a", "b"), augment=None)),
    "Split.take": (lambda which: DIGITS.train.take(which), dict(which=3)),
    "Split.stratified": (lambda n, seed: DIGITS.train.stratified(n, seed=seed), dict(n=3, seed=0)),
    "Data.take": (lambda train: DIGITS.take(train=train), dict(train=3)),
    "batches": (first, dict(split=DIGITS.train.take(8), batch_size=4, device="cpu", seed=0, epoch=0, augment=None, start=0)),
    "load": (lambda name, root: load(name, root=root, download=False), dict(name="mnist", root="/nonexistent")),
    "Augment": (augmentation.Augment, dict(padding=1, size=4, flip=False, cutout=0)),
    "crop_and_flip": (augmentation.crop_and_flip, dict(images=BATCH, draws=DRAWS, augment=AUGMENT)),
    "cut_out": (augmentation.cut_out, dict(images=BATCH, draws=DRAWS[:, :2], side=2)),
    "read_picture": (pictures.read_picture, dict(path=None, size=None, channels=3, upright=True, background="white")),
    "read_pictures": (lambda paths: list(pictures.read_pictures(paths)), dict(paths=[])),
    "picture_files": (pictures.picture_files, dict(folder="/nonexistent")),
    "read_folder": (pictures.read_folder, dict(folder="/nonexistent", size=4)),
    "build": (networks.build, dict(arch="CNN1", in_shape=(1, 8, 8), n_classes=2, dropout=0)),
    "WideResNet": (networks.WideResNet, dict(in_shape=(1, 8, 8), n_classes=2, dropout=0, depth=10, width=1)),
    "robustbench_weights": (networks.robustbench_weights, dict(state={})),
    "table": (paper.table, dict(number=1)),
    "published_row": (paper.published_row, dict(dataset="mnist", arch="CNN1", label="AT", attack="pgd", dropout=False)),
    "separation_row": (paper.separation_row, dict(dataset="mnist")),
    "labels of rows": (lambda label: (paper.label_order(label), paper.published_label(label)), dict(label="AT")),
    "method_label": (lambda beta: paper.method_label("AT", beta=beta), dict(beta=1)),
    "by_class": (distances.by_class, dict(points=POINTS, labels=LABELS)),
    "class_distances": (distances.class_distances, dict(points=POINTS, samples=[POINTS], p=2)),
    "separation_radius": (distances.separation_radius, dict(samples=[POINTS, POINTS + 2], p=2)),
    "ClassDistance": (theory.ClassDistance, dict(samples=[POINTS], r=1., p=2)),
    "ClassDistance.margin": (NEAREST.margin, dict(points=POINTS, labels=LABELS)),
    "check_lemma": (theory.check_lemma, dict(classifier=NEAREST, points=POINTS, labels=LABELS, tries=1, seed=0)),
    "astute": (theory.astute, dict(g=NEAREST.g, points=POINTS, labels=LABELS, radius=.1, tries=1, p=2, towards=None, away=None, seed=0)),
    "spiral": (theory.spiral, dict(n=4, form="antipodal", span=(1, 4), noise=.1, seed=0)),
    "spiral_support": (theory._spiral_support, dict(span=(1.5, 9), noise=.1, grid=50)),
    "class_margins": (theory.class_margins, dict(queries=IMAGES[:3], reference=IMAGES, reference_labels=LABELS, p=math.inf)),
    "falsify": (theory._falsify, dict(queries=IMAGES[:3], margins=MARGINS, reference=IMAGES, reference_labels=LABELS, scale=1, draws=1, seed=0)),
    "certified_accuracy": (theory._certified_accuracy, dict(margins=MARGINS, labels=LABELS[:3], radii=[.1])),
    "withstood": (theory._withstood, dict(queries=IMAGES[:3], labels=LABELS[:3], margins=MARGINS, reference=IMAGES, reference_labels=LABELS, levels=[1], draws=1, seed=0)),
    "box_certified": (theory._box_certified, dict(queries=IMAGES[:3], margins=MARGINS, reference=IMAGES, reference_labels=LABELS, eps=.1)),
    "WeakFeatures": (lambda n_weak, mean, flip: theory.WeakFeatures(n_weak, mean, flip).sample(3), dict(n_weak=2, mean=.3, flip=.1)),
    "draw": (lambda n, seed: staircase.draw(min(n, 99) if type(n) is int else n, seed), dict(n=5, seed=1)),
    "strengths": (lambda beta, variant: (staircase.TRADES(beta=beta), staircase.GR(variant)), dict(beta=1., variant="paper")),
    "solve": (staircase.solve, dict(method=staircase.Natural(), sample=SAMPLE, ridge=.1, tau=.1)),
    "spline": (staircase.spline, dict(x=[0.], derivative=0)),
    "measure": (staircase.measure, dict(theta=np.zeros(34), sample=SAMPLE)),
    "case_name": (staircase._case_name, dict(method=staircase.AT(), ridge=.1)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_bad_value_is_answered_by_name(name, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTACC_DATA", "/nonexistent")
    function, right = FUNCTIONS[name]
    right = {key: picture if key == "path" else value for key, value in right.items()}
    wrong = []
    for key in right:
        for value in BAD:
            if key in ("g",): continue
            try: function(**(right | {key: value}))
            except (ValueError, OSError) as error:
                if not str(error): wrong.append((key, repr(value)[:60], "no text"))
            except Exception as error: wrong.append((key, repr(value)[:60], f"{type(error).__name__}: {error}"[:120]))
    assert not wrong, "\n".join(map(str, wrong))
    assert list(tmp_path.iterdir()) == []
