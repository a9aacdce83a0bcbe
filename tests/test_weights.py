"""The published weights: those of their records, small, and as accurate as the records say, to the image."""
import hashlib
import json
import re
import shutil

import pytest

from robustacc import ledger
from robustacc.attacks import PGD, Threat
from robustacc.data import load
from robustacc.evaluation import correct, robust
from robustacc.files import checkout
from robustacc.records import load_trained, read_record

WEIGHTS = {f"{path.parts[-3]}/{path.stem}": path for path in sorted((checkout() / "results").rglob("*.safetensors"))}
DIGITS, CIFAR10 = ([name for name in WEIGHTS if name.startswith(data)] for data in ("digits", "cifar10"))


def test_they_are_those_of_their_records_and_small():
    assert sum(path.stat().st_size for path in WEIGHTS.values()) <= 8e6 and len(DIGITS) >= 2 and len(CIFAR10) >= 2
    for name, path in WEIGHTS.items():
        assert read_record(path.with_suffix(".json"))["weights"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest(), name


@pytest.mark.parametrize("name", DIGITS)
def test_on_digits_they_have_the_recorded_accuracy_as_they_are_and_under_attack(name):
    "All test digits, and PGD-10 at the record's radius: not one image more or less."
    path = WEIGHTS[name].with_suffix(".json")
    test, metrics = load("digits").test, read_record(path)["metrics"]
    found = correct(load_trained(path), test.images, test.labels), robust(load_trained(path), test.images, test.labels, PGD(), Threat(.1))
    assert [100 * f.mean() for f in found] == pytest.approx([metrics["test_acc"], metrics["adv_test_acc"]["pgd"]], abs=1e-9)
    assert .3 < found[1].mean() < found[0].mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", CIFAR10)
def test_on_all_of_cifar10_they_have_the_recorded_accuracy(name):
    try: test = load("cifar10", download=False).test
    except FileNotFoundError: pytest.skip("CIFAR-10 is not in ROBUSTACC_DATA")
    path = WEIGHTS[name].with_suffix(".json")
    found = correct(load_trained(path), test.images, test.labels).mean()
    assert abs(100 * found - read_record(path)["metrics"]["test_acc"]) <= .02             # two images of 10,000: another machine, other last bits


def test_a_row_that_was_trained_again_is_measured_again_for_the_ledger(tmp_path):
    source = checkout() / "results" / "smoke" / "digits" / "CNN2"
    path = tmp_path / "natural-seed0.json"
    for suffix in (".json", ".safetensors"): shutil.copy((source / path.name).with_suffix(suffix), path.with_suffix(suffix))
    first = ledger._second_opinion(path, examples=8)
    kept, = (tmp_path / "ledger").glob("*.json")
    def write(**changes): kept.write_text(json.dumps({**first, "metrics": {**first["metrics"], "mt": {"paper": -1., "released": -1.}}, **changes}))
    write()
    assert ledger._second_opinion(path, examples=8)["metrics"]["mt"]["paper"] == -1                          # the same weights: taken as it is
    write(weights={"sha256": "0" * 64})
    assert ledger._second_opinion(path, examples=8) | {"seconds": 0, "source": 0} == first | {"seconds": 0, "source": 0}


def test_the_first_table_of_the_readme_is_of_the_weights_that_lie_here():
    table = re.findall(r"^    trained (plainly|on adversarial examples) +([\d. ]+)$", (checkout() / "README.md").read_text(), flags=re.M)
    assert len(table) == 2
    for (_, shares), name in zip(table, ("natural-seed0", "at-seed0")):
        metrics = json.loads((checkout() / "results" / "smoke" / "digits" / "CNN2" / f"{name}.json").read_text())["metrics"]
        clean, _, _, attacked, *_ = map(float, shares.split())                                             # at 0, .025, .05 and the radius of the digits, .1
        assert clean == round(metrics["test_acc"] / 100, 3) and attacked == pytest.approx(metrics["adv_test_acc"]["pgd"] / 100, abs=.0031)
