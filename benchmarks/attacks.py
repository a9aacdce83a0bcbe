"""Robust accuracy beside its peers: PGD-10 and the multi-targeted attack against foolbox, ART and torchattacks, AutoAttack against the last and its authors' code.

    python benchmarks/attacks.py                                  # CNN1 and CNN2 on MNIST, WRN-40-10 on noise of CIFAR-10's size
    python benchmarks/attacks.py --dataset digits --out /tmp/bench --networks CNN2
    python benchmarks/attacks.py --questions AutoAttack --dataset cifar10 --networks CNN2 --runs results    # AutoAttack alone, on 200 images
    python benchmarks/attacks.py --questions AutoAttack --dataset digits --networks CNN2 --runs results --budget published --cases AT

The question is always the same: which of these images survive? Everybody answers it with the same network, images, radius, number and
size of steps and, for the multi-targeted attack, the same margin loss; peers may not stop early, since they do not. The networks are
rows of the smoke or quick profile (trained here if `--runs` lacks them); WRN-40-10 is untrained, its labels are its own predictions,
and the radius makes it hold or fall. AutoAttack is asked of three networks, trained plainly, adversarially and by TRADES, and each image
is compared: who survives here, and who there? A row measures everybody side by side, in turns: CPU seconds of one thread, the least of the
repetitions. Finished rows are kept in attacks.json; a later call measures again only what has other settings now (data, radius,
images, repetitions, versions, machine); delete the file after a change of the package's code. A library that is missing is left out
(torchattacks asks for an old requests: `pip install --no-deps torchattacks`; the authors' AutoAttack: `pip install --no-deps pyautoattack`). Writes attacks.md and attacks.json.
"""
import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustacc.attacks import PGD, MultiTargeted, Threat, ranked_targets
from robustacc.checks import to_float
from robustacc.data import load
from robustacc.evaluation import correct, evaluate_robustness
from robustacc.files import atomic_write
from robustacc.fitting import fit
from robustacc.networks import build
from robustacc.records import environment, load_trained, save_weights, source
from robustacc.strong_attacks import autoattack
from robustacc.train import plan, run

BATCH = 64  # images at a time, for everybody


class Duel(nn.Module):
    "Two logits per image, its label's and its target's: their cross-entropy has the sign gradients of the margin."

    def __init__(self, model: nn.Module, labels: Tensor, targets: Tensor):
        super().__init__()
        self.model, self.pair = model, torch.stack([labels, targets], 1)
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).gather(1, self.pair)


# %% What the peers do with one batch: a function of (model, images, labels, eps, steps, step size) that returns attacked images
def by_foolbox(model, x, y, eps, steps, step):
    import foolbox as fb
    attack = fb.attacks.LinfProjectedGradientDescentAttack(abs_stepsize=step, steps=steps, random_start=True)
    return attack.run(fb.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, fb.criteria.Misclassification(y), epsilon=eps)


def by_torchattacks(model, x, y, eps, steps, step):
    import torchattacks
    return torchattacks.PGD(model, eps=eps, alpha=step, steps=steps, random_start=True)(x, y).detach()


def by_art(model, x, y, eps, steps, step):
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier
    with torch.no_grad(): classes = model(x[:1]).shape[1] if not isinstance(model, Duel) else 2
    classifier = PyTorchClassifier(model, nn.CrossEntropyLoss(reduction="sum"), x.shape[1:], classes, clip_values=(0, 1), device_type="cpu")
    attack = ProjectedGradientDescentPyTorch(classifier, norm=np.inf, eps=eps, eps_step=step, max_iter=steps, num_random_init=1,
                                             batch_size=len(x), verbose=False)
    return torch.as_tensor(attack.generate(x.numpy(), F.one_hot(y, classes).numpy()))


PEERS = {"foolbox": by_foolbox, "torchattacks": by_torchattacks, "art": by_art}


