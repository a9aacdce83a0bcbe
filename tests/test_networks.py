"The networks against independent peers."
import pytest
import torch
from torch import nn

from robustacc.networks import ARCHS, build


def shake(model: nn.Module) -> None:
    "Give every batch norm statistics and weights that show when they are left out."
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, .5, 2)
            nn.init.normal_(layer.running_mean, std=.1)
            nn.init.uniform_(layer.weight, .5, 1.5)
            nn.init.normal_(layer.bias, std=.1)


@pytest.mark.parametrize("size", [64, 33])
@torch.no_grad()
def test_resnet50_is_torchvisions(size):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(num_classes=9)
    shake(theirs)
    ours = build("ResNet50", in_shape=(3, size, size), n_classes=9, dropout=0)
    ours.load_state_dict(theirs.state_dict())  # every name, every shape
    x = torch.rand(3, 3, size, size)
    for mode in (False, True):  # running statistics, then those of the batch
        expected = theirs.train(mode)(x)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours.train(mode)(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_small_networks_are_their_layers_in_a_row():
    torch.manual_seed(0)
    x = torch.rand(4, 1, 28, 28)
    cnn1, cnn2 = build("CNN1").eval(), build("CNN2").eval()
    nn.init.normal_(cnn2.fc3.weight)
    row = nn.Sequential(cnn1.conv1, nn.ReLU(), cnn1.conv2, nn.MaxPool2d(2), nn.Flatten(), cnn1.fc1, nn.ReLU(), cnn1.fc2)
    torch.testing.assert_close(cnn1(x), row(x))
    row = nn.Sequential(cnn2.conv1, nn.ReLU(), cnn2.conv2, nn.ReLU(), nn.MaxPool2d(2), cnn2.conv3, nn.ReLU(), cnn2.conv4,
                        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), cnn2.fc1, nn.ReLU(), cnn2.fc2, nn.ReLU(), cnn2.fc3)
    torch.testing.assert_close(cnn2(x), row(x))


@pytest.mark.parametrize("arch, shape", [("CNN1", (1, 12, 12)), ("CNN2", (1, 18, 18)), ("ResNet50", (3, 17, 17))])
def test_dropout_zero_is_deterministic_and_dropout_is_not(arch, shape):
    torch.manual_seed(0)
    x = torch.rand(4, *shape)
    off, on = build(arch, in_shape=shape, dropout=0).train(), build(arch, in_shape=shape, dropout=.5).train()
    with torch.no_grad():
        for model in (off, on):
            if arch == "CNN2": nn.init.normal_(model.fc3.weight)
        state = torch.get_rng_state()
        first = off(x)
        assert torch.equal(torch.get_rng_state(), state), "rate 0 must not draw random numbers"
        assert torch.equal(first, off(x))
        assert not torch.equal(on(x), on(x))


def test_gradients_reach_every_parameter():
    for arch, shape in (("CNN1", (1, 12, 12)), ("CNN2", (1, 18, 18)), ("ResNet50", (3, 33, 33))):
        torch.manual_seed(0)
        model = build(arch, in_shape=shape, dropout=0)
        if arch == "CNN2": nn.init.normal_(model.fc3.weight)
        model(torch.rand(4, *shape)).square().sum().backward()
        silent = [name for name, weights in model.named_parameters() if weights.grad is None or not weights.grad.any()]
        assert not silent, (arch, silent)


def test_wide_resnet_starts_with_fan_out_variance():
    torch.manual_seed(0)
    model = build("WRN-40-10", in_shape=(3, 32, 32))
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 20_000:
            variance = 2 / (layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1])
            assert layer.weight.var().item() == pytest.approx(variance, rel=.05), name
        if isinstance(layer, nn.BatchNorm2d): assert (layer.weight == 1).all() and (layer.bias == 0).all(), name


@pytest.mark.parametrize("arch", ARCHS)
def test_settings_are_checked_before_anything_is_built(arch, monkeypatch):
    monkeypatch.setattr(nn.Conv2d, "__init__", lambda *a, **k: pytest.fail("a layer was built"))
    for bad in (dict(dropout=1.5), dict(dropout=True), dict(in_shape=(1, 2, 2)), dict(n_classes=2.0), dict(in_shape=(1, 28))):
        with pytest.raises(ValueError, match="expected"): build(arch, **(dict(in_shape=(3, 64, 64)) | bad))
