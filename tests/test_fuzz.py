"""Values that nobody foresaw, for every option of every command: right, refused by name with exit status 2, or warned of; never a traceback.

Commands run in this process up to the moment at which work would begin. What is known to be wrong stands in fuzz_known.json, which may only shrink:

    python tests/test_fuzz.py             what stands there and is right now is taken out
    python tests/test_fuzz.py --rewrite   what is wrong now, to be looked at with git diff
"""
import contextlib
import io
import json
import math
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from robustacc.files import checkout

SEED, LEAST = 2020, 150  # of the generator; values per command
KNOWN = Path(__file__).with_name("fuzz_known.json")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NUMBERS = ["nan", "NaN", "-nan", "inf", "-inf", "Infinity", "1e400", "-1e400", "1e308", "1e39", "1e-300", "5e-324", "1e-46", "0", "-0", "0.0", "-1", "-1e-9", "1", "1.0", "1e0", "+1",
           "01", "1.", ".5", "0.031", "0.5", "0.999", "0.9999999999999999", "1.0000000001", "2", "3", "8", "255", "1e3", "1e6", "2147483647", "2147483648", "4294967295", "4294967296",
           "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "1" + "0" * 30, "9" * 400]
TEXTS = ["", " ", "\t", "\n", "none", "None", "NONE", "null", "true", "False", "1_000", "0x10", "0b1", "1,5", "1 2", "1/255", "8/255", "1e", "e5", "--1", "١", "１２", "½", "²", "一",
         "at", "AT", "at ", " at", "trades\n", "auto", "Auto", "cuda:99", "cuda:-1", "cuda:", "cpu:7", "../x", "a/b", "/", ".", "..", "~", "é", "💥", "a" * 300, "x" * 5000, "'", '"', "$HOME",
         "`id`", "a;b", "{}", "[]", "[1]", "{'a': 1}", "crop+", "+crop", "crop++flip", "flip", "crop+cutout", "crop+crop", "CROP", "digits", "Digits", "digits ", "mnist\0", "\0", "%s", "%n",
         "smoke", "paper", "quick", "CNN1", "cnn1", "WRN-40-10", "random", "released", "float32", "bfloat16", "float16", "l2", "Linf", "2", "inf"]


class Started(BaseException):
    "Work would begin here."


@dataclass(frozen=True)
class Number:
    "What a numeric option allows: refused outside; `large` is where a value may be refused or not; what is not 0 and below `tiny` is warned of."
    low: float = 0.
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    whole: bool = False
    none: bool = True
    large: float = math.inf
    most: float = math.inf
    tiny: float = 0.
    small: float = 0.  # below it a value may be refused or not

    def expects(self, text: str) -> str:
        if text.lower() == "none": return "accept" if self.none else "refuse"
        if text != text.strip(): return "either" if NUMBER.fullmatch(text.strip()) else "refuse"
        if not NUMBER.fullmatch(text): return "refuse"
        if self.whole and not re.fullmatch(r"[+-]?\d+", text, re.ASCII): return "refuse"
        value = int(text) if self.whole else float(text)
        if not self.whole and not math.isfinite(value): return "refuse"
        inside = (value > self.low if self.open_low else value >= self.low) and (value < self.high if self.open_high else value <= self.high) and value <= self.most
        if not inside: return "refuse"
        if value > self.large or value < self.small: return "either"
        return "warn" if 0 < value < self.tiny else "accept"

    def value(self, text): return None if text.lower() == "none" else int(text) if self.whole else float(text)


@dataclass(frozen=True)
class Choice:
    "What an option of names allows."
    names: tuple[str, ...]
    none: bool = True
    also: tuple[str, ...] = ()  # refused or not, as it depends on other options

    def expects(self, text):
        if text in self.also: return "either"
        if text.lower() == "none": return "accept" if self.none else "refuse"
        return "accept" if text in self.names else "refuse"

    def value(self, text): return None if text.lower() == "none" else text


@dataclass(frozen=True)
class Place:
    "A file or folder: refused where it cannot be, and never a traceback."
    def expects(self, text): return "refuse" if "\0" in text or len(os.fsencode(text)) > 4000 or text == "" else "either"
    def value(self, text): return text


@dataclass(frozen=True)
class Ratio(Number):
    "A number, or a fraction such as 8/255."
    def expects(self, text):
        top, slash, under = text.strip().partition("/")
        if not slash: return super().expects(text)
        if not re.fullmatch(r"[-+]?[0-9]+", top) or not re.fullmatch(r"[0-9]+", under) or not int(under): return "refuse"
        return super().expects(repr(int(top) / int(under)))


@dataclass(frozen=True)
class Table:
    "A table of the paper whose rows are runs."
    mine: tuple[str, ...]  # those with rows of the data set that is given
    def expects(self, text): return "accept" if text in self.mine else "either" if text.strip().lstrip("+0") in ("2", "3", "4", *map(str, range(9, 15))) and text.isascii() else "refuse"
    def value(self, text): return text


FLOAT = dict(most=3.4e38, large=1e6, tiny=1e-30)
TRAIN = {
    "dataset": Choice(("digits",), none=False, also=("mnist", "paper")), "arch": Choice(("CNN1", "CNN2"), also=("WRN-40-10",)), "method": Choice(("natural", "gr", "llr", "at", "rst", "trades"), none=False),
    "beta": Number(**FLOAT), "lam": Number(**FLOAT), "mu": Number(**FLOAT), "variant": Choice(("paper", "released"), none=False),
    "dropout": Number(high=1, open_high=True, tiny=1e-30), "validation": Number(high=.5, open_low=True), "ema": Number(high=1, open_low=True, open_high=True),
    "weight_decay": Number(open_low=True, most=3.4e38, large=1e3, tiny=1e-30), "label_smoothing": Number(high=1, open_low=True, open_high=True),
    "augment": Choice(("crop", "crop+cutout"), also=("flip",)), "eps": Number(high=1, open_low=True, tiny=1e-12), "profile": Choice(("smoke",), also=("quick", "paper")),
    **dict.fromkeys(("epochs", "pgd_train", "mt"), Number(low=1, whole=True, large=1e6, most=2**31)), "seed": Number(whole=True, none=False, large=2**32 - 1, most=2**63), "device": Choice(("auto", "cpu"), none=False, also=("cuda",)),
    "results": Place(), "every": Ratio(none=False, large=1e6)}
METHOD_OF = {"beta": "trades", "lam": "rst", "mu": "llr"}
PROOF = {name: TRAIN[name] for name in ("lam", "epochs", "eps", "seed", "device", "results", "profile")} | {
    "dataset": TRAIN["dataset"], "test_labels": Choice(("true", "random"), none=False), "restarts": Number(low=1, whole=True, none=False, large=100, most=2**31), "lam": Number(none=False, **FLOAT)}
SEPARATION = {
    "labels": Choice(("original", "random", "permutation"), none=False), "seed": Number(whole=True, none=False, large=2**32 - 1, most=2**63), "p": Choice(("inf", "2"), none=False, also=("Linf", "l2")),
    "pairs": Number(low=1, whole=True, none=False, large=1000, most=2**31), "backend": Choice(("auto",), none=False), "device": Choice(("cpu",), none=False, also=("auto", "cuda")),
    "threads": Number(low=1, whole=True, none=False, large=64, most=2**31), "memory": Ratio(open_low=True, none=False, large=64, most=2**40, small=.01), "json": Place()}
AUDIT = {"eps": Ratio(high=1, open_low=True, none=False, tiny=1e-12), "labels-file": Place(), "images": Place(), "html": Place(), "size": Number(low=1, whole=True, none=False, large=512, most=10**5)} \
    | {name: SEPARATION[name] for name in ("p", "pairs", "threads", "memory", "json")}


def values(rng: random.Random, n: int) -> list[str]:
    "So many values: some of the lists, some of them damaged, some numbers of every size."
    found = []
    while len(found) < n:
        kind = rng.random()
        text = rng.choice(NUMBERS if kind < .5 else TEXTS)
        if kind > .9 and text: text = text[:(i := rng.randrange(len(text)))] + rng.choice("0.eE+-_ \t\u0661\u00a0\u200b") + text[i:]
        if .45 < kind < .5: text = repr(rng.uniform(-1, 1) * 10 ** rng.uniform(-12, 12))
        if text not in found: found.append(text)
    return found


# What a command does with its arguments

@contextlib.contextmanager
def before_any_work(*names: str):
    "Within this context functions of these names, wherever a module of the package has them, say that work would begin."
    def stop(*_, **__): raise Started
    usual = [(m, name, vars(m)[name]) for m in list(sys.modules.values()) if getattr(m, "__name__", "").startswith("robustacc") for name in names if name in vars(m)]
    for module, name, _ in usual: setattr(module, name, stop)
    try: yield
    finally:
        for module, name, value in usual: setattr(module, name, value)


def outcome(module: str, arguments: list[str], folder: Path) -> tuple[str, str]:
    "What becomes of a command: started, refused, ended (with its status) or crashed; and what it says, warnings included."
    said, here = io.StringIO(), os.getcwd()
    os.chdir(folder)
    try:
        with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("always")
            try: end = import_module(module).main(arguments)
            except Started: end = "started"
            except SystemExit as status: end = status.code
            except BaseException: return "crashed", traceback.format_exc()
            if isinstance(end, str) and end != "started": print(end, file=sys.stderr)
        text = said.getvalue() + "".join(f"warning: {w.message}\n" for w in warned if not issubclass(w.category, (DeprecationWarning, FutureWarning)))
    finally: os.chdir(here)
    if "Traceback" in text: return "crashed", text
    if end == "started": return end, text
    return ("refused" if end == 2 else f"ended with {1 if isinstance(end, str) else end}"), text


OUTCOMES = Counter()  # of the values of one command; "used" is what may be refused or not


def short(text: str) -> str: return text if len(text) < 60 else f"{text[:20]}... ({len(text)} characters)"


def judge(expected: str, found: str, said: str, name: str, text: str, right: bool = True) -> str | None:
    "What is wrong, if anything; what became of the value is counted."
    fault = fault_of(expected, found, said, name, text, right)
    OUTCOMES["wrong" if fault else "refused" if found == "refused" else "warned" if "warning: " in said else "right" if expected == "accept" else "used"] += 1
    return fault


def fault_of(expected: str, found: str, said: str, name: str, text: str, right: bool) -> str | None:
    "What is wrong, if anything."
    if found == "crashed": return f"traceback: {said.strip().splitlines()[-1][:80]}"
    if found.startswith("ended with") and found != "ended with 0" and found != "ended with None": return f"exit status {found.split()[-1]}, not 2"
    if found == "refused":
        if expected in ("accept", "warn"): return "refused, though it is right"
        named = name.replace("-", "_") in said.replace("-", "_") or text and (text in said or repr(text) in said or Path(text).name in said)
        return None if named else "refused without its name"
    if expected == "refuse": return "not refused"
    if expected == "warn" and "warning" not in said: return "not warned of"
    return None if right else "understood wrongly"


def options_of(module: str, allowed: dict, base: list[str], folder: Path, stop: tuple[str, ...], seen=lambda: None, n: int = 12) -> dict[str, str]:
    "All that is wrong with a command: an option and its fault, with the first value that shows it."
    wrong, count = {}, 0
    for name, kind in allowed.items():
        rng = random.Random(f"{SEED} {module} {name}")
        for text in values(rng, n):
            given = [a for a in base if not a.startswith(f"--{name}=")] + [f"--{name}={text}"]
            if name in METHOD_OF and module.endswith("train"): given.append(f"--method={METHOD_OF[name]}")
            with before_any_work(*stop): found, said = outcome(module, given, folder)
            right = True
            if found == "started" and kind.expects(text) in ("accept", "warn") and (got := seen()) is not None:
                want = kind.value(text)
                if want is not None: right = name not in got or got[name] == want
            count += 1
            if fault := judge(kind.expects(text), found, said, name, text, right): wrong.setdefault(f"--{name}: {fault}", short(text))
    assert count >= LEAST, f"{count} values"
    print(f"{module}: {count} values, {len(wrong)} kinds of faults", flush=True)
    return wrong


def planned(module):
    "The settings of the last plan that a module made, flat."
    last = []
    usual = module.plan
    def plan(*args, **kwargs):
        last[:] = [usual(*args, **kwargs)]
        return last[0]
    def seen():
        if not last: return None
        s = last[0].settings
        flat = {**s, **(s.get("tools") or {}), **{k: v for k, v in s["method"].items() if k in ("beta", "lam", "mu", "variant")}, "epochs": s["recipe"]["epochs"]}
        flat.pop("method"), flat.pop("profile", None)
        return {k: v for k, v in flat.items() if k in TRAIN and v is not None}
    return plan, seen


def train(folder):
    module = import_module("robustacc.train")
    plan, seen = planned(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "plan", plan)
        return options_of("robustacc.train", TRAIN, ["--results=runs", "--device=cpu"], folder, ("load",), seen, 24)


def proof(folder):
    module = import_module("robustacc.proof")
    plan, seen = planned(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "plan", plan)
        return options_of("robustacc.proof", PROOF, ["--results=runs", "--device=cpu"], folder, ("load",), seen, 30)


def separation(folder):
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 256, (12, 1, 4, 4), dtype=np.uint8))
    np.save(folder / "labels.npy", np.arange(12) % 3)
    wrong = options_of("robustacc.separation", SEPARATION, ["--dataset=digits"], folder, ("load",), n=24)
    return wrong | {f"audit {k}": v for k, v in options_of("robustacc.separation", AUDIT, ["--images=images.npy", "--labels-file=labels.npy"], folder, (), n=20).items()}


