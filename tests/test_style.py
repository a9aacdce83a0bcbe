"""The notebooks are chapters: one test of how they are written."""
import ast
import json
import re

import pytest

from robustacc.files import checkout

NOTEBOOKS = sorted((checkout() / "nbs").glob("*.ipynb"))


def cells(path, kind):
    "Sources of a notebook's cells of one kind, with their tags."
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == kind: yield "".join(cell["source"]), cell["metadata"].get("tags", [])


def module_of(path):
    "The module that a notebook exports, or None."
    match = next((re.search(r"#\| default_exp (\w+)", source) for source, _ in cells(path, "code") if "default_exp" in source), None)
    return match[1] if match else None


MODULES = {module_of(path): path.name for path in NOTEBOOKS if module_of(path)}


def imports(tree):
    "Names of the robustacc modules that a syntax tree imports."
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robustacc."): yield node.module.split(".")[1]
        if isinstance(node, ast.Import): yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("robustacc."))


def syntax(source):
    "The syntax tree of a cell without its directives and magics."
    return ast.parse("\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!", "#|"))))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_a_chapter(path):
    wrong, prose, exported_lines, tests = [], 0, 0, 0
    for source, tags in cells(path, "markdown"): prose += len(source.split())
    for source, tags in cells(path, "code"):
        tree, exported = syntax(source), "#| export" in source
        body = [node for node in tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
        top = [isinstance(node, (ast.Import, ast.ImportFrom)) for node in body]
        if any(top) and not all(top): wrong.append(f"imports share a cell with other code: {source[:60]!r}")
        for module in imports(tree):
            if path.stem != "index" and MODULES.get(module, "zz") >= path.name: wrong.append(f"imports upward: {module}")
        if "nbdev_export()" in source: wrong.append("calls nbdev_export()")
        tests += not exported and bool(re.search(r"\btest_\w+\(|ExceptionExpected|\bassert ", source))
        if not exported: continue
        lines = len([line for line in source.splitlines() if not line.startswith("#|")])
        exported_lines += lines
        if lines > 40: wrong.append(f"a cell of {lines} exported lines: {source[:60]!r}")
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") and not ast.get_docstring(node):
                wrong.append(f"no docstring: {node.name}")
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]
                if len(arguments) > 3 and source.count("# ") < len(arguments) - 3 and "Tensor" not in source: wrong.append(f"no docments: {node.name}")
    if path.stem != "index" and exported_lines:
        if prose < .6 * exported_lines: wrong.append(f"{prose} words for {exported_lines} exported lines")
        if tests < 2: wrong.append(f"{tests} visible tests")
        first = next(cells(path, "markdown"))[0]
        if not re.match(r"# .+\n+> .+", first): wrong.append("the first cell is not a title and a summary")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if any("parameters" in tags for _, tags in cells(p, "code"))], ids=lambda p: p.stem)
def test_papermill_can_read_the_parameters(path):
    from papermill.inspection import _infer_parameters
    from papermill.iorw import load_notebook_node
    source, = [source for source, tags in cells(path, "code") if "parameters" in tags]
    declared = [node.target.id for node in syntax(source).body if isinstance(node, ast.AnnAssign)]
    read = {p.name: p for p in _infer_parameters(load_notebook_node(str(path)))}
    assert declared and list(read) == declared, "each line of the parameters cell is `name: type = value  # help`"
    assert all(p.help and p.inferred_type_name != "None" for p in read.values()), read


def test_the_parameters_of_the_notebook_and_of_the_command_line_are_the_same():
    from dataclasses import fields
    from robustacc.train import Settings
    source, = [source for source, tags in cells(checkout() / "nbs" / "05_train.ipynb", "code") if "parameters" in tags]
    declared = {node.target.id: ast.literal_eval(node.value) for node in syntax(source).body}
    assert declared == {f.name: f.default for f in fields(Settings)}


def test_nothing_in_the_repository_names_a_machine():
    import subprocess
    found = subprocess.run(["git", "grep", "-nIE", r"/(root|home/[a-z]+|work/main)/", "--", ":!LICENSE", ":!tests/test_style.py"], cwd=checkout(),
                           capture_output=True, text=True).stdout
    assert not found, found
