"""Adversarial training beside the loop that one writes first, and beside torchattacks, in one run; each speed-up alone.

    python benchmarks/training.py                                   # CNN1, CNN2 and WRN-40-10; one thread or the GPU
    python benchmarks/training.py --threads 2
    python benchmarks/training.py --networks CNN2 --methods at --batches 1 --repeats 1 --out /tmp/bench --skip compiled
    python benchmarks/training.py --networks --quality mnist        # only: does a speed-up cost accuracy? (real data, three seeds)

The plain loop takes its batches from a DataLoader with transforms per example, and its PGD calls `loss.backward()`, so each inner step
computes the gradients of the parameters too; float32. Ours is `robustacc.train.train_epoch`. Everybody trains the same initial network with the
same images in the same batches, by the same loss and optimiser; what differs are the draws of random starts. Pictures are made up, in the
shapes of MNIST and CIFAR-10, so it runs where torch, torchvision, numpy and tqdm are (on a bare machine with `PYTHONPATH=.`, without torchattacks).
Times are CPU seconds with those of loader processes (wall on CUDA), the least of the repetitions, in turns; each row keeps the times
that the plain loop had in its own turns. Rows are kept one by one in training.json, by all that changes the answer; a rerun measures only what is
missing. Writes training.md, training.json and training.png (where matplotlib is).
"""
import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustacc.attacks import PGD, Threat, start_point
from robustacc.evaluation import correct, robust
from robustacc.augmentation import Augment
from robustacc.data import Data, batches, load
from robustacc.graphs import _WARM_UP, Replayed
from robustacc.methods import make_method
from robustacc.networks import ARCHS, build
from robustacc.files import atomic_write
from robustacc.records import environment, source
from robustacc.fitting import _train_epoch, _whole_step
from robustacc.recipes import Recipe
from robustacc.train import find_device, keep_freed_memory
from robustacc.training_state import Training, make_optimiser

SEED = 0
TARGETS = {"cpu": dict.fromkeys(("CNN1", "CNN2", "WRN-40-10"), 2.), "cuda": {"CNN1": 3., "CNN2": 3.}}


@dataclass(frozen=True)
class Way:
    "How to train: the plain loop with at most one change, or the package with some switches."
    plain: bool = False
    attack: str = "backward"  # of the plain loop: "backward", "grad" (none for parameters), "torchattacks"
    loader: bool = True  # the plain loop's batches come from a DataLoader
    channels_last: bool = False
    dtype: torch.dtype | None = None  # of the inner attack
    compiled: bool = False  # torch.compile
    graphed: bool = False  # steps are recorded as a CUDA graph and replayed
    keeping: bool = False  # `keep_freed_memory`, as `robustacc.train.run` does; in a process of its own
    only: str | None = None  # kind of device it is for


PLAIN = "plain loop"
WAYS = {
    PLAIN: Way(plain=True),
    "plain loop with torchattacks": Way(plain=True, attack="torchattacks"),
    "plain loop, no gradients of parameters": Way(plain=True, attack="grad"),
    "plain loop, no loader": Way(plain=True, loader=False),
    "robustacc, channels first": Way(),
    "robustacc": Way(channels_last=True),
    "robustacc, bfloat16": Way(channels_last=True, dtype=torch.bfloat16),
    "robustacc, keeping memory": Way(channels_last=True, keeping=True, only="cpu"),
    "robustacc, bfloat16, keeping memory": Way(channels_last=True, dtype=torch.bfloat16, keeping=True, only="cpu"),
    "robustacc, compiled": Way(channels_last=True, compiled=True),
    "robustacc, CUDA graph": Way(channels_last=True, graphed=True, only="cuda"),
    "robustacc, CUDA graph, bfloat16": Way(channels_last=True, graphed=True, dtype=torch.bfloat16, only="cuda")}
QUALITY = (PLAIN, "robustacc, channels first", "robustacc", "robustacc, bfloat16", "robustacc, compiled", "robustacc, CUDA graph, bfloat16")


