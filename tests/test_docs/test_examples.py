"""Every example in a docstring runs. That each exported name has one is a house rule: `test_architecture`."""

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

import analysis
import deq
from deq.rooms import ROOMS

ROOT = Path(__file__).parents[2]

def modules() -> list[str]:
    """Every module of the house whose text has an example."""
    found = []
    for path in (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))):
        if ">>> " in path.read_text(encoding="utf-8"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def examples(module: ModuleType) -> list[doctest.DocTest]:
    """The doctests of a module's own names, each in a namespace of its own with torch and the packages."""
    at_hand = {"torch": torch, "deq": deq, "analysis": analysis}
    return [test for test in doctest.DocTestFinder().find(module, extraglobs=at_hand) if test.examples]


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    for test in examples(module):
        torch.manual_seed(0)
        report: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
        assert result.failed == 0, "".join(report)


def test_the_runner_sees_a_wrong_example():
    module = ModuleType("wrong")
    module.__doc__ = ">>> 1 + 1\n3\n"
    (test,) = examples(module)
    assert doctest.DocTestRunner().run(test, out=lambda text: None).failed == 1
