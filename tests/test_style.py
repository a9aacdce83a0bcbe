"""How chapters and package are written. What is not yet as it should be stands in style_exceptions.json, which may only shrink.

    python tests/test_style.py            what stands there and is not needed any more is taken out
    python tests/test_style.py --rewrite  after a chapter was split or renamed: the exceptions (and the modules that mypy checks in part, in
                                          pyproject.toml) as they are now, to be looked at with git diff
"""
import ast
import builtins
import io
import json
import keyword
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from robustacc.files import checkout

ROOT = checkout()
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
PACKAGE = sorted(p for p in (ROOT / "robustacc").rglob("*.py") if p.name not in ("_modidx.py", "__init__.py"))
LISTED = Path(__file__).with_name("style_exceptions.json")

WORDS, LINES = 5., 420  # of prose per exported line; of a module
PUBLIC_NAMES = 320  # at most: 250 for the paper and its measures, 70 for what stands beside it (conflicts, controls, the audit of one's own data, the benchmark of a model)
TWICE = {  # public names that two modules have, and why
    "main": "the command of a module",
    "run": "one unit of work of a chapter: a row in train, a training on the union in proof",
    "plan": "checks the settings of a chapter's run",
    "Settings": "what a user may choose in the chapter",
    "build": "a network by its name; the site by its command",
    "draw": "of the staircase: made in _objectives, which no user imports, and public in staircase",
    **dict.fromkeys(("METHODS", "Method", "Natural", "GR", "LLR", "AT", "RST", "TRADES"), "a method for networks; in _objectives, which no user imports, the same method on the staircase"),
}


# What a notebook and a module are made of

@cache
def cells(path: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    "Kind, source and tags of each cell."
    return [(c["cell_type"], "".join(c["source"]), tuple(c["metadata"].get("tags", ()))) for c in json.loads(path.read_text())["cells"]]


def of_kind(path: Path, kind: str) -> list[tuple[str, tuple[str, ...]]]:
    "Sources and tags of a notebook's cells of one kind."
    return [(source, tags) for found, source, tags in cells(path) if found == kind]


def module_of(path: Path) -> str | None:
    "The module that a notebook exports, or None."
    match = next((m for source, _ in of_kind(path, "code") if (m := re.search(r"#\| default_exp ([\w.]+)", source))), None)
    return match[1] if match else None


MODULES = {module_of(path): path.name for path in NOTEBOOKS if module_of(path)}


def syntax(source: str) -> ast.Module:
    "The syntax tree of a cell without its directives and magics."
    return ast.parse("\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!", "#|"))))


def imports(tree: ast.AST, package: str = "robustacc"):
    "Each robustacc module that a syntax tree imports from, with the names; relative imports are those of the package's top folder."
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 0 and (module == package or module.startswith(f"{package}.")): module = module.removeprefix(package).lstrip(".")
            elif node.level == 0: continue
            if module: yield module, [a.name for a in node.names]
            else: yield from ((a.name, []) for a in node.names if not a.name.startswith("_"))
        if isinstance(node, ast.Import): yield from ((a.name.removeprefix(f"{package}."), []) for a in node.names if a.name.startswith(f"{package}."))


def module_name(path: Path) -> str:
    "`site.pages` for robustacc/site/pages.py."
    return ".".join(path.relative_to(ROOT / "robustacc").with_suffix("").parts)


def exports(path: Path) -> tuple[str, ...]:
    "The public names of a module."
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets): return tuple(ast.literal_eval(node.value))
    return ()


PUBLIC = {module_name(path): exports(path) for path in PACKAGE}


# What is measured, each as the exceptions of today: empty where everything is as it should be

def words() -> dict[str, float]:
    "Chapters with too few words of prose per exported line."
    found = {}
    for path in NOTEBOOKS:
        lines = sum(len([line for line in source.splitlines() if not line.startswith("#|")]) for source, _ in of_kind(path, "code") if "#| export" in source)
        ratio = sum(len(source.split()) for source, _ in of_kind(path, "markdown")) / max(lines, 1)
        if ratio < WORDS and path.stem != "index": found[path.name] = int(100 * ratio) / 100
    return found


def unintroduced() -> dict[str, int]:
    "Chapters with exporting cells that no prose introduces; cells of imports need none."
    found = Counter()
    for path in NOTEBOOKS:
        introduced = False
        for kind, source, _ in cells(path):
            if kind == "markdown": introduced = True
            elif kind == "code" and "#| export" in source:
                body = [node for node in syntax(source).body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
                if body and all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body): continue
                found[path.name] += not introduced
                introduced = False
    return {name: n for name, n in found.items() if n}