# %% Data: pictures that can be learned, as arrays for us and as a data set with transforms for the plain loop
def made_up(shape: tuple[int, int, int], n: int, seed: int = SEED) -> Data:
    "n training and 512 test pictures of 10 classes: a coarse pattern per class, moved in brightness, and noise."
    rng, (c, h, w) = np.random.default_rng(seed), shape
    patterns = rng.uniform(0, 1, (10, c, -(-h // 4), -(-w // 4))).repeat(4, 2).repeat(4, 3)[:, :, :h, :w]
    def pictures(count):
        labels = np.arange(count) % 10
        values = patterns[labels] * rng.uniform(.3, 1, (count, 1, 1, 1)) + rng.normal(0, .15, (count, *shape))
        return (255 * values.clip(0, 1)).astype(np.uint8), labels
    augment = Augment(4, w, True) if c == 3 else None
    return Data.from_arrays(*pictures(n), *pictures(512), eps=.1 if c == 1 else .031, name="made-up", augment=augment)


class Pictures(torch.utils.data.Dataset):
    "A split one example at a time, as torchvision's own data sets give it."

    def __init__(self, data: Data):
        from torchvision import transforms as t
        self.split, a = data.train, data.augment
        self.transform = t.Compose([*([t.RandomCrop(a.size, a.padding), t.RandomHorizontalFlip()] if a else []), t.ToTensor()])

    def __len__(self) -> int: return len(self.split)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image
        picture = self.split.images[i]
        return self.transform(Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0))), int(self.split.labels[i])


def plain_batches(data: Data, way: Way, size: int, epoch: int, device: str, workers: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    "Batches in the order of `robustacc.data.batches`."
    if not way.loader:
        yield from ((b.images, b.labels) for b in batches(data.train, size, device=device, seed=seed, epoch=epoch, augment=data.augment))
        return
    bare = replace(data.train, images=data.train.images[:, :1, :1, :1])            # only the order is wanted
    order = [b.index.tolist() for b in batches(bare, size, seed=seed, epoch=epoch)]
    for x, y in torch.utils.data.DataLoader(Pictures(data), batch_sampler=order, num_workers=workers, pin_memory=device != "cpu"):
        yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


# %% The plain loop
def kl(still: Tensor, logits: Tensor) -> Tensor:
    return F.kl_div(logits.log_softmax(1), still.softmax(1), reduction="sum")


def plain_attack(model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str, way: Way, start: Tensor | None = None) -> Tensor:
    "The attacked images of AT and TRADES, as one writes it first."
    if way.attack == "torchattacks":
        import torchattacks
        if method == "trades": return torchattacks.TPGD(model, eps=eps, alpha=eps / 5, steps=10)(x).detach()
        return torchattacks.PGD(model, eps=eps, alpha=eps / 5, steps=10, random_start=True)(x, y).detach()
    model.eval()
    with torch.no_grad(): still = model(x)
    if start is None: start = x + .001 * torch.randn_like(x) if method == "trades" else x + eps * (2 * torch.rand_like(x) - 1)
    moved = start.clamp(0, 1)
    for _ in range(10):
        moved = moved.detach().requires_grad_(True)
        logits = model(moved)
        loss = kl(still, logits) if method == "trades" else F.cross_entropy(logits, y, reduction="sum")
        if way.attack == "backward": loss.backward()
        gradient = moved.grad if way.attack == "backward" else torch.autograd.grad(loss, moved)[0]
        moved = torch.min(torch.max(moved + eps / 5 * gradient.sign(), x - eps), x + eps).clamp(0, 1)
    return moved.detach()


def plain_epoch(model: nn.Module, data: Data, method: str, optimiser, way: Way, size: int, epoch: int, device: str, workers: int, seed: int) -> float:
    "One pass over the training set; the mean loss."
    torch.manual_seed(seed + epoch)
    total = 0.
    for x, y in plain_batches(data, way, size, epoch, device, workers, seed):
        moved = plain_attack(model, x, y, data.eps, method, way)
        model.train()
        optimiser.zero_grad()
        if method == "at": loss = F.cross_entropy(model(moved), y)
        else: logits = model(x); loss = F.cross_entropy(logits, y) + 6 * kl(logits, model(moved)) / len(x)
        loss.backward()
        optimiser.step()
        total += loss.item() * len(x)
    return total / len(data.train)


# %% Ours
class Run:
    "A way of training one network, ready to go: each call is one more epoch and returns seconds and the mean loss."

    def __init__(self, way: Way, network: str, method: str, data: Data, size: int, device: str, workers: int = 0, seed: int = SEED):
        self.way, self.method, self.data, self.size, self.device, self.workers, self.seed, self.epoch = way, method, data, size, device, workers, seed, 0
        torch.manual_seed(seed)
        self.model = build(network, in_shape=data.in_shape).to(device, memory_format=torch.channels_last if way.channels_last else torch.preserve_format)
        small = network.startswith("CNN")
        self.recipe = Recipe(1, 1e-3 if small else 1e-2, optimiser="adam" if small else "sgd", batch_size=size, reduction="mean", channels_last=way.channels_last)
        if not way.plain: self.optimiser = make_optimiser(self.model, self.recipe)
        else: self.optimiser = (torch.optim.Adam if small else torch.optim.SGD)(self.model.parameters(), self.recipe.lr)
        self.net = torch.compile(self.model, dynamic=False) if way.compiled else self.model
        self.objective, self.threat = make_method(method, dtype=way.dtype), Threat(data.eps)
        self.replayed = Replayed(_whole_step(self.net, self.optimiser, self.objective, self.recipe, self.threat, seed)) if way.graphed else None

    def train(self) -> float:
        if self.way.plain:
            return plain_epoch(self.model, self.data, self.method, self.optimiser, self.way, self.size, self.epoch, self.device, self.workers, self.seed)
        training = Training(self.net, self.optimiser, history=[{"train_acc": 0.}] * self.epoch)  # the epochs done so far, of which only the number counts
        return _train_epoch(training, self.data, self.objective, self.recipe, self.threat, seed=self.seed, device=self.device, replayed=self.replayed)

    def __call__(self) -> tuple[float, float]:
        started = clock(self.device)
        loss = self.train()
        seconds = clock(self.device) - started
        self.optimiser.zero_grad(set_to_none=True)
        self.epoch += 1
        return seconds, loss


class Elsewhere:
    "As `Run`, in a process of its own, since what it does to memory lasts; each call starts one."

    def __init__(self, **key): self.key = key

    def __call__(self) -> tuple[float, float]:
        done = subprocess.run([sys.executable, __file__, "--child", json.dumps(self.key)], capture_output=True, text=True)
        if done.returncode: raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return tuple(json.loads(done.stdout.splitlines()[-1]))


def clock(device: str) -> float:
    "CPU seconds of this process and its finished children; on CUDA, wall seconds when all is done."
    if device != "cpu":
        torch.cuda.synchronize()
        return time.perf_counter()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


# %% Measuring
def machine_of(device: str) -> str:
    "The name of the device. An Intel processor also says whether it has AMX: one name stands for both kinds, and bfloat16 is fast on one of them only."
    name = environment(device)["device" if device != "cpu" else "processor"]
    has = torch.cpu.get_capabilities().get("amx_bf16", False) if hasattr(torch.cpu, "get_capabilities") else torch.cpu._is_amx_tile_supported()
    return name + (" with AMX" if has else " without AMX") if device == "cpu" and "Intel" in name else name


def setting(options, network: str, method: str) -> dict:
    "What changes an answer, apart from the way of training."
    wide = not network.startswith("CNN")
    return {"network": network, "method": method, "size": options.wide_size if wide else options.size, "batches": 1 if wide else options.batches,
            "threads": options.threads, "device": options.device, "workers": options.workers, "seed": SEED,
            "machine": machine_of(options.device), "torch": torch.__version__}


def data_of(network: str, size: int, n_batches: int) -> Data:
    return made_up((1, 28, 28) if network.startswith("CNN") else (3, 32, 32), max(10, size * n_batches)).take(train=size * n_batches)


def ready(name: str, s: dict, apart: bool = False) -> Callable:
    "A run, warmed up by an epoch of one batch, or by some on CUDA, until its steps are recorded; one that keeps memory, and the plain loop beside it, in a process of its own."
    if apart: return Elsewhere(way=name, **{k: s[k] for k in ("network", "method", "size", "batches", "threads")})
    data = data_of(s["network"], s["size"], s["batches"])
    run = Run(WAYS[name], s["network"], s["method"], data.take(train=s["size"]) if len(data.train) >= s["size"] else data, s["size"], s["device"], s["workers"])
    for _ in range(1 if s["device"] == "cpu" else _WARM_UP + 2): run()
    if run.replayed and run.replayed.recording is None: raise RuntimeError("its steps could not be recorded")
    run.data, run.epoch = data, 0
    return run


def child(key: str) -> None:
    "What a process of its own does: warm up, one epoch, print."
    s = json.loads(key)
    if WAYS[s["way"]].keeping and not keep_freed_memory(): raise RuntimeError("mallopt refused")
    torch.set_num_threads(s["threads"])
    print(json.dumps(ready(s["way"], {**s, "device": "cpu", "workers": 0})()))


def missing_way(name: str, device: str) -> str | None:
    "Why a way cannot be measured here, or None."
    way = WAYS[name]
    if way.only and way.only != device.split(":")[0]: return ""
    if way.keeping and platform.libc_ver()[0] != "glibc": return "the C library is not glibc"
    if way.attack == "torchattacks":
        try: import torchattacks
        except ImportError as error: return str(error)
    return None


def measure(s: dict, kept: list[dict], options, save: Callable) -> None:
    "Take turns with all ways that are not measured often enough yet, the plain loop always first; every turn is saved."
    rows, repeats = {}, options.repeats if s["network"].startswith("CNN") else options.wide_repeats
    for name in WAYS:
        if name in (PLAIN, *options.left_out): continue
        if WAYS[name].compiled and s["device"] == "cpu" and not s["network"].startswith("CNN"): continue  # compiling it takes longer than all the rest
        key = {"kind": "speed", **s, "way": name}
        row = next((r for r in kept if r["key"] == key), None) or {"key": key, "turns": [], "commit": source()["commit"]}
        if len(row["turns"]) < repeats and "failed" not in row: rows[name] = row
    if not rows: return
    print(f"{s['network']} {s['method']}: {', '.join(rows)}", file=sys.stderr, flush=True)
    runs = {}
    def attempt(name, work):
        "None where torch.compile or a CUDA graph does not work here; that is written down."
        try: return work()
        except Exception as error:
            if not (WAYS[name].compiled or WAYS[name].graphed or WAYS[name].keeping): raise
            rows[name]["failed"] = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            print(f"  {name}: {rows[name]['failed']}", file=sys.stderr)
    for name in (PLAIN, *rows): runs[name] = attempt(name, lambda: ready(name, s, WAYS[name].keeping))
    if any(WAYS[name].keeping for name in rows): runs["apart"] = ready(PLAIN, s, True)
    for turn in range(max(repeats - len(row["turns"]) for row in rows.values())):
        due = {name: row for name, row in rows.items() if len(row["turns"]) < repeats and "failed" not in row}
        loops = {False: runs[PLAIN](), True: runs["apart"]() if any(WAYS[name].keeping for name in due) else None}
        for name, row in due.items():
            plain, plain_loss = loops[WAYS[name].keeping]      # a process of its own is compared with one
            found = attempt(name, runs[name])
            if found: row["turns"].append({"seconds": found[0], "loss": found[1], "plain": plain, "plain_loss": plain_loss})
            if found: print(f"  {name}: {found[0]:.2f} s, plain {plain:.2f} s; loss {found[1]:.4f}, plain {plain_loss:.4f}", file=sys.stderr, flush=True)
            if row not in kept: kept.append(row)
            save()


def agreement(s: dict) -> float:
    "Share of pixels, in percent, where the plain loop's attack and ours are within 1e-5 from one start on one network, after a batch of training."
    data = data_of(s["network"], s["size"], 1)
    run = Run(Way(), s["network"], "at", data, s["size"], s["device"])
    run()
    batch = next(iter(batches(data.train, s["size"], device=s["device"])))
    start = start_point(batch.images, Threat(data.eps), start="uniform", index=batch.index, seed=0)
    theirs = plain_attack(run.model, batch.images, batch.labels, data.eps, "at", WAYS[PLAIN], start)
    ours = PGD()(run.model, batch.images, batch.labels, Threat(data.eps), index=batch.index, seed=0)
    return 100 * float(((ours - theirs).abs() < 1e-5).float().mean())


KINDS = {"convolution, backward": ("convolution_backward", "ConvolutionBackward"),  # the first kind with a word that the operation's name has
         "convolution, forward": ("mkldnn_convolution", "cudnn_convolution", "aten::convolution", "aten::_convolution", "conv2d"), "pooling": ("max_pool", "MaxPool", "mean"),
         "activation, norm, dropout": ("relu", "Relu", "threshold", "clamp_min", "batch_norm", "BatchNorm", "dropout"),
         "fully connected": ("addmm", "aten::mm", "linear"), "new memory and copies": ("empty", "fill_", "zero", "copy_", "clone", "aten::to", "contiguous")}


def where_the_time_goes(s: dict) -> dict[str, dict[str, float]]:
    "Milliseconds per batch by kind of operation, for the plain loop and for ours: seconds without the profiler, in its shares."
    from torch.profiler import ProfilerActivity, profile, record_function
    found, outside = {}, "outside torch (python, pictures)"
    for name in (PLAIN, "robustacc"):
        run = ready(name, s)
        seconds = min(run()[0] for _ in range(2))
        with profile(activities=[ProfilerActivity.CPU]) as watched, record_function("everything"): run()
        shares = dict.fromkeys([*KINDS, "other operations", outside], 0.)
        for event in watched.key_averages():
            kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), "other operations")
            shares[outside if event.key == "everything" else kind] += event.self_cpu_time_total
        found[name] = {kind: 1000 * seconds / s["batches"] * share / sum(shares.values()) for kind, share in shares.items()}
    return found