def results(folder):
    (folder / "empty").mkdir()
    allowed = {"table": Table(("2", "9", "10")), "attack": Choice(("pgd", "mt"), none=False), "dataset": Choice(("digits", "mnist", "svhn", "cifar10", "resimagenet"), none=False), "runs": Place(), "results": Place()}
    return options_of("robustacc.results", allowed, ["--dataset=mnist", "--runs=empty", "--results=empty"], folder, (), n=31)


def benchmark(folder):
    "A linear model in a file, images in a file or in a folder; up to the first attack."
    import torch
    from PIL import Image
    from torch import nn
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 3, 4, 4), dtype=np.uint8)
    np.save(folder / "x.npy", images)
    np.save(folder / "y.npy", np.arange(12) % 3)
    for at, picture in enumerate(images):
        (folder / "pictures" / str(at % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(folder / "pictures" / str(at % 3) / f"{at}.png")
    torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(48, 3))).save(folder / "m.pt")
    torch.jit.script(nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(12), nn.Linear(12, 3))).save(folder / "any.pt")
    allowed = {"eps": Ratio(high=1, open_low=True, none=False, tiny=1e-300), "examples": Number(low=1, high=12, whole=True, none=False), "norm": Choice(("Linf", "l2", "2", "inf"), none=False, also=("L2",)), "attacks": Choice(("standard", "rand", "random"), none=False, also=("random",)),
               "masking": Number(whole=True, none=False, large=10**6, most=10**9), "seed": Number(whole=True, none=False, large=2**32 - 1, most=2**32 - 1), "batch-size": Number(low=1, whole=True, none=False, large=1000, most=10**6),
               "device": Choice(("cpu",), none=False, also=("cuda",)), "save": Place(), "html": Place()}
    wrong = options_of("robustacc.benchmark_command", allowed, ["m.pt", "--data", "x.npy", "y.npy", "--eps=.1"], folder, ("_run",), n=24)
    found = options_of("robustacc.benchmark_command", {"size": Number(low=1, high=65_535, whole=True, none=False, large=512), "channels": Choice(("3",), none=False, also=("1", "01", "+1"))}, ["any.pt", "--data", "pictures", "--size=4"], folder, ("_run",), n=75)
    return wrong | {f"pictures {key}": fault for key, fault in found.items()}