def titles() -> dict[str, int]:
    "Chapters that do not have exactly one title of the first level."
    counts = {path.name: sum(len(re.findall(r"^# ", re.sub(r"^```.*?^```", "", source, flags=re.S | re.M), flags=re.M)) for source, _ in of_kind(path, "markdown"))
              for path in NOTEBOOKS}
    return {name: n for name, n in counts.items() if n != 1}


def lengths() -> dict[str, int]:
    "Modules that are too long."
    counts = {module_name(path): len(path.read_text().splitlines()) for path in PACKAGE}
    return {name: n for name, n in counts.items() if n > LINES}


def large_cells() -> dict[str, int]:
    "Chapters with exporting cells of more than 40 lines: the lines of the largest."
    largest = {path.name: max((len([line for line in source.splitlines() if not line.startswith("#|")]) for source, _ in of_kind(path, "code") if "#| export" in source), default=0)
               for path in NOTEBOOKS}
    return {name: n for name, n in largest.items() if n > 40}


def comments(source: str) -> dict[int, str]:
    "Comments by line."
    return {t.start[0]: t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}


def unsaid(node: ast.FunctionDef, said: dict[int, str], name: str) -> list[str]:
    "Parameters of a function without annotation, or without a comment of their own (on their line, where no other one stands, or above it)."
    args, wrong = node.args, []
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, [args.vararg, args.kwarg])]
    at = Counter(a.lineno for a in every if a.arg not in ("self", "cls"))
    for a in every:
        if a.arg in ("self", "cls"): continue
        if a.annotation is None and a not in (args.vararg, args.kwarg): wrong.append(f"{a.arg}: no annotation")
        alone = at[a.lineno] == 1
        if not (alone and (a.lineno in said or a.lineno - 1 in said and a.lineno - 1 not in at and a.lineno - 1 > node.lineno)): wrong.append(f"{a.arg}: no comment")
    if node.returns is None and name != "__init__": wrong.append("return: no annotation")
    return wrong