def quality(name: str, s: dict, dataset: str, n_batches: int, seed: int) -> dict:
    "Accuracy in percent, clean and under PGD-10, on 1,000 test images after a short training."
    data = made_up((1, 28, 28), 64 * n_batches, 1) if dataset == "made-up" else load(dataset)
    epochs = max(1, round(n_batches * s["size"] / len(data.train)))
    n = min(len(data.train), n_batches * s["size"])
    data = data.take(train=n - n % s["size"], test=min(1000, len(data.test)))
    run = Run(WAYS[name], s["network"], s["method"], data, s["size"], s["device"], s["workers"], seed)
    losses = [run()[1] for _ in range(epochs)]
    images, labels = data.test.images, data.test.labels
    return {"loss": losses[-1], "clean": 100 * float(correct(run.model, images, labels, device=s["device"]).mean()),
            "pgd": 100 * float(robust(run.model, images, labels, PGD(), Threat(data.eps), device=s["device"], progress=False).mean())}


# %% Reporting
def ratio(row: dict) -> float:
    return min(t["plain"] for t in row["turns"]) / min(t["seconds"] for t in row["turns"])


def default_way(s: dict) -> str:
    "The line that a run of the smoke and quick profiles is."
    graph, keeping = ("", ", keeping memory") if s["device"] == "cpu" else (", CUDA graph", "")
    return "robustacc" + graph + keeping


