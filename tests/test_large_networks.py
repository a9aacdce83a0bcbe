"""The paper's two large networks on real pictures, as far as a processor gets: they learn eight by heart, and the loss of AT falls.

Needs CIFAR-10 and pictures of ImageNet's nine groups below `ROBUSTACC_DATA`; what isn't there is skipped.
"""
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import update_bn

from robustacc.checks import to_float
from robustacc.data import Split, load
from robustacc.evaluation import correct
from robustacc.fitting import fit
from robustacc.methods import AT, Natural
from robustacc.networks import build
from robustacc.recipes import Recipe

pytestmark = pytest.mark.slow


@pytest.fixture(params=[("WRN-40-10", "cifar10"), ("ResNet50", "resimagenet")], ids=lambda pair: pair[0])
def large(request):
    "A large network with fresh weights, and its data set."
    arch, name = request.param
    if not os.environ.get("ROBUSTACC_DATA"): pytest.skip("ROBUSTACC_DATA is not set")
    try: data = load(name, download=False)
    except FileNotFoundError as error: pytest.skip(str(error).splitlines()[0])
    torch.manual_seed(0)
    return build(arch, in_shape=data.in_shape, n_classes=data.n_classes), data


def first_of_each_class(data, n):
    "The first training image of each of the first `n` classes, as it is stored, to train and to test on."
    few = data.train.take(np.array([np.flatnonzero(data.train.labels == label)[0] for label in range(n)]))
    few = Split(few.images, few.labels)
    return replace(data, train=few, test=few, augment=None)


def test_eight_images_are_learned_by_heart(large):
    """Fresh, it guesses; after 20 steps on them it must know all eight, in evaluation mode and with a small loss.

    The running averages of batch norm start at variance 1 and lag behind so short a training; they are taken anew from the eight.
    """
    network, data = large
    data = first_of_each_class(data, 8)
    before = correct(network.eval(), data.train.images, data.train.labels).mean()
    history = fit(network, data, Natural(), recipe=Recipe(20, 1e-4, optimiser="adam", batch_size=8, reduction="mean"), seed=0, progress=False)
    update_bn([to_float(data.train.images)], network)
    assert before <= .5
    assert correct(network, data.train.images, data.train.labels).all()
    assert history[-1]["loss"] < .1 < history[0]["loss"]


def test_the_loss_of_at_falls_over_five_batches(large):
    "Five steps on the same four images: gradients of the attacked loss must lead down it."
    network, data = large
    data = first_of_each_class(data, 4)
    history = fit(network, data, AT(), recipe=Recipe(5, 1e-4, optimiser="adam", batch_size=4, reduction="mean"), seed=0, progress=False)
    assert len(history) == 5
    assert history[-1]["loss"] < .8 * history[0]["loss"]