def audit(folder):
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.integers(0, 256, (12, 1, 4, 4), dtype=np.uint8))
    np.save(folder / "y.npy", np.arange(12) % 3)
    np.save(folder / "f.npy", rng.random((12, 2)))
    radius = Ratio(high=1, none=False, large=1)
    allowed = {"eps": Ratio(high=1, open_low=True, none=False, tiny=1e-300), "radius": radius, "radius-2": Ratio(none=False, high=16, large=4), "radius-embedding": Ratio(none=False, large=10), "review": Number(low=1, whole=True, none=False, most=10**6), "listed": Number(whole=True, none=False, most=10**7),
               "draws": Number(whole=True, none=False, most=10**4, large=100), "seconds": Ratio(open_low=True, none=False, small=1e-3), "threads": Number(low=1, whole=True, none=False, large=64, most=4096), "memory": Ratio(open_low=True, none=False, large=64, most=2**20, small=.01),
               "json": Place(), "csv": Place(), "html": Place(), "labels-file": Place(), "groups-file": Place(), "embedding": Place()}
    return options_of("robustacc.audit_command", allowed, ["x.npy", "--labels-file=y.npy", "--embedding=f.npy", "--radius-embedding=.5", "--draws=2"], folder, (), n=12)


def experiment(kind): return lambda folder: options_of(f"robustacc.{kind}", {"dataset": Choice(("digits", "mnist", "cifar10"), none=False), "runs": Place(), "results": Place(), "minutes": Ratio(none=False, large=1e6)}, ["--runs=runs"], folder, ("_run_trials", "load"), n=51)