def by_setting(rows: list[dict]) -> dict[tuple, list[dict]]:
    "Finished speed rows of each network and method, by machine and threads."
    groups = {}
    for row in rows:
        k = row["key"]
        if k["kind"] == "speed": groups.setdefault((k["machine"], k["threads"], k["device"], k["torch"]), []).append(row)
    return groups


def speed_lines(rows: list[dict], device: str) -> list[str]:
    "The table of one machine, and its targets."
    cases = list(dict.fromkeys((r["key"]["network"], r["key"]["method"], r["key"]["size"], r["key"]["batches"]) for r in rows))
    second = "CPU second" if device == "cpu" else "second"
    found = {(tuple(r["key"][k] for k in ("network", "method", "size", "batches")), r["key"]["way"]): r for r in rows}
    def cell(case, name):
        row = found.get((case, name))
        if row is None or not row["turns"]: return "failed" if row else "-"
        return f"{case[2] * case[3] / min(t['seconds'] for t in row['turns']):,.3g} ({ratio(row):.2f})"
    def first(case):
        rows = [r for (c, name), r in found.items() if c == case and name in WAYS and not WAYS[name].keeping and r["turns"]]
        return f"{case[2] * case[3] / min(t['plain'] for r in rows for t in r['turns']):,.3g}" if rows else "-"
    lines = [f"Images per {second}; in brackets: times the plain loop, in the same turns.", "",
             "| | " + " | ".join(f"{network} {method.upper()}, {n} x {size}" for network, method, size, n in cases) + " |", "|---" + "|---:" * len(cases) + "|",
             f"| {PLAIN} | " + " | ".join(map(first, cases)) + " |"]
    lines += [f"| {name} | " + " | ".join(cell(case, name) for case in cases) + " |" for name in WAYS if any((case, name) in found for case in cases)]
    lines += ["", "| network | method | default | ratio | fastest | ratio | target | met by default |", "|---|---|---|---:|---|---:|---:|---|"]
    for case in cases:
        target, default = TARGETS[device.split(":")[0]].get(case[0]), default_way({"device": device})
        ours = {r["key"]["way"]: ratio(r) for (c, name), r in found.items() if c == case and name in WAYS and not WAYS[name].plain and r["turns"]}
        if default not in ours: continue
        best = max(ours, key=ours.get)
        met = "-" if target is None else "yes" if ours[default] >= target else "no"
        lines.append(f"| {case[0]} | {case[1].upper()} | {default} | {ours[default]:.2f} | {best} | {ours[best]:.2f} | {target or '-'} | {met} |")
    failed = [f"- {r['key']['way']}, {r['key']['network']} {r['key']['method'].upper()}: {r['failed']}" for r in rows if "failed" in r]
    losses = [abs(t["loss"] - t["plain_loss"]) / t["plain_loss"] for r in rows for t in r["turns"]]
    if losses: lines += ["", f"Mean losses differ from the plain loop's by {100 * np.median(losses):.1f}% in the middle and {100 * max(losses):.1f}% at most (other random starts)."]
    return lines + (["", "Not measured:", "", *failed] if failed else [])


