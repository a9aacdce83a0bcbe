"""The proof of concept: what is trained on, what cannot be fitted, and that nothing else is claimed."""
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robustacc.attacks import PGD, Threat
from robustacc.evaluation import robust
from robustacc.augmentation import Augment, Ragged
from robustacc.data import Data, Split
from robustacc.methods import RST
from robustacc.proof import _beside_paper, _ceiling, _conflicts, _disjoint, _halfway, plan, relabelled, run, union, _watching
from robustacc.publishing import publish
from robustacc.records import find_records
from robustacc.fitting import fit
from robustacc.recipes import PROOF_PROFILES, Recipe


def noise(n_train, n_test, seed=0, shape=(1, 4, 4), n_classes=3):
    "Images of noise with random labels: far apart, and nothing to be learned."
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n_train + n_test, *shape), dtype=np.uint8)
    labels = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n_train + n_test - n_classes)])
    return Data.from_arrays(images[:n_train], labels[:n_train], images[n_train:], labels[n_train:], eps=.1, n_classes=n_classes)


def fitted(data, epochs=150, seed=0):
    "A small network trained on the union, the union, and who holds under attack."
    torch.manual_seed(seed)
    net, both = nn.Sequential(nn.Flatten(), nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 3)), union(data)
    recipe = Recipe(epochs, 5e-3, (epochs * 2 // 3,), optimiser="adam", reduction="mean", batch_size=16)
    fit(net, replace(data, train=both), RST(lam=2.), recipe=recipe, progress=False)
    return net, both, robust(net, both.images, both.labels, PGD(restarts=3), Threat(data.eps))


def test_the_union_is_train_then_test_and_random_labels_touch_nothing_else():
    data = noise(30, 3000)
    for labels in ("true", "random"):
        changed = relabelled(data, labels, seed=3)
        both = union(changed)
        np.testing.assert_array_equal(both.images, np.concatenate([data.train.images, data.test.images]))
        np.testing.assert_array_equal(both.labels[:30], data.train.labels)
        np.testing.assert_array_equal(both.labels[30:], changed.test.labels)
        assert changed.test.images is data.test.images and changed.train is data.train
        assert (both.images.dtype, both.labels.dtype) == (np.uint8, np.int64)
    random = [relabelled(data, "random", seed=k).test.labels for k in (3, 3, 4)]
    np.testing.assert_array_equal(random[0], random[1])
    assert (random[0] != random[2]).mean() > .5
    counts = np.bincount(random[0], minlength=3)
    assert (np.square(counts - 1000) / 1000).sum() < 13.8                     # chi-squared with 2 degrees of freedom: once in a thousand
    table = np.histogram2d(random[0], data.test.labels, bins=3)[0]
    expected = np.outer(table.sum(1), table.sum(0)) / 3000
    assert (np.square(table - expected) / expected).sum() < 18.5              # independent of the true labels: 4 degrees of freedom


def test_images_that_are_cropped_in_training_are_refused():
    data = noise(6, 3)
    ragged = Ragged(np.zeros(6 * 16, np.uint8), np.arange(6) * 16, np.full((6, 2), 4))
    with pytest.raises(ValueError, match="arrays.*training crops"): union(replace(data, train=replace(data.train, ragged=ragged), augment=Augment(0, 4)))


@pytest.mark.parametrize("seed", range(6))
def test_the_ceiling_is_a_bound_on_every_subset_without_conflict(seed):
    rng = np.random.default_rng(seed)
    points, labels, eps = rng.random((12, 1, 1, 2)), rng.integers(0, 3, 12), (.05, .1, .15)[seed % 3]
    far = np.abs(points.reshape(12, 1, 2) - points.reshape(1, 12, 2)).max(2)
    wanted = {(i, j) for i, j in itertools.combinations(range(12), 2) if labels[i] != labels[j] and far[i, j] <= 2 * eps}
    found = _conflicts(Split(points, labels), eps)
    assert set(zip(found.first.tolist(), found.second.tolist())) == wanted
    best = max(bin(kept).count("1") for kept in range(2**12) if not any(kept >> i & kept >> j & 1 for i, j in wanted))
    assert best <= 12 * _ceiling(found, 12) / 100 + 1e-9
    assert bool(wanted) == (_disjoint(found) > 0)
    ends = [i for pair in wanted for i in pair]
    if len(set(ends)) == len(ends): assert best == round(12 * _ceiling(found, 12) / 100)


def test_noise_is_fitted_robustly_where_it_is_separated():
    data = noise(30, 12)
    assert not len(_conflicts(union(data), data.eps).first)
    assert fitted(data)[2].all()


def test_no_training_fits_a_conflict():
    data = noise(30, 12)
    images, labels = data.test.images.copy(), data.test.labels.copy()
    images[0], labels[0] = data.train.images[5], (data.train.labels[5] + 1) % 3
    images[1], labels[1] = np.clip(data.train.images[7].astype(int) + 40, 0, 255), (data.train.labels[7] + 1) % 3
    data = replace(data, test=Split(images, labels))
    both = union(data)
    pairs = _conflicts(both, data.eps)
    assert set(zip(pairs.first.tolist(), pairs.second.tolist())) == {(5, 30), (7, 31)} and _ceiling(pairs, 42) == pytest.approx(100 * 40 / 42)
    net, both, holds = fitted(data)
    middle = _halfway(net, both, pairs)
    assert (holds & middle).sum() <= 40 and not (middle[5] and middle[30]) and not (middle[7] and middle[31])
    others = np.setdiff1d(np.arange(42), [5, 30, 7, 31])
    assert holds[others].all() and middle[others].all()


def test_watching_changes_nothing():
    data = noise(30, 12)
    nets = []
    for callbacks in ([], [_watching({"train": data.train, "test": data.test}, Threat(data.eps))]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        history = fit(net, data, RST(), recipe=Recipe(3, .01), callbacks=callbacks, progress=False)
        nets.append(net[1].weight.detach())
    assert (nets[0] == nets[1]).all()
    assert all(h["adv_test_acc"] <= h["seen_test_acc"] for h in history) and len(history) == 3


@pytest.mark.parametrize("given,said", [
    (("--dataset", "mnits"), "did you mean 'mnist'? Allowed: digits, mnist, svhn, cifar10"),
    (("--dataset", "resimagenet"), "Allowed: digits, mnist, svhn, cifar10"),
    (("--dataset", "cifar10", "--profile", "quick"), "Allowed: mnist"),
    (("--test_labels", "shuffled"), "Allowed: true, random"),
    (("--lam", "-1"), "lam -1.0: it must be 0 or more"),
    (("--epochs", "0"), "epochs 0: it must be an integer of 1"),
    (("--restarts", "1.5"), "restarts 1.5"),
    (("--eps", "2"), "eps 2.0: it must be above 0"),
])
def test_wrong_settings_end_before_any_work(command, tmp_path, given, said):
    code, output = command("robustacc.proof:main", given)
    assert code == 2 and said in output and "Traceback" not in output
    assert not list(tmp_path.iterdir())


def test_a_record_is_found_by_its_kind_only_and_is_published_where_it_lay(tmp_path, monkeypatch):
    import robustacc.proof as proof
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PROOF_PROFILES, "tiny", {"digits": ("CNN2", 0., Recipe(1, 1e-3, train=20, test=10, mt=2, optimiser="adam", reduction="mean"))})
    record = run(profile="tiny", device="cpu", progress=False)
    path = plan(profile="tiny", device="cpu").path
    assert path == tmp_path / "_runs/tiny/digits/CNN2/proof/rst-lambda2-true-seed0.json" and json.loads(path.read_text()) == record
    found, = find_records("digits", kind="proof")
    assert found["metrics"] == record["metrics"] and find_records("digits") == []
    done, = publish([path], allow_dirty=True)
    assert done.relative_to(tmp_path).as_posix() == "results/tiny/digits/CNN2/proof/rst-lambda2-true-seed0.json"
    assert [row["whose"] for row in _beside_paper([record])] == ["ours (tiny), true test labels"]
    again = run(profile="tiny", device="cpu", progress=False, results="elsewhere")
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in record.items() if k != "seconds"}
    other = run(profile="tiny", device="cpu", progress=False, results="elsewhere", seed=1)
    assert other["metrics"] != record["metrics"] or other["history"] != record["history"]


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["digits", "mnist", "svhn", "cifar10"])
def test_the_page_runs_for_each_data_set_without_training(python, root, tmp_path, dataset):
    done = python("-m", "papermill", root / "nbs" / "08_proof_of_concept.ipynb", tmp_path / "out.ipynb", "-p", "dataset", dataset, "-p", "seed", 77)
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path / "out.ipynb").read_text()
    assert f"python -m robustacc.proof --dataset {dataset}" in page and "2 of 2 runs of this page" in page


@pytest.mark.slow
@pytest.mark.parametrize("given,said", [(("dataset", "resimagenet"), "Allowed: digits, mnist, svhn, cifar10"), (("contol", "False"), "did you mean 'control'"),
                                        (("seed", "1.5"), "seed 1.5"), (("seeds", "0"), "seeds 0: it must be"), (("epochs", "0"), "epochs 0: it must be")])
def test_the_page_refuses_wrong_parameters(python, root, tmp_path, given, said):
    done = python("-m", "papermill", root / "nbs" / "08_proof_of_concept.ipynb", tmp_path / "out.ipynb", "-p", *given)
    assert done.returncode != 0 and said in done.stderr and not (tmp_path / "_runs").exists()
