"The networks against independent peers."
import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from robustacc.networks import ARCHS, build, _n_parameters, robustbench_weights


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


@pytest.mark.parametrize("size, channels, n_classes", [(32, 3, 10), (17, 3, 7), (9, 1, 2)])
@torch.no_grad()
def test_resnet18_is_torchvisions_behind_the_stem_for_small_pictures(size, channels, n_classes):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=n_classes)
    theirs.conv1, theirs.maxpool = nn.Conv2d(channels, 64, 3, 1, 1, bias=False), nn.Identity()
    shake(theirs)
    ours = build("ResNet18", in_shape=(channels, size, size), n_classes=n_classes, dropout=0)
    ours.load_state_dict(theirs.state_dict())  # every name, every shape
    x = torch.rand(3, channels, size, size)
    for mode in (False, True):
        expected = theirs.train(mode)(x)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours.train(mode)(x), expected, rtol=1e-4, atol=1e-5)


def robustbench(file: str):
    "A file of RobustBench's architectures, without importing the package and its requirements."
    found = importlib.util.find_spec("robustbench")
    if found is None: pytest.skip("robustbench is not installed")
    path = Path(found.submodule_search_locations[0]) / "model_zoo/architectures" / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("depth, width, unused", [(16, 4, False), (10, 1, True), (28, 10, False), (34, 10, True)])
@torch.no_grad()
def test_wide_networks_take_robustbench_weights(depth, width, unused):
    torch.manual_seed(0)
    theirs = robustbench("wide_resnet.py").WideResNet(depth=depth, widen_factor=width, sub_block1=unused)
    shake(theirs)
    ours = build(f"WRN-{depth}-{width}", in_shape=(3, 32, 32))
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    ours.load_state_dict(robustbench_weights({"state_dict": state, "epoch": 3}))
    idle = sum(p.numel() for name, p in theirs.named_parameters() if name.startswith("sub_block1."))
    assert _n_parameters(ours) == sum(p.numel() for p in theirs.parameters()) - idle
    x = torch.rand(2, 3, 32, 32)
    expected = theirs.eval()(x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_resnet18_takes_robustbench_weights():
    torch.manual_seed(0)
    peer = robustbench("resnet.py")
    theirs = peer.ResNet(peer.BasicBlock, [2, 2, 2, 2])
    shake(theirs)
    ours = build("ResNet18", in_shape=(3, 32, 32))
    ours.load_state_dict(robustbench_weights(theirs.state_dict()))
    x = torch.rand(2, 3, 32, 32)
    expected = theirs.eval()(x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-5, atol=1e-5)


def test_robustbench_weights_refuses_what_it_can_not_translate():
    good = {name: torch.zeros(2) for name in ("conv1.weight", "block1.layer.0.bn1.weight")}
    for bad, match in (({}, "state of type dict"), (None, "state of type NoneType"), ({**good, "mu": torch.zeros(3)}, "weights 'mu'"),
                       ({**good, "module.sigma": torch.zeros(3)}, "weights 'sigma'"), ({**good, "normalize.mean": torch.zeros(3)}, "weights 'normalize.mean'"),
                       ({"epoch": 3}, "weights 'epoch'")):
        with pytest.raises(ValueError, match=match): robustbench_weights(bad)


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


@pytest.mark.parametrize("arch, shape", [("CNN1", (1, 12, 12)), ("CNN2", (1, 18, 18)), ("ResNet50", (3, 17, 17)), ("ResNet18", (3, 9, 9)), ("WRN-16-4", (3, 8, 8))])
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
    for arch, shape in (("CNN1", (1, 12, 12)), ("CNN2", (1, 18, 18)), ("ResNet50", (3, 33, 33)), ("ResNet18", (3, 16, 16)), ("WRN-16-4", (1, 16, 16))):
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
    for bad in (dict(dropout=1.5), dict(dropout=True), dict(in_shape=(1, 2, 2)), dict(n_classes=2.0), dict(in_shape=(1, 28)), dict(in_shape=3),
                dict(in_shape=None), dict(in_shape=(3, 64, 10**9)), dict(in_shape=(3, 64., 64)), dict(in_shape="abc"), dict(n_classes=1),
                dict(n_classes=10**9), dict(n_classes="10"), dict(dropout=float("nan")), dict(dropout="0.1"), dict(dropout=-.1), dict(dropout=1)):
        with pytest.raises(ValueError, match="must be"): build(arch, **(dict(in_shape=(3, 64, 64)) | bad))


@pytest.mark.parametrize("arch", ["VGG", "", None, 3, ["CNN1"], "WRN-0-4", "WRN-16", "WRN-16-4-2", "WRN--16-4", "WRN-\u0661\u0666-4", "cnn1"])
def test_unknown_networks_are_named(arch):
    with pytest.raises(ValueError, match="unknown network"): build(arch)


def test_a_network_of_ones_own_by_module_and_name(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text("""import torch
def flat(in_shape, n_classes, dropout=0):
    c, h, w = in_shape
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(dropout), torch.nn.Linear(c * h * w, n_classes))
def nothing(in_shape, n_classes): return None
number = 3
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = build("my_nets:flat", in_shape=(3, 4, 5), n_classes=7, dropout=.25)
    assert model(torch.rand(2, 3, 4, 5)).shape == (2, 7) and model[1].p == .25
    for place in ("my_nets:nothing", "my_nets:number", "my_nets:absent", "absent:flat", ":flat"):
        with pytest.raises(ValueError, match=f"network '{place}'"): build(place)
    with pytest.raises(ValueError, match="dropout 2"): build("my_nets:flat", dropout=2)