def peer_pgd(peer: Callable, model, x, y, eps) -> np.ndarray:
    "Who survives PGD-10: right as it is and after the attack."
    parts = []
    for i in range(0, len(x), BATCH):
        images, labels = x[i:i + BATCH], y[i:i + BATCH]
        moved = peer(model, images, labels, eps, 10, eps / 5)
        with torch.no_grad(): parts.append((model(images).argmax(1) == labels) & (model(moved).argmax(1) == labels))
    return torch.cat(parts).numpy()


def peer_mt(peer: Callable, model, x, y, eps) -> np.ndarray:
    "Who survives one targeted PGD of 20 steps towards each wrong class."
    parts = []
    for i in range(0, len(x), BATCH):
        images, labels = x[i:i + BATCH], y[i:i + BATCH]
        with torch.no_grad(): logits = model(images)
        standing = logits.argmax(1) == labels
        for targets in ranked_targets(logits, labels).T:
            moved = peer(Duel(model, labels, targets), images, torch.zeros_like(labels), eps, 20, eps / 10)
            with torch.no_grad(): standing &= model(moved).argmax(1) == labels
        parts.append(standing)
    return torch.cat(parts).numpy()


def ours(attack) -> Callable:
    "The package's answer."
    def answer(model, x, y, eps): return evaluate_robustness(model, x, y, attack, Threat(eps)).worst
    return answer


BUDGETS = {"short": {"steps": 10, "queries": 100}, "published": {"steps": 100, "queries": 5000}}  # of AutoAttack, for everybody; a row takes minutes, or up to an hour
CASES = {"natural": "natural", "AT": "at", "TRADES(6)": "trades"}  # networks that AutoAttack is asked about -> method
CHUNK = 25  # images that one side is asked about before it is the other's turn


def peer_autoattack(model, x, y, eps, *, steps, queries) -> np.ndarray:
    "Who survives the four attacks of torchattacks; each gets those that the one before has left."
    import torchattacks as ta
    with torch.no_grad(): classes, where = model(x[:1]).shape[1], dict(norm="Linf", eps=eps, seed=0)
    attack = ta.MultiAttack([ta.APGD(model, steps=steps, **where), ta.APGDT(model, steps=steps, n_classes=classes, **where),
                             ta.FAB(model, steps=steps, multi_targeted=True, n_classes=classes, **where), ta.Square(model, n_queries=queries, **where)])
    return peer_pgd(lambda model, images, labels, *_: attack(images, labels).detach(), model, x, y, eps)


def original_autoattack(model, x, y, eps, *, steps, queries) -> np.ndarray:
    "Who survives the code of AutoAttack's authors, with the settings of its version \"standard\" but for the budget."
    from pyautoattack import AutoAttack
    with torch.no_grad(): classes = model(x[:1]).shape[1]
    ensemble = AutoAttack(model, eps=eps, norm="Linf", version="standard", seed=0)
    for attack in (ensemble.apgd, ensemble.apgd_targeted, ensemble.fab): attack.n_iter = steps
    for attack in (ensemble.apgd, ensemble.apgd_targeted):                         # its checkpoints, which it works out from the steps when it is made
        attack.n_iter_2, attack.n_iter_min, attack.size_decr = (max(int(share * steps), 1) for share in (.22, .06, .03))
    ensemble.square.n_queries = queries
    for attack in (ensemble.apgd_targeted, ensemble.fab): attack.n_target_classes = classes - 1
    return peer_pgd(lambda model, images, labels, *_: ensemble.run_standard_evaluation(images, labels, batch_size=BATCH)[0], model, x, y, eps)


ENSEMBLES = {"torchattacks": peer_autoattack, "pyautoattack": original_autoattack}  # the peers of AutoAttack; the second is its authors' code, repackaged


