"""`import robustacc as ra`: what it loads, what it offers, and scripts as people outside would write them."""
import ast
import builtins
import json
import re
from importlib import import_module

import numpy as np
import pytest

import robustacc as ra


def test_nothing_heavy_is_imported_before_it_is_used(python):
    code = ("import sys, robustacc as ra\n"
            "assert not {'torch', 'numpy', 'numba', 'scipy', 'pandas'} & set(sys.modules), 'loaded too early'\n"
            "assert {'benchmark', 'load', 'PGD'} <= set(dir(ra)) and '__version__' in dir(ra)\n"
            "assert 'numpy' not in sys.modules\n"
            "assert ra.Threat(.1).eps == .1 and 'torch' in sys.modules")
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_each_name_is_what_its_module_has_and_says_what_it_does():
    assert 25 <= len(ra._PLACES) <= 35
    for name, home in ra._PLACES.items():
        assert getattr(ra, name) is getattr(import_module(f"robustacc.{home}"), name)
        assert getattr(ra, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'benchmarks'"): ra.benchmarks


def test_a_type_checker_sees_the_same_names(root):
    tree = ast.parse((root / "robustacc/__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert {alias.asname: part.module for part in block.body for alias in part.names} == ra._PLACES
    assert all(alias.name == alias.asname for part in block.body for alias in part.names)          # `as` itself: a public name for type checkers


def test_the_chapter_shows_each_name_in_use(root):
    cells = json.loads((root / "nbs/11_front_door.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert not (missing := set(ra._PLACES) - set(re.findall(r"\bra\.(\w+)", code))), missing


def shown(root):
    "The code cells of the chapter that a reader sees."
    cells = json.loads((root / "nbs/11_front_door.ipynb").read_text())["cells"]
    return [source for cell in cells if cell["cell_type"] == "code" and not (source := "".join(cell["source"])).startswith("#| hide")]


def test_what_the_chapter_shows_imports_what_it_uses(root):
    "All but the checks, of which the chapter says where they come from."
    known, used = set(dir(builtins)), set()
    for source in shown(root):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name): (used if isinstance(node.ctx, ast.Load) else known).add(node.id)
            elif isinstance(node, ast.alias): known.add(node.asname or node.name)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef): known.add(node.name)
            elif isinstance(node, ast.arg): known.add(node.arg)
    assert used - known == {"test_eq", "test_close"}


def test_the_chapters_foreign_model_takes_trained_weights_with_nothing_else_changed(root, monkeypatch):
    "Weights as torchvision would download them: those of another network of the same kind."
    torchvision = pytest.importorskip("torchvision")
    import torch
    source, = [cell for cell in shown(root) if "class Foreign" in cell]
    assert source.count("resnet18()") == 1
    torch.manual_seed(7)
    stored = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", lambda *_, **__: stored)
    found = {"torch": torch, "nn": torch.nn, "np": np, "ra": ra, "torchvision": torchvision, "test_eq": lambda a, b: None}
    exec(source.replace("resnet18()", 'resnet18(weights="DEFAULT")'), found)
    assert torch.equal(found["foreign"].net.fc.weight, stored["fc.weight"]) and ra.accuracy(found["foreign"], found["noise"], found["answers"]) == 1
    with pytest.raises(ValueError, match="num_classes"): torchvision.models.resnet18(weights="DEFAULT", num_classes=10)      # why the chapter leaves it out


RESNET = """
import torch, torchvision
import robustacc as ra
torch.manual_seed(0)
mean, std = torch.tensor([.49, .48, .45])[:, None, None], torch.tensor([.25, .24, .26])[:, None, None]
class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torchvision.models.resnet18(num_classes=3)
    def forward(self, x): return self.net((x - mean) / std)
model, images = Own().eval(), torch.rand(6, 3, 32, 32)
labels = model(images).argmax(1)
result = ra.benchmark(model, images, labels, eps=16/255, attacks=ra.autoattack(steps=2, queries=3), masking=0, progress=False)
print(result)
"""
FOLDER = """
import robustacc as ra
from robustacc.pictures import read_folder
own = read_folder("pictures")
report = ra.audit(own.images, own.labels, eps=8/255, files=own.files, classes=own.classes)
print(report["verdict"])
"""
TORCHSCRIPT = """
import numpy as np, torch
import robustacc as ra
model, data = torch.jit.load("model.pt"), np.load("data.npz")
result = ra.benchmark(model, data["images"], data["labels"], eps=.02, save="run.json", masking=10,
                      attacks=ra.autoattack(steps=5, queries=5), progress=False)
open("report.html", "w").write(result.to_html())
"""


def make_pictures(folder):
    "Two classes of five noisy pictures, dark and light, and a copy of a dark one among the light."
    from PIL import Image
    rng = np.random.default_rng(0)
    for label, low in (("dark", 0), ("light", 150)):
        (folder / label).mkdir(parents=True)
        for i in range(5): Image.fromarray(rng.integers(low, low + 90, (9, 9, 3)).astype(np.uint8)).save(folder / label / f"{i}.png")
    Image.open(folder / "dark/0.png").save(folder / "light/copy.png")


def make_torchscript(folder):
    "A linear network in a TorchScript file, and images with its own answers as labels."
    import torch
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 2)).eval()
    images = torch.rand(20, 3, 3, 3)
    torch.jit.trace(net, images[:2]).save(str(folder / "model.pt"))
    np.savez(folder / "data.npz", images=images.numpy(), labels=net(images).argmax(1).numpy())
    return net, images


def run(script: str, lines: int = 15) -> dict:
    "What a script of a few lines leaves behind."
    assert len(script.strip().splitlines()) <= lines
    found: dict = {}
    exec(compile(script, "script", "exec"), found)
    return found


def test_an_own_resnet_with_its_normalisation_inside_is_benchmarked():
    pytest.importorskip("torchvision")
    found = run(RESNET)
    result, model = found["result"], found["model"]
    assert result.clean["value"] == 1 and 0 <= result.robust["value"] <= 1 and result.settings["classes"] == 3
    assert list(result.outcomes.broken) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert "targeted DLR loss is the margin" in repr(result)
    assert result.robust["value"] == ra.robust_accuracy(model, found["images"], found["labels"], ra.autoattack(steps=2, queries=3), eps=16 / 255)


def test_an_own_folder_of_pictures_is_audited(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path / "pictures")
    found = run(FOLDER)
    assert found["report"]["verdict"].startswith("Not separable") and found["report"]["conflicts"][0]["files"] == ["dark/0.png", "light/copy.png"]


def test_a_torchscript_file_is_benchmarked_and_the_run_kept(tmp_path, monkeypatch):
    import torch
    monkeypatch.chdir(tmp_path)
    net, images = make_torchscript(tmp_path)
    first, again = run(TORCHSCRIPT)["result"], run(TORCHSCRIPT)["result"]
    w = (net[1].weight[1] - net[1].weight[0]).detach()
    distance = (net(images) @ torch.tensor([-1., 1.])).abs() / w.abs().sum()
    clear = ((distance / .02 - 1).abs() > .01).numpy()
    assert np.array_equal(first.outcomes.worst[clear], (distance > .02).numpy()[clear])
    assert first.to_dict() == again.to_dict() and (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_a_run_is_found_again_by_a_process_that_hashes_otherwise(tmp_path, python, monkeypatch):
    "The weights of a model that is a function are those of all the networks that it names; sets have another order in each process."
    script = """
import torch, robustacc as ra
torch.manual_seed(0)
one, two, three, four, five = (torch.nn.Linear(8, 8) for _ in range(5))
def model(x): return one(x.flatten(1)) + two(x.flatten(1)) - three(x.flatten(1)) + four(x.flatten(1)) - five(x.flatten(1))
x = torch.rand(6, 2, 2, 2)
ra.benchmark(model, x, torch.arange(6), .1, attacks=ra.PGD(steps=2), masking=0, lipschitz=False, save="run.json", progress=False)
"""
    (tmp_path / "own.py").write_text(script)
    for seed in "1234":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        done = python("own.py")
        assert done.returncode == 0, done.stderr