def schedules(folder): return options_of("robustacc.schedules", {"dataset": Choice(("mnist", "cifar10"), none=False), "runs": Place()}, ["--runs=runs"], folder, ("_run", "load"), n=80)


def a_record(folder):
    "A small runs folder with a finished row, copied from the published ones."
    source = sorted((checkout() / "results" / "smoke" / "digits").glob("*/natural-seed0.json"))[0]
    target = folder / "_runs" / source.relative_to(checkout() / "results")
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".json", ".webp"): shutil.copy(source.with_suffix(suffix), target.with_suffix(suffix))
    return target


def damaged(rng, record: dict) -> tuple[str, str]:
    "A record with one value replaced, and which."
    places = [("kind",), ("schema",), ("settings", "dataset"), ("settings", "arch"), ("settings", "profile"), ("settings", "seed"), ("settings", "method"), ("settings", "recipe"), ("metrics",),
              ("metrics", "test_acc"), ("metrics", "adv_test_acc"), ("metrics", "adv_test_acc", "pgd"), ("metrics", "test_lipschitz"), ("settings",), ("source",), ("data",), ("environment",)]
    place, copy = rng.choice(places), json.loads(json.dumps(record))
    value = rng.choice([None, [], {}, "", "x", "../../x", "/etc/x", "a\0b", True, -1, 1.5, math.nan, math.inf, -math.inf, 1e400, 10**40, "<script>", [[1]], {"a": {"b": 1}}])
    part = copy
    for key in place[:-1]: part = part[key]
    if (type(value) is type(part.get(place[-1])) and value == part.get(place[-1])) or (place[-1] == "test_lipschitz" and value == 1.5) \
            or (place[:1] == ("metrics",) and len(place) > 1 and (value is None or type(value) in (int, float) and 0 <= value <= 100)) or (place == ("source",) and value is None): value = "x"
    part[place[-1]] = value
    return "/".join(place) + " = " + repr(value), json.dumps(copy)