def beside_autoattack(model, x, y, eps, budget: dict[str, int]) -> dict:
    "Who survives each of the ensembles, image by image, and the CPU seconds of all, chunk by chunk and in turns."
    sides, tiny = {"robustacc": ours(autoattack(**budget))}, {"steps": 2, "queries": 2}
    ours(autoattack(**tiny))(model, x[:2], y[:2], eps)                              # imports and caches
    for name, peer in ENSEMBLES.items():
        try: peer(model, x[:2], y[:2], eps, **tiny)
        except ImportError as error: print(f"left out: {name} ({error})", file=sys.stderr); continue
        sides[name] = partial(peer, **budget)
    seconds, survived = {name: [] for name in sides}, {name: [] for name in sides}
    for k, i in enumerate(range(0, len(x), CHUNK)):
        for name in list(sides)[::1 if k % 2 else -1]:
            started = time.process_time()
            survived[name].append(sides[name](model, x[i:i + CHUNK], y[i:i + CHUNK], eps))
            seconds[name].append(time.process_time() - started)
        print(f"  {i + CHUNK} images:", *(f"{name} {seconds[name][-1]:.1f} s, {survived[name][-1].sum()} left;" for name in sides), file=sys.stderr, flush=True)
    left = {name: np.concatenate(parts) for name, parts in survived.items()}
    peers = [name for name in sides if name != "robustacc"]
    fastest = min(peers, key=lambda name: sum(seconds[name]))
    return {"clean": int(correct(model, x, y).sum()), "robust": {name: int(kept.sum()) for name, kept in left.items()},
            "other": {name: np.flatnonzero(left["robustacc"] != left[name]).tolist() for name in peers}, "seconds": seconds, "fastest_peer": fastest,
            "ratio": float(np.median(np.divide(seconds["robustacc"], seconds[fastest])))}


QUESTIONS = {
    "PGD-10": {"robustacc": ours(PGD(keep="first")), "robustacc, final iterate": ours(PGD()),
               "robustacc, bfloat16": ours(PGD(keep="first", dtype=torch.bfloat16)),
               **{name: lambda *a, peer=peer: peer_pgd(peer, *a) for name, peer in PEERS.items()}},
    "MT-20": {"robustacc": ours(MultiTargeted(keep="first")), "robustacc, final iterate": ours(MultiTargeted()),
              "robustacc, bfloat16": ours(MultiTargeted(keep="first", dtype=torch.bfloat16)),
              **{name: lambda *a, peer=peer: peer_mt(peer, *a) for name, peer in PEERS.items()}}}
TARGETS = {("PGD-10", "robust", "CNN2"): .8, ("PGD-10", "robust", None): 1., ("MT-20", "robust", None): 1.,
           ("PGD-10", "undefended", None): .5, ("MT-20", "undefended", None): .3}


def measure(question: str, model: nn.Module, x: Tensor, y: Tensor, eps: float, repeats: int) -> dict:
    "CPU seconds and accuracy of everybody, taking turns."
    seconds, accuracy = {}, {}
    for name, answer in QUESTIONS["PGD-10"].items():           # a first small round: imports, caches, missing libraries
        try: answer(model, x[:2], y[:2], eps)
        except ImportError as error: print(f"left out: {name} ({error})", file=sys.stderr); continue
        seconds[name] = []
    for _ in range(repeats):
        for name in seconds:
            torch.manual_seed(0), np.random.seed(0)
            started = time.process_time()
            survived = QUESTIONS[question][name](model, x, y, eps)
            seconds[name].append(time.process_time() - started)
            accuracy[name] = 100 * float(survived.mean())
            print(f"  {question} {name}: {seconds[name][-1]:.2f} s, {accuracy[name]:.2f}%", file=sys.stderr, flush=True)
    fastest = min((min(seconds[name]), name) for name in seconds if name in PEERS) if set(seconds) & set(PEERS) else (None, None)
    return {"seconds": {name: min(values) for name, values in seconds.items()}, "accuracy": accuracy, "fastest_peer": fastest[1],
            "ratio": min(seconds["robustacc"]) / fastest[0] if fastest[0] else None}