def parameter_names(node: ast.FunctionDef) -> list[str]:
    "The names of a function's parameters."
    return [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


def documented_methods() -> dict[tuple[str, str], list[str]]:
    "Class and method -> its parameters, where all of them have comments. An override with the same parameters shows those comments (chapter 000d)."
    found, classes = {}, [(node, comments(path.read_text())) for path in PACKAGE for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    for _ in range(3):  # a base before what is derived from it, wherever they stand
        for node, said in classes:
            for part in (part for part in node.body if isinstance(part, ast.FunctionDef)):
                names = parameter_names(part)
                if not unsaid(part, said, part.name) or any(found.get((base.id, part.name)) == names for base in node.bases if isinstance(base, ast.Name)): found[node.name, part.name] = names
    return found


def docments() -> dict[str, list[str]]:
    "Public functions, methods and dataclasses with parameters that have no annotation or no comment."
    found, methods = {}, documented_methods()
    for path in PACKAGE:
        source, module = path.read_text(), module_name(path)
        said = comments(source)
        for node in ast.parse(source).body:
            if getattr(node, "name", "_").startswith("_"): continue
            if isinstance(node, ast.FunctionDef): found[f"{module}.{node.name}"] = unsaid(node, said, node.name)
            if not isinstance(node, ast.ClassDef): continue
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and (part.name in ("__init__", "__call__") or not part.name.startswith("_")):
                    if any(isinstance(d, ast.Name) and d.id == "property" for d in part.decorator_list) and part.returns is not None: continue
                    if any(methods.get((base.id, part.name)) == parameter_names(part) for base in node.bases if isinstance(base, ast.Name)): continue
                    found[f"{module}.{node.name}.{part.name}"] = unsaid(part, said, part.name)
                elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and not part.target.id.startswith("_"):
                    documented = part.lineno in said or part.end_lineno in said or part.lineno - 1 in said or "help" in ast.unparse(part.value or ast.Constant(None)) \
                        or isinstance(part.value, ast.Call) and len(part.value.args) > 1
                    if not documented: found.setdefault(f"{module}.{node.name}", []).append(f"{part.target.id}: no comment")
    return {name: wrong for name, wrong in sorted(found.items()) if wrong}


@cache
def known_words() -> frozenset[str]:
    "Every identifier of the package, the chapters' code, the tests, the workflow and the settings."
    texts = [p.read_text() for folder in ("robustacc", "tests", "workflow", "benchmarks", ".ci") for p in (ROOT / folder).rglob("*")
             if p.is_file() and p.suffix in (".py", ".yaml", ".sh", "") and "__pycache__" not in p.parts]
    texts += [(ROOT / name).read_text() for name in ("Makefile", "settings.ini", "_quarto.yml", "pyproject.toml")]
    texts += [source for path in NOTEBOOKS for source, _ in of_kind(path, "code")]
    return frozenset(w for text in texts for w in re.findall(r"[A-Za-z_]\w*", text)) | set(dir(builtins)) | set(keyword.kwlist) | set(sys.stdlib_module_names)


def strangers() -> dict[str, list[str]]:
    "Names in the prose of a chapter, set as code, that the code does not know."
    found = {}
    for path in NOTEBOOKS:
        for source, _ in of_kind(path, "markdown"):
            for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", source, flags=re.S)):
                if not re.fullmatch(r"_?[A-Za-z][\w.]*(\(.*\))?", code) or re.search(r"\.\d", code): continue  # such as block1.layer.0, a key of a state
                for part in code.split("(")[0].strip(".").split("."):
                    if part and part not in known_words(): found.setdefault(path.name, []).append(code)
    return {name: sorted(set(codes)) for name, codes in found.items()}


def borrowed() -> list[str]:
    "Private names that one module imports from another."
    found = [f"{module_name(path)} <- {module}.{name}" for path in PACKAGE for module, names in imports(ast.parse(path.read_text()))
             for name in names if name.startswith("_") and not name.startswith("__")]
    return sorted(found)


def doubled() -> list[str]:
    "Public names that two modules have, without a reason in `TWICE`."
    count = Counter(name for names in PUBLIC.values() for name in names)
    return sorted(name for name, n in count.items() if n > 1 and name not in TWICE)


def public() -> int:
    "How many public names are too many, apart from those of the site and of modules that serve other modules only (`_blocks`)."
    n = sum(len(names) for module, names in PUBLIC.items() if module.split(".")[0] != "site" and not module.startswith("_"))
    return max(n - PUBLIC_NAMES, 0)


def mypy(*options: str) -> list[str]:
    "Errors of mypy."
    done = subprocess.run([sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", *options], cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


MEASURES = dict(words=words, unintroduced=unintroduced, titles=titles, lengths=lengths, large_cells=large_cells, docments=docments, strangers=strangers, borrowed=borrowed, doubled=doubled, public=public)


def shrunk(listed, now):
    "What is still needed of the exceptions: never more than is listed."
    if isinstance(listed, dict): return {k: shrunk(v, now[k]) for k, v in listed.items() if k in now}
    if isinstance(listed, list): return [v for v in listed if v in now]
    return max(listed, now) if isinstance(listed, float) else min(listed, now)


# The tests

@pytest.mark.parametrize("measure", MEASURES)
def test_exceptions_only_shrink(measure):
    listed, now = json.loads(LISTED.read_text())[measure], MEASURES[measure]()
    def worse(old, new):
        if isinstance(new, dict): return {k: w for k, v in new.items() if (w := worse((old or {}).get(k), v))}
        if isinstance(new, list): return [v for v in new if v not in (old or [])]
        if old is None: return new
        return (f"{new}, and {old} was enough" if new < old else None) if isinstance(new, float) else (f"{new}, and it was {old}" if new > old else None)
    assert not (wrong := worse(listed, now)), f"{MEASURES[measure].__doc__}\n{json.dumps(wrong, indent=1)}"
    assert listed == shrunk(listed, now), f"it got better: run python {Path(__file__).relative_to(ROOT)}, which takes what is not needed out of {LISTED.name}"


def test_names_that_two_modules_have_are_still_there():
    count = Counter(name for names in PUBLIC.values() for name in names)
    assert all(count[name] > 1 for name in TWICE), [name for name in TWICE if count[name] < 2]


def test_types():
    assert not (wrong := mypy()), "\n".join(wrong)


def partly_typed() -> list[str]:
    "Modules in which mypy finds something when it checks all."
    errors = mypy("--config-file=", "--ignore-missing-imports", "--disable-error-code=var-annotated", "robustacc")
    return sorted({error.split(":")[0].removesuffix(".py").replace("/", ".") for error in errors})


@pytest.mark.slow
def test_modules_that_mypy_checks_in_part_need_it():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    found, listed = set(partly_typed()), {module for part in options["overrides"] for module in part["module"]}
    assert not (done := sorted(listed - found)), f"take these out of pyproject.toml: {done}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_a_chapter(path):
    wrong, exported_lines, tests = [], 0, 0
    for source, tags in of_kind(path, "code"):
        tree, exported = syntax(source), "#| export" in source
        body = [node for node in tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
        top = [isinstance(node, (ast.Import, ast.ImportFrom)) for node in body]
        if any(top) and not all(top): wrong.append(f"imports share a cell with other code: {source[:60]!r}")
        commands = [node for node in tree.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)]  # a command that moved is still found
        for module, _ in imports(ast.Module([node for node in tree.body if node not in commands], [])):
            if path.stem != "index" and MODULES.get(module, "zz") >= path.name: wrong.append(f"imports upward: {module}")
        if "nbdev_export()" in source: wrong.append("calls nbdev_export()")
        tests += not exported and bool(re.search(r"\btest_\w+\(|ExceptionExpected|\bassert ", source))
        if not exported: continue
        lines = len([line for line in source.splitlines() if not line.startswith("#|")])
        exported_lines += lines
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") and not ast.get_docstring(node):
                wrong.append(f"no docstring: {node.name}")
    if path.stem != "index" and exported_lines:
        if tests < 2: wrong.append(f"{tests} visible tests")
        if not re.match(r"# .+\n+> .+", of_kind(path, "markdown")[0][0]): wrong.append("the first cell is not a title and a summary")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if any("parameters" in tags for _, tags in of_kind(p, "code"))], ids=lambda p: p.stem)
def test_papermill_can_read_the_parameters(path):
    from papermill.inspection import _infer_parameters
    from papermill.iorw import load_notebook_node
    source, = [source for source, tags in of_kind(path, "code") if "parameters" in tags]
    declared = [node.target.id for node in syntax(source).body if isinstance(node, ast.AnnAssign)]
    read = {p.name: p for p in _infer_parameters(load_notebook_node(str(path)))}
    assert declared and list(read) == declared, "each line of the parameters cell is `name: type = value  # help`"
    assert all(p.help and p.inferred_type_name != "None" for p in read.values()), read


def test_the_parameters_of_the_notebook_and_of_the_command_line_are_the_same():
    from dataclasses import fields
    from robustacc.train import Settings
    source, = [source for source, tags in of_kind(ROOT / "nbs" / "05_train.ipynb", "code") if "parameters" in tags]
    declared = {node.target.id: ast.literal_eval(node.value) for node in syntax(source).body}
    assert declared == {f.name: f.default for f in fields(Settings)}


def test_nothing_in_the_repository_names_a_machine():
    found = subprocess.run(["git", "grep", "-nIE", r"/(root|home/[a-z]+|work/main)/", "--", ":!LICENSE", ":!tests/test_style.py"], cwd=ROOT,
                           capture_output=True, text=True).stdout
    assert not found, found


if __name__ == "__main__":
    listed, now = json.loads(LISTED.read_text()) if LISTED.exists() else {}, {name: measure() for name, measure in MEASURES.items()}
    kept = now if "--rewrite" in sys.argv else {name: shrunk(listed.get(name, type(value)()), value) for name, value in now.items()}
    LISTED.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    if "--rewrite" in sys.argv:
        project = ROOT / "pyproject.toml"
        project.write_text(re.sub(r"^module = \[.*\]$", f"module = {json.dumps(partly_typed())}", project.read_text(), flags=re.M))
    print(f"{LISTED.name}: {len(json.dumps(listed)):,} characters before, {len(json.dumps(kept)):,} now")


@pytest.mark.parametrize("path", [ROOT / "README.md", *NOTEBOOKS], ids=lambda path: path.name)
def test_no_output_names_a_place_of_the_machine_that_made_it(path):
    "Warnings carry the path of their file: in a committed page it starts with the package's folder, or names the line of the cell."
    said = [path.read_text()] if path.suffix == ".md" else [json.dumps(c.get("outputs", [])) for c in json.loads(path.read_text())["cells"]]
    assert not [found for text in said if (found := re.search(r"/tmp/ipykernel_\S+|(?:/[\w.-]+)+/robustacc/\w+\.py:\d+", text))]