def records(folder):
    path, rng, wrong = a_record(folder), random.Random(f"{SEED} records"), {}
    good = path.read_text()
    def tried(name, arguments, expected, text="", into="results"):
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        found, said = outcome("robustacc.publishing", arguments, folder)
        outside = [str(p) for p in folder.rglob("*") if p.is_file() and p not in before and not p.is_relative_to(folder / into)]
        outside += [str(p) for p in (folder.parent / "x.json", folder.parent / "x") if p.exists()]
        fault = f"wrote {outside}" if outside else judge(expected, found, said, path.name, text or str(path))
        if fault: wrong.setdefault(f"{name.split('=')[0].strip()}: {fault}", short(name))
        shutil.rmtree(folder / "results", ignore_errors=True)
    for _ in range(90):
        name, content = damaged(rng, json.loads(good))
        path.write_text(content)
        tried(name, [str(path), "--allow-dirty"], "refuse")
    for content in (b"", b"x", b"[]", b"{}", b"null", b"\xff\xfe", b'{"kind": "train"}', b"[" * 20000, b'{"a":' * 20000, good.encode()[:-10], good.encode() + b"x", b"\0" * 100):
        path.write_bytes(content)
        tried(f"content = {content[:20]!r} ({len(content)})", [str(path)], "refuse")
    path.write_text(good)
    for name in ("records", "--runs", "--results"):
        for text in values(random.Random(f"{SEED} records {name}"), 20):
            arguments = [text, "--allow-dirty"] if name == "records" and not text.startswith("-") else [str(path), f"--{name[2:]}={text}", "--allow-dirty"] if name != "records" else ["--", text]
            if name == "--results" and (text.startswith(("/", "~", "..")) or text in (".",)): continue
            tried(f"{name}={text[:40]}", arguments, "refuse" if name != "--results" or Place().expects(text) == "refuse" else "either", text, text if name == "--results" and "\0" not in text else "results")
            for left in folder.iterdir():
                if left.name not in ("_runs",): shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
    return wrong