def where_the_time_goes(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, float]:
    "Shares of the CPU time of PGD-10 in percent, by kind of operation."
    from torch.profiler import ProfilerActivity, profile
    attack = PGD(keep="first")
    evaluate_robustness(model, x, y, attack, Threat(eps))
    with profile(activities=[ProfilerActivity.CPU]) as watched: evaluate_robustness(model, x, y, attack, Threat(eps))
    kinds = {"convolution": ("conv",), "activation, pooling, norm": ("relu", "threshold", "clamp_min", "max_pool", "batch_norm", "fill_", "dropout"),
             "fully connected": ("addmm", "aten::mm", "linear")}
    shares = dict.fromkeys([*kinds, "the attack itself and the rest"], 0.)
    for event in watched.key_averages():
        kind = next((kind for kind, words in kinds.items() if any(word in event.key for word in words)), "the attack itself and the rest")
        shares[kind] += event.self_cpu_time_total
    return {kind: 100 * share / sum(shares.values()) for kind, share in shares.items()}


def trained(dataset: str, arch: str, method: str, runs: str) -> nn.Module:
    "The network of a row, trained now if it is not there; in the ordinary memory layout, as a stranger's model is."
    run(dataset=dataset, arch=arch, method=method, results=runs)
    return load_trained(plan(dataset=dataset, arch=arch, method=method, results=runs).path).to(memory_format=torch.contiguous_format)


FITTED = {("mnist", m): {"train": 3000, "epochs": 4} for m in ("natural", "at", "trades")} | {("cifar10", "at"): {"train": 1500, "epochs": 4}}  # departures from the recipe: minutes
STRANGER = "ResNet18"  # of torchvision; it is asked about AutoAttack on 100 images


def departures(dataset: str, arch: str, method: str) -> dict[str, int]:
    "What a network's training departs from its profile in."
    return {"train": 2000, "epochs": 6} if arch == STRANGER else FITTED.get((dataset, method), {})


def a_strangers(classes: int) -> nn.Module:
    "torchvision's ResNet18 as it is, without weights: a network that the package does not know."
    from torchvision.models import resnet18
    return resnet18(num_classes=classes)


def fitted(dataset: str, arch: str, method: str, runs: str) -> nn.Module:
    "A network trained as a row, kept where the row's weights are or would be; not measured, as that takes longer than the fit."
    from safetensors.torch import load_file
    stranger = arch == STRANGER
    p = plan(dataset=dataset, arch="CNN2" if stranger else arch, method=method, results=runs, device="cpu", **departures(dataset, arch, method), **({"beta": 6} if method == "trades" else {}))
    data, path = load(dataset), p.path.with_suffix(".safetensors")
    if stranger: path = path.parent.parent / arch / path.name
    torch.manual_seed(p.seed)
    model = a_strangers(data.n_classes) if stranger else build(p.arch, in_shape=data.in_shape, n_classes=data.n_classes, dropout=p.dropout)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fit(model, data.take(train=min(p.recipe.train or len(data.train), len(data.train))), p.method, recipe=p.recipe, eps=p.eps, seed=p.seed, device="cpu")
        save_weights(model, path)
    model.load_state_dict(load_file(path))
    return model.eval().to(memory_format=torch.contiguous_format)


def cases(arch: str, options) -> list[tuple[str, nn.Module, Tensor, Tensor, float]]:
    "Robust and undefended cases of a network: kind, network, images, labels, radius."
    if arch.startswith("CNN"):
        data = load(options.dataset)
        x, y = to_float(data.test.images[:options.images]), torch.as_tensor(data.test.labels[:options.images])
        networks = {method: trained(options.dataset, arch, method, options.runs) for method in ("at", "natural")}
        return [(kind, networks[method], x, y, eps) for kind, method, eps in
                (("robust", "at", data.eps), ("undefended", "natural", data.eps), ("undefended", "natural", .3))]
    torch.manual_seed(0)
    model, x = build(arch, in_shape=(3, 32, 32), n_classes=10).eval(), torch.rand(options.wide_images, 3, 32, 32)
    last = list(model.children())[-1]
    nn.init.normal_(last.weight, std=1.)
    with torch.no_grad():
        last.bias -= model(torch.rand(8, 3, 32, 32)).mean(0)                 # else one class wins everywhere, at any radius
        y = model(x).argmax(1)
    return [("robust", model, x, y, 1e-6), ("undefended", model, x, y, .3)]