def quality_lines(rows: list[dict]) -> list[str]:
    "Accuracy of each way over seeds, and whether it differs from the plain loop's by more than they explain."
    groups = {}
    for row in (r for r in rows if r["key"]["kind"] == "quality"):
        k = row["key"]
        groups.setdefault((k["network"], k["method"], k["dataset"], k["n_batches"], k["machine"]), {}).setdefault(k["way"], []).append(row)
    if not groups: return []
    lines = ["## What it costs in accuracy", "", "Mean and standard deviation over the seeds, percent, on the first 1,000 test images. "
             "Beyond seed noise: the difference from the plain loop is more than two standard errors.", "",
             "| network | method | data, batches | way | seeds | clean | PGD-10 | beyond seed noise |", "|---|---|---|---|---:|---:|---:|---|"]
    def spread(values): return f"{np.mean(values):.2f} ± {np.std(values, ddof=1) if len(values) > 1 else float('nan'):.2f}"
    for (network, method, dataset, n, _), ways in groups.items():
        base = [r["pgd"] for r in ways.get(PLAIN, [])]
        for name, some in ways.items():
            pgd = [r["pgd"] for r in some]
            noise = 2 * np.sqrt(np.var(pgd, ddof=1) / len(pgd) + np.var(base, ddof=1) / len(base)) if len(pgd) > 1 and len(base) > 1 else np.nan
            verdict = "-" if name == PLAIN or np.isnan(noise) else "yes" if abs(np.mean(pgd) - np.mean(base)) > noise else "no"
            lines.append(f"| {network} | {method.upper()} | {dataset}, {n} | {name} | {len(pgd)} | {spread([r['clean'] for r in some])} | {spread(pgd)} | {verdict} |")
    return [*lines, ""]


