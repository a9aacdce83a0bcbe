"""python tests/mutations.py [NUMBER...]: change one thing at a time in a copy of the checkout, and see whether a chapter or a test notices.

Each line of `MUTATIONS` is a chapter, a piece of its exported code, what takes its place, and tests that may notice it too. A mutation that nothing
notices is a gap: an assertion is missing. It takes a minute or two per mutation, so it is run by hand.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUTATIONS = [
    ("000a_checks", "if 0 < eps <= top and math", "if 0 <= eps <= top and math"),
    ("000a_checks", "if logits.shape[1] < 2: raise", "if logits.shape[1] < 1: raise"),
    ("000a_checks", "if low < 0 or high > 1: warnings.warn", "if low < 0 and high > 1: warnings.warn"),
    ("000a_checks", "(images < 0) | (images > 1))", "(images < 0) | (images > 2))"),
    ("000b_files", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB"),
    ("000b_files", "        clear_leftovers(path)\n        yield", "        yield"),
    ("000b_files", "        Path(name).unlink(missing_ok=True)\n", "        pass\n"),
    ("000c_statistics", "math.sqrt(1 + 1 / len(values))", "math.sqrt(1 + 0 / len(values))"),
    ("000c_statistics", "(len(p) - rank) * p[i]", "len(p) * p[i]"),
    ("000c_statistics", "beta.ppf(confidence, k + 1, n - k)", "beta.ppf(confidence, k, n - k + 1)"),
    ("000c_statistics", "change.std(ddof=1)", "change.std(ddof=0)"),
    ("00c_records", "if changed and _move_away", "if False and _move_away"),
    ("00c_records", "not a record: it lacks", "is a record: it lacks"),
    ("00d_publishing", 'if source["commit"] is None and not allow_unknown_source', "if False"),
    ("00d_publishing", 'source["dirty"] is not False and not allow_dirty', 'source["dirty"] is True and not allow_dirty'),
    ("00d_publishing", 'source["dirty"] is not False and not allow_dirty', "False"),
    ("00d_publishing", "if not to.is_relative_to(results)", "if False"),
    ("runs", 'if settings["eps"] != RADIUS.get(dataset, settings["eps"])', "if False"),
    ("runs", 'if settings["dropout"] != dropout', "if settings[\"dropout\"] is not None"),
    ("noise", "(seed & _MASK, seed >> 32 & _MASK, *_words", "(seed & _MASK, 0, *_words"),
    ("noise", "(index >> 32) & _MASK", "0 & _MASK"),
    ("03_attacks", "range(steps + (keep == \"best\"))", "range(steps)"),
    ("03_attacks", "top[:, 2:].mean(1)", "top[:, 1:].mean(1)"),
    ("03_attacks", "clamp_max(1), delta)).clamp_(0, 1)", "clamp_max(1), delta))"),
    ("03_attacks", "rows = (dead if won is None else dead & ~won)", "rows = dead"),
    ("evaluation", "<= threat.eps + 1e-5 * max(1, threat.eps))", "<= threat.eps + 1e-1 * max(1, threat.eps))"),
    ("evaluation", "        standing &= ~broken[name]", "        pass"),
    ("03a_lipschitz", "2 * values / top_two_margin(logits)", "values / top_two_margin(logits)"),
    ("03a_lipschitz", "step_size=search.step * threat.eps, keep=search.keep", "step_size=search.step * threat.eps, keep=\"final\""),
    ("03c_masking", "_SATURATION = 87.", "_SATURATION = 870."),
    ("03c_masking", "_SATURATION = 87.", "_SATURATION = 8.7"),
    ("03c_masking", "max(np.mean(w & ~b)", "min(np.mean(w & ~b)"),
    ("03b_strong_attacks", "(~state.halved & (state.best == state.mark))", "(state.best == state.mark)"),
    ("03b_strong_attacks", "momentum if step else 1.)", "momentum)"),
    ("04_methods", "self.beta * divergence(logits, model(found))", "self.beta * divergence(model(found), logits)"),
    ("04_methods", "self.mu * (delta * gradient)", "0 * (delta * gradient)"),
    ("04_methods", '(2 if self.variant == "released" else 1) * clean', "1 * clean"),
    ("04b_checkpoints", 'if digest(tensors, header["robustacc"]) != header["sha256"]', "if False"),
    ("04b_checkpoints", "for start in range(done.get(name, 0), n, chunk)", "for start in range(0, n, chunk)"),
    ("04b_checkpoints", "        if asked: raise KeyboardInterrupt\n        asked", "        asked"),
]


def notebook_of(name: str) -> Path:
    "A chapter by its file name, or by the end of it."
    found = [p for p in sorted((ROOT / "nbs").glob("*.ipynb")) if p.stem == name or p.stem.split("_", 1)[-1] == name.split("_", 1)[-1]]
    if len(found) != 1: raise SystemExit(f"{name}: {len(found)} chapters")
    return found[0]


def mutate(copy: Path, chapter: Path, old: str, new: str) -> bool:
    "Change the only place of a piece of code in a chapter and in its module; False if it is not there just once."
    path = copy / "nbs" / chapter.name
    notebook = json.loads(path.read_text())
    places = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "#| export" in "".join(cell["source"]) and old in "".join(cell["source"])]
    if len(places) != 1: return False
    places[0]["source"] = "".join(places[0]["source"]).replace(old, new)
    path.write_text(json.dumps(notebook))
    changed = [p for p in (copy / "robustacc").rglob("*.py") if old in p.read_text()]
    for module in changed: module.write_text(module.read_text().replace(old, new))
    return bool(changed)


def noticed(number: int) -> str:
    "Who notices a mutation."
    name, old, new, *tests = MUTATIONS[number]
    chapter = notebook_of(name)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", ".venv", "_*", ".snakemake", "__pycache__", ".mypy_cache", "benchmarks"))
        shutil.copy(ROOT / "robustacc" / "__init__.py", copy / "robustacc")
        shutil.copy(ROOT / "_quarto.yml", copy)
        if not mutate(copy, chapter, old, new): return "not there any more"
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        commands = [("its chapter", [sys.executable, "-c", "from nbdev.test import nbdev_test; nbdev_test()", "--path", f"nbs/{chapter.name}", "--n_workers", "0"])]
        commands += [(test, [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", *test.split()]) for test in tests]
        for who, command in commands:
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=1200)
            if done.returncode:
                lines = [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line or "assert" in line]
                return f"noticed by {who}: {lines[-1].strip()[:110] if lines else done.returncode}"
    return "NOT NOTICED"


if __name__ == "__main__":
    for number in map(int, sys.argv[1:] or range(len(MUTATIONS))):
        begun = time.monotonic()
        name, old, new, *_ = MUTATIONS[number]
        print(f"{number:2} {name}: {old.strip()!r} -> {new.strip()!r}\n   {noticed(number)} ({time.monotonic() - begun:.0f} s)", flush=True)