def as_markdown(report: dict) -> str:
    rows = report["rows"]
    machines = sorted({f"{r['environment']['processor']}, one thread, Python {r['environment']['python']}, torch {r['environment']['torch']}; peers: {r['settings']['peers']}"
                       for r in rows})
    lines = ["# Attacks beside their peers", "",
             f"{'; '.join(machines)}. CPU seconds for the whole question (who survives?), each row side by side in turns, {BATCH} images at a time; "
             "`benchmarks/attacks.py` makes this file. PGD-10: ten steps of eps/5 from a random start; "
             "MT-20: twenty steps of eps/10 on the margin towards each wrong class (peers: one targeted PGD per class, without early removal, which they do not have). "
             "In brackets: accuracy left, in percent. `ratio`: robustacc over the fastest peer.", "",
             "| network | data | case | question | images | robustacc | final iterate | bfloat16 | foolbox | torchattacks | ART | ratio | target | met |",
             "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"]
    for row in rows:
        s = row["settings"]
        cells = [f"{row['seconds'][k]:.2f} ({row['accuracy'][k]:.1f})" if k in row["seconds"] else "-"
                 for k in ("robustacc", "robustacc, final iterate", "robustacc, bfloat16", *PEERS)]
        ratio = ["-", "-"] if row["ratio"] is None else [f"{row['ratio']:.2f}", "yes" if row["ratio"] <= row["target"] else "no"]
        lines.append(f"| {s['network']} | {s['data']} | {s['case']}, eps {s['eps']:g} | {s['question']} | {s['images']} | " + " | ".join(cells) +
                     f" | {ratio[0]} | {row['target']} | {ratio[1]} |")
    shared = [r for r in rows if "shares" in r]
    if shared:
        lines += ["", "Where the time of PGD-10 goes on the robust network (percent of CPU time):", "",
                  "| network | " + " | ".join(shared[0]["shares"]) + " |", "|---|---:|---:|---:|---:|"]
        lines += [f"| {r['settings']['network']} | " + " | ".join(f"{share:.0f}" for share in r["shares"].values()) + " |" for r in shared]
    return "\n".join(lines + ["", *missed(rows), *remarks(rows), "", *autoattack_table(report.get("autoattack", [])), ""])


