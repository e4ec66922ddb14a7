"""The documentation runs: every Python block of a page, in order, in one namespace; every example script."""

import re
import runpy
from pathlib import Path

import pytest
import torch

import analysis
import deq

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
NAME = re.compile(r"\b(?:deq|analysis)\.[A-Za-z_]+(?:\.[A-Za-z_]+)*")


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[tuple[int, str]]:
    """Line number and text of each Python block."""
    text = path.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in BLOCK.finditer(text)]


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path)], ids=label)
def test_the_blocks_of_a_page_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope: dict[str, object] = {"__name__": "page"}
    for line, code in blocks(path):
        exec(compile("\n" * line + code, str(path), "exec"), scope)  # line numbers of the page in a traceback


@pytest.mark.parametrize("path", EXAMPLES, ids=label)
def test_an_example_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("path", [path for path in PAGES if "api" not in path.parts], ids=label)
def test_what_a_page_names_exists(path):
    for name in sorted(set(NAME.findall(path.read_text(encoding="utf-8")))):
        package, *rest = name.split(".")
        item: object = {"deq": deq, "analysis": analysis}[package]
        for part in rest:
            if not hasattr(item, part):
                __import__(f"{item.__name__}.{part}")
            item = getattr(item, part)


def test_every_page_has_a_place_in_the_navigation():
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert named == {str(path.relative_to(ROOT / "docs")) for path in PAGES[1:]}


def test_every_status_has_a_section():
    text = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
    for status in deq.SolveStatus:
        assert f"\n## {status.name}\n" in text


def test_the_message_of_a_failure_names_its_section():
    with pytest.raises(deq.NotConverged, match=r"docs/failures\.md#diverged"):
        deq.equilibrium(lambda z: 1.5 * z + 1, torch.zeros(1, 1), solver="picard")