def profile_lines(profiles: dict[str, dict]) -> list[str]:
    "Where the time goes, and what that leaves to win."
    if not profiles: return []
    lines = ["## Where the time goes", "", "CPU milliseconds per batch, plain loop → robustacc (on CUDA, wall milliseconds by what the host waits for).", ""]
    kinds = list(next(iter(next(iter(profiles.values())).values())))
    lines += ["| | " + " | ".join(kinds) + " |", "|---" + "|---:" * len(kinds) + "|"]
    lines += [f"| {case} | " + " | ".join(f"{found[PLAIN][k]:,.1f} → {found['robustacc'][k]:,.1f}" for k in kinds) + " |" for case, found in profiles.items()]
    return [*lines, "", "With F the cost of a forward pass, a pass back to the images costs about F and one to the parameters about F more. The plain loop does "
            "11 of (forward, images, parameters), about 33 F a batch for AT; ten inner steps without gradients of the parameters and one full step do 23 F. "
            "So in one precision and with the same kernels, 33 / 23 = 1.43 is what leaving out these gradients can give; the rest has to come from memory layout, "
            "from data, from keeping freed memory and from a lower precision where the hardware has one.", ""]


def as_markdown(report: dict) -> str:
    lines = ["# Adversarial training beside the plain loop", "", f"`benchmarks/training.py` makes this file; torchattacks: {report['torchattacks']}. "
             "Each line of robustacc is a switch; `robustacc` itself is float32 with channels last, `channels first` leaves the layout out. A run (`robustacc.train.run`) keeps "
             "freed memory on a CPU and replays its steps as a CUDA graph on a GPU, in float32 unless its settings say otherwise: that is the default in the second table. "
             "The medium profile has bfloat16 inside the attack on every machine; some processors are faster with it, others slower. "
             "Lines that keep memory run in a process of their own, a new one each turn, and the plain loop beside them does too.", ""]
    for (machine, threads, device, version), rows in by_setting(report["rows"]).items():
        where = f"{threads} thread{'s' * (threads > 1)}" if device == "cpu" else "wall seconds"
        lines += [f"## {machine}, {where}, torch {version}", "", *speed_lines(rows, device), ""]
    if report["agreement"]:
        lines += ["From one start on one network, the plain loop's attacked images and ours agree within 1e-5 on " +
                  ", ".join(f"{share:.2f}% of the pixels ({case})" for case, share in report["agreement"].items()) + ".", ""]
    return "\n".join([*lines, *quality_lines(report["rows"]), *profile_lines(report["profile"]), "![ratios](training.png)", ""])