def autoattack_table(rows: list[dict]) -> list[str]:
    "The ensembles side by side: how many survive, how many images have another outcome there, and the ratio of time."
    if not rows: return []
    def at(row, name, kind):
        if name not in row["robust"]: return "-"
        return f"{sum(row['seconds'][name]):.0f}" if kind == "seconds" else f"{row['robust'][name]} ({len(row['other'][name])})"
    names = list(ENSEMBLES)
    lines = ["## AutoAttack, image by image", "",
             "APGD-CE, APGD-T, FAB-T and Square in this order, beside the same four of torchattacks and of pyautoattack (the code of AutoAttack's authors, repackaged), with nine targets and the same steps and queries for all "
             f"(published: 100 and 5,000). The first test images; networks trained as rows of the smoke (digits) and quick profile, those of MNIST on 3,000 images for 4 epochs, AT of CIFAR-10 on 1,500 for 4, torchvision's ResNet18 on 2,000 for 6. A side that was not asked shows -. The sides take turns every {CHUNK} images; `ratio` is the median over these chunks "
             "of CPU seconds here over those of the faster peer. Other programs shared the machine: only ratios count. In brackets: images whose outcome is another one than here. Target: counts within 1 in 200, the same survivors but for those, and a ratio of at most 1.05.", "",
             "| network | data | trained by | eps | steps, queries | images | right as they are | robust, robustacc | " + " | ".join(f"robust, {name}" for name in names) +
             " | seconds, robustacc | " + " | ".join(names) + " | ratio | met |", "|---|---|---|---:|---|---:|---:|---:|" + "---:|" * (2 * len(names) + 2) + "---|"]
    for row in rows:
        s, most = row["settings"], max(1, row["settings"]["images"] // 200)
        met = row["ratio"] <= 1.05 and all(abs(row["robust"]["robustacc"] - row["robust"][name]) <= most and len(other) <= most for name, other in row["other"].items())
        lines.append(f"| {s['network']} | {s['data']} | {s['case']} | {s['eps']:g} | {s['budget']['steps']}, {s['budget']['queries']:,} | {s['images']} | {row['clean']} | {row['robust']['robustacc']} | " +
                     " | ".join(at(row, name, "robust") for name in names) + f" | {sum(row['seconds']['robustacc']):.0f} | " + " | ".join(at(row, name, "seconds") for name in names) +
                     f" | {row['ratio']:.2f} | {'yes' if met else 'no'} |")
    return lines


def missed(rows: list[dict]) -> list[str]:
    "Why a target was missed."
    found, shares = [], {r["settings"]["network"]: r["shares"]["convolution"] for r in rows if "shares" in r}
    for row in rows:
        s = row["settings"]
        if row["ratio"] is None or row["ratio"] <= row["target"]: continue
        why = (f"{row['accuracy']['robustacc']:.0f}% of the images survive at this radius, and a survivor costs all steps, here as anywhere; only those that fall are left out early"
               if s["case"] == "undefended" else f"convolutions take {shares[s['network']]:.0f}% of the time, and they are the same for everybody")
        found.append(f"- {s['network']}, {s['case']}, eps {s['eps']:g}, {s['question']}: {row['ratio']:.2f} instead of {row['target']}. {why[0].upper() + why[1:]}.")
    return ["Targets that were missed:", "", *found, ""] if found else []


def versions() -> str:
    from importlib.metadata import PackageNotFoundError, version
    found = []
    for name in ("foolbox", "torchattacks", "adversarial-robustness-toolbox", "pyautoattack"):
        try: found.append(f"{name} {version(name)}")
        except PackageNotFoundError: found.append(f"{name} not installed")
    return ", ".join(found)


def remarks(rows: list[dict]) -> list[str]:
    "What differs by more than .2 points from the peers' mean, and by how much; nothing is hidden."
    found = []
    for row in rows:
        s, peers = row["settings"], [row["accuracy"][p] for p in PEERS if p in row["accuracy"]]
        if peers and abs(row["accuracy"]["robustacc"] - np.mean(peers)) > .2:
            found.append(f"- {s['network']}, {s['case']}, eps {s['eps']:g}, {s['question']}: {row['accuracy']['robustacc']:.2f}% here and "
                         f"{min(peers):.2f} to {max(peers):.2f}% there; one image is {100 / s['images']:.2f} points.")
    return ["Accuracies further than .2 points from the peers' mean:", "", *found] if found else ["All accuracies are within .2 points of the peers' mean."]


def fingerprint(model: nn.Module, x: Tensor, y: Tensor) -> str:
    "What is attacked: a checksum of the weights, images and labels."
    found = sha256()
    for t in (*model.state_dict().values(), x, y): found.update(t.contiguous().numpy().tobytes())
    return found.hexdigest()


def measured(rows: list[dict], settings: dict) -> dict | None:
    "The row that was measured with these settings on this machine, if there is one."
    return next((r for r in rows if r["settings"] == settings and r["environment"] == environment()), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist", choices=("digits", "mnist", "cifar10"), help="of CNN1 and CNN2")
    parser.add_argument("--networks", nargs="+", default=["CNN1", "CNN2", "WRN-40-10"], choices=("CNN1", "CNN2", "WRN-40-10", STRANGER), help=f"{STRANGER}: torchvision's, under AutoAttack alone")
    parser.add_argument("--questions", nargs="+", default=["PGD-10", "MT-20"], choices=[*QUESTIONS, "AutoAttack"])
    parser.add_argument("--images", type=int, default=1024, help="test images under PGD-10; an eighth of them under MT")
    parser.add_argument("--auto-images", type=int, help=f"test images under AutoAttack (default: 200, and 100 of {STRANGER})")
    parser.add_argument("--budget", default="short", choices=list(BUDGETS), help="of AutoAttack: 10 steps and 100 queries, or the published 100 and 5,000")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="how the networks under AutoAttack are trained")
    parser.add_argument("--wide-images", type=int, default=4, help="images for WRN-40-10")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--runs", default="_runs", help="where the trained rows are, or will be")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = options.out / "attacks.json"
    report, where = json.loads(kept.read_text()) if kept.exists() else {"rows": []}, source("benchmarks/attacks.py")
    def keep(name: str, row: dict, same: tuple[str, ...]) -> None:
        report[name] = [r for r in report.get(name, []) if any(r["settings"][k] != row["settings"][k] for k in same)] + [row]
        atomic_write(kept, json.dumps(report, indent=1) + "\n")
    for arch in options.networks if "AutoAttack" in options.questions else ():
        data, n = load(options.dataset), options.auto_images or (100 if arch == STRANGER else 200)
        x, y = to_float(data.test.images[:n]), torch.as_tensor(data.test.labels[:n])
        budget = BUDGETS[options.budget]
        for case, method in ((case, CASES[case]) for case in options.cases):
            model = fitted(options.dataset, arch, method, options.runs)
            settings = {"network": arch, "data": options.dataset, "case": case, "departures": departures(options.dataset, arch, method), "eps": data.eps, "images": len(x), "chunk": CHUNK, "seed": 0, "budget": budget, "peers": versions(),
                        "sha256": fingerprint(model, x, y)}
            row = measured(report.get("autoattack", []), settings)
            if row is None:
                print(f"AutoAttack: {arch}, {options.dataset}, {case}", file=sys.stderr)
                row = {"settings": settings, "environment": environment(), "source": where, **beside_autoattack(model, x, y, data.eps, budget)}
            keep("autoattack", row, ("network", "data", "case", "budget"))
    for arch in (arch for arch in options.networks if arch != STRANGER) if set(options.questions) & set(QUESTIONS) else ():
        cnn = arch.startswith("CNN")
        for case, model, x, y, eps in cases(arch, options):
            for p in model.parameters(): p.requires_grad_(True)
            for question in (q for q in QUESTIONS if q in options.questions):
                n = len(x) if question == "PGD-10" else max(1, len(x) // (8 if cnn else 4))
                settings = {"network": arch, "data": options.dataset if cnn else "noise", "case": case, "eps": eps, "question": question, "images": n,
                            "repeats": options.repeats if cnn else 1 + (question == "PGD-10"), "batch": BATCH, "seed": 0, "peers": versions(),
                            "sha256": fingerprint(model, x[:n], y[:n])}
                row = measured(report["rows"], settings)
                if row is None:
                    print(f"{arch} {case} {question}, {n} images", file=sys.stderr)
                    row = {"settings": settings, "target": TARGETS.get((question, case, arch), TARGETS[question, case, None]), "environment": environment(),
                           "source": where, **measure(question, model, x[:n], y[:n], eps, settings["repeats"])}
                    if (case, question) == ("robust", "PGD-10"): row["shares"] = where_the_time_goes(model, x[:BATCH], y[:BATCH], eps)
                keep("rows", row, ("network", "data", "case", "eps", "question"))
    atomic_write(kept, json.dumps(report, indent=1) + "\n")
    atomic_write(options.out / "attacks.md", as_markdown(report))
    print(as_markdown(report))


if __name__ == "__main__": main()