def site(folder):
    (folder / "nbs").mkdir()
    for name in ("settings.ini", "_quarto.yml"): shutil.copy(checkout() / name, folder)
    (folder / "file").write_text("x")
    (folder / "robustacc").mkdir()
    class Out(Place):
        def expects(self, text): return "refuse" if super().expects(text) == "refuse" or text in ("/", ".", "..", "nbs", "robustacc", "file", "results") else "either"
    allowed = {"engine": Choice(("auto", "pandoc"), none=False, also=("quarto",)), "runs": Place(), "results": Place(), "out": Out(), "root": Place()}
    module = "robustacc.site.__main__"
    wrong = options_of(module, allowed, [f"--root={folder}"], folder, ("_process",), n=31)
    for text in ("/", ".", "..", "nbs", "robustacc", "file", "results"):
        with before_any_work("_process"): found, said = outcome(module, [f"--root={folder}", f"--out={text}"], folder)
        if fault := judge("refuse", found, said, "out", text): wrong.setdefault(f"--out: {fault}, a folder of sources or files", text)
    return wrong


COMMANDS = dict(train=train, proof=proof, separation=separation, audit=audit, benchmark=benchmark, results=results, cost=experiment("cost"), label_noise=experiment("label_noise"), nearest_category=experiment("nearest_category"), schedules=schedules, records=records, site=site)


def measured(name: str) -> dict[str, str]:
    "What is wrong with a command now; the outcomes of its values are in OUTCOMES."
    OUTCOMES.clear()
    with tempfile.TemporaryDirectory() as outer:
        (folder := Path(outer).resolve() / "a" / "b").mkdir(parents=True)
        return {key: fault.replace(str(folder), "FOLDER") for key, fault in COMMANDS[name](folder).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_value_is_right_refused_or_warned_of(name, record_property):
    known, wrong = json.loads(KNOWN.read_text()).get(name, {}), measured(name)
    record_property("outcomes", dict(OUTCOMES))                               # conftest.py prints their sums
    assert OUTCOMES.total() >= LEAST
    assert not (new := {key: fault for key, fault in wrong.items() if key not in known}), json.dumps(new, indent=1, ensure_ascii=False)
    assert not (done := [key for key in known if key not in wrong]), f"these are right now: run python tests/test_fuzz.py, which takes them out of {KNOWN.name}: {done}"


if __name__ == "__main__":
    found = {}
    for name in [a for a in sys.argv[1:] if a in COMMANDS] or COMMANDS:
        found[name] = measured(name)
        print(name, OUTCOMES.total(), "values:", dict(OUTCOMES), flush=True)
    for name, wrong in found.items(): print(name, json.dumps(wrong, indent=1, ensure_ascii=False), flush=True)
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    kept = found if "--rewrite" in sys.argv else {name: {key: fault for key, fault in wrong.items() if key in known.get(name, {})} for name, wrong in found.items()}
    if found.keys() == COMMANDS.keys(): KNOWN.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    print({name: len(wrong) for name, wrong in kept.items()})