def plot(rows: list[dict], path: Path) -> None:
    "Times the plain loop, a bar per way and case, a panel for each machine."
    try: import matplotlib
    except ImportError: return print("no plot: matplotlib is not there", file=sys.stderr)
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    groups = by_setting([r for r in rows if r.get("turns")])
    if not groups: return
    def shown(rows): return list(dict.fromkeys((r["key"]["network"], r["key"]["method"]) for r in rows)), [n for n in WAYS if any(r["key"]["way"] == n for r in rows)]
    colors = dict(zip(dict.fromkeys(case for rows in groups.values() for case in shown(rows)[0]), plt.cm.tab10.colors))
    heights = [.6 + .16 * len(ways) * (len(cases) + 1) for cases, ways in map(shown, groups.values())]
    figure, axes = plt.subplots(len(groups), figsize=(9, sum(heights)), height_ratios=heights, squeeze=False)
    for ((machine, threads, device, _), rows), axis in zip(groups.items(), axes[:, 0]):
        cases, ways = shown(rows)
        for i, case in enumerate(cases):
            some = {r["key"]["way"]: ratio(r) for r in rows if (r["key"]["network"], r["key"]["method"]) == case}
            axis.barh(np.arange(len(ways)) + i / (len(cases) + 1), [some.get(way, 0) for way in ways], .9 / (len(cases) + 1), color=colors[case],
                      label=f"{case[0]} {case[1].upper()}")
        axis.axvline(1, color="black", lw=.8), axis.axvline(2 if device == "cpu" else 3, color="black", lw=.8, ls=":")
        axis.set_yticks(np.arange(len(ways)) + .5 * (len(cases) - 1) / (len(cases) + 1), ways, fontsize=8)
        axis.invert_yaxis()
        axis.set(xlabel="times the plain loop", title=f"{machine}{f', threads: {threads}' if device == 'cpu' else ''}")
        axis.legend(fontsize=7)
    figure.tight_layout()
    atomic_write(path, lambda target: figure.savefig(target, format="png", dpi=150))


