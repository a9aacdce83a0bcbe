"""python tests/mutations.py [NUMBER...]: change one thing at a time in a copy of a chapter, and see whether the chapter notices.

Each line of `MUTATIONS` is a chapter, a piece of its exported code, what takes its place, and, where the chapter does not notice it, a test that does.
A change that nothing notices is a gap: an assertion is missing. A chapter takes seconds to minutes, so this is run by hand. Chapters run in processes that are forked from this one, after it has imported
what they need; a chapter defines its own module itself, and imports only unchanged ones.
"""
import contextlib
import importlib
import json
import multiprocessing
import os
import re
import sys
import tempfile
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
    ("00d_publishing", 'source["dirty"] is not False and not allow_dirty', 'source["dirty"] is True and not allow_dirty', "tests/test_publishing.py"),
    ("00d_publishing", 'source["dirty"] is not False and not allow_dirty', "False"),
    ("00d_publishing", "if not to.is_relative_to(results)", "if False", "tests/test_publishing.py"),
    ("runs", 'if settings["eps"] != RADIUS.get(dataset, settings["eps"])', "if False"),
    ("runs", 'if settings["dropout"] != dropout', "if settings[\"dropout\"] is not None", "tests/test_proof.py"),
    ("noise", "(seed & _MASK, seed >> 32 & _MASK, *_words", "(seed & _MASK, 0, *_words", "tests/test_noise.py"),
    ("noise", "(index >> 32) & _MASK", "0 & _MASK", "tests/test_noise.py"),
    ("03_attacks", "range(steps + (keep == \"best\"))", "range(steps)", "tests/test_ascent.py"),
    ("00h_losses", "top[:, 2:].mean(1)", "top[:, 1:].mean(1)"),
    ("03_attacks", "clamp_max(1), delta)).clamp_(0, 1)", "clamp_max(1), delta))", "tests/test_ascent.py"),
    ("03_attacks", "rows = (dead if won is None else dead & ~won)", "rows = dead", "tests/test_ascent.py"),
    ("evaluation", "<= threat.eps + 1e-5 * max(1, threat.eps))", "<= threat.eps + 1e-1 * max(1, threat.eps))"),
    ("evaluation", "        standing &= ~broken[name]", "        pass"),
    ("03a_lipschitz", "2 * values / top_two_margin(logits)", "values / top_two_margin(logits)"),
    ("03a_lipschitz", "step_size=search.step * threat.eps, keep=search.keep", "step_size=search.step * threat.eps, keep=\"final\""),
    ("03c_masking", "_SATURATION = 87.", "_SATURATION = 870."),
    ("03c_masking", "_SATURATION = 87.", "_SATURATION = 8.7"),
    ("03c_masking", "max(np.mean(w & ~b)", "min(np.mean(w & ~b)"),
    ("03b_strong_attacks", "(~state.halved & (state.best == state.mark))", "(state.best == state.mark)", "tests/test_ascent.py"),
    ("03b_strong_attacks", "momentum if step else 1.)", "momentum)", "tests/test_ascent.py"),
    ("04_methods", "self.beta * divergence(logits, model(found))", "self.beta * divergence(model(found), logits)"),
    ("04_methods", "self.mu * (delta * gradient)", "0 * (delta * gradient)", "tests/test_methods.py"),
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


def mutated(chapter: Path, old: str, new: str) -> str | None:
    "A chapter with the only place of a piece of code changed; None if it is not there just once."
    notebook = json.loads(chapter.read_text())
    places = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "#| export" in "".join(cell["source"]) and old in "".join(cell["source"])]
    if len(places) != 1: return None
    places[0]["source"] = "".join(places[0]["source"]).replace(old, new)
    return json.dumps(notebook)


def run(text: str, name: str, output: str) -> None:
    "A chapter's tests; the exit status says whether they passed, the file what was said."
    from nbdev.test import test_nb
    os.environ["MPLBACKEND"] = "agg"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nbs" / name
        path.parent.mkdir()
        path.write_text(text)
        with open(output, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            passed, _ = test_nb(path, skip_flags=["slow", "gpu"], basepath=ROOT)
    os._exit(not passed)


def noticed(number: int | None, chapter: Path | None = None) -> str:
    "What a chapter says of a mutation, or, unchanged, of itself."
    if number is not None:
        name, old, new, *tests = MUTATIONS[number]
        chapter = notebook_of(name)
    text = chapter.read_text() if number is None else mutated(chapter, old, new)
    if text is None: return "not there any more"
    with tempfile.NamedTemporaryFile() as file:
        process = multiprocessing.get_context("fork").Process(target=run, args=(text, chapter.name, file.name))
        process.start()
        process.join(900)
        if process.exitcode is None:
            process.kill()
            return "noticed: it does not come to an end"
        if process.exitcode == 0: return "passes as it is" if number is None else f"noticed by {tests[0]}, not by the chapter" if tests else "NOT NOTICED"
        lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", Path(file.name).read_text()).splitlines() if re.search(r"Error|assert", line)]
        return f"noticed: {lines[-1].strip()[:150] if lines else process.exitcode}"


if __name__ == "__main__":
    for module in ("torch", "numpy", "scipy.stats", "pandas", "matplotlib.pyplot", "nbdev.test", "nbdev.showdoc", "fastcore.test", "sklearn.datasets", "jsonschema"): importlib.import_module(module)
    sane = set()
    for number in map(int, sys.argv[1:] or range(len(MUTATIONS))):
        name, old, new, *_ = MUTATIONS[number]
        if name not in sane: print(f"   {notebook_of(name).stem}: {noticed(None, notebook_of(name))}", flush=True)
        sane.add(name)
        print(f"{number:2} {name}: {old.strip()!r} -> {new.strip()!r}\n   {noticed(number)}", flush=True)
