"""A benchmark's page is what its script makes of its measurements: no sentence and no verdict of an older script stays on it."""
import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.parametrize("name, maker", [("attacks", "as_markdown"), ("auditing", "page"), ("separation", "as_markdown"), ("training", "as_markdown")])
def test_page_is_made_from_its_measurements(name, maker, monkeypatch):
    spec = importlib.util.spec_from_file_location(f"benchmark_of_{name}", ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)                             # dataclasses look their module up
    spec.loader.exec_module(module)
    report = json.loads((ROOT / f"{name}.json").read_text(encoding="utf-8"))
    assert getattr(module, maker)(report) == (ROOT / f"{name}.md").read_text(encoding="utf-8")