def versions() -> str:
    from importlib.metadata import PackageNotFoundError, version
    try: return version("torchattacks")
    except PackageNotFoundError: return "not installed"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=["CNN2", "CNN1", "WRN-40-10"], choices=ARCHS[:3], help="whose speed is measured")
    parser.add_argument("--methods", nargs="+", default=["at", "trades"], choices=("at", "trades"))
    parser.add_argument("--threads", type=int, default=1, choices=(1, 2))
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--size", type=int, default=64, help="batch size of CNN1 and CNN2")
    parser.add_argument("--batches", type=int, default=None, help="batches in one measurement; default 4, on CUDA 100")
    parser.add_argument("--wide-size", type=int, default=None, help="batch size of WRN-40-10, one batch at a time; default 2, on CUDA 64")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--wide-repeats", type=int, default=2)
    parser.add_argument("--workers", type=int, default=None, help="of the DataLoader; default 0, on CUDA 4")
    parser.add_argument("--skip", nargs="*", default=[], help="words; ways whose names have one of them are left out, such as compiled")
    parser.add_argument("--quality", nargs="*", default=[], choices=("made-up", "digits", "mnist"), help="measure what switches cost in accuracy on this data")
    parser.add_argument("--quality-batches", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the accuracy")
    parser.add_argument("--profile", action="store_true", help="measure (again) where the time goes; else once per network and method, and not on CUDA")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.child: return child(options.child)
    options.device = find_device(options.device)
    fast = options.device != "cpu"
    for name, fixed in (("workers", 4 if fast else 0), ("wide_size", 64 if fast else 2), ("batches", 100 if fast else 4)):
        if getattr(options, name) is None: setattr(options, name, fixed)
    torch.set_num_threads(options.threads)
    options.left_out = [name for name in WAYS if any(word in name for word in options.skip)]
    for name in set(WAYS) - set(options.left_out):
        reason = missing_way(name, options.device)
        if reason is None: continue
        options.left_out.append(name)
        if reason: print(f"left out: {name} ({reason})", file=sys.stderr)
    kept = options.out / "training.json"
    report = {"rows": [], "profile": {}, "agreement": {}} | (json.loads(kept.read_text()) if kept.exists() else {})
    report |= {"environment": environment(options.device), "source": source("benchmarks/training.py"), "torchattacks": versions()}
    def save(): atomic_write(kept, json.dumps(report, indent=1) + "\n")
    for network in options.networks:
        for method in options.methods:
            s = setting(options, network, method)
            measure(s, report["rows"], options, save)
            case = f"{network} {method.upper()}, {s['machine']}, {s['threads']} thread{'s' * (s['threads'] > 1)}"
            if network.startswith("CNN") and case not in report["agreement"] and method == "at": report["agreement"][case] = agreement(s)
            if options.profile or not fast and case not in report["profile"]: report["profile"][case] = where_the_time_goes(s)
            save()
    for dataset in options.quality:
        for name in (n for n in QUALITY if n not in options.left_out):
            for seed in options.seeds:
                key = {"kind": "quality", **setting(options, "CNN2", "at"), "way": name, "dataset": dataset, "n_batches": options.quality_batches, "seed": seed}
                if any(r["key"] == key for r in report["rows"]): continue
                report["rows"].append({"key": key, **quality(name, key, dataset, options.quality_batches, seed), "commit": source()["commit"]})
                print(f"  {name}, seed {seed}: {report['rows'][-1]['pgd']:.1f}% under PGD-10", file=sys.stderr, flush=True)
                save()
    save()
    plot(report["rows"], options.out / "training.png")
    atomic_write(options.out / "training.md", as_markdown(report))
    print(as_markdown(report))


if __name__ == "__main__": main()
