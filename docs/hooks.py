"""Parts of pages that are made from the code when the pages are built, so that they cannot fall behind it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from deq.status import SolveStatus
from figures.cli import make_parser
from verification.registry import load_topics
from verification.verdict import Verdict

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "figures" / "gallery"


def findings() -> str:
    """Every claim of the papers that is expected to be refuted or corrected: its number, place and title, by topic."""
    lines = []
    for topic in load_topics():
        wrong = [claim for claim in topic.claims if claim.expected in (Verdict.REFUTED, Verdict.CORRECTED)]
        if wrong:
            lines += [f"\n### {topic.title}\n", "| claim | verdict | where | what |", "| --- | --- | --- | --- |"]
            lines += [f"| `{claim.id}` | {claim.expected} | {_cell(claim.source)} | {_cell(claim.title)} |"
                      for claim in wrong]
    return "\n".join(lines)


def statuses() -> str:
    """The value of each status, which is also what the error says."""
    return "\n".join(f"| [`{status.name}`](#{status.name.lower()}) | {_cell(status.value)} |" for status in SolveStatus)


def verbs() -> str:
    """The help of each verb as it prints."""
    parser = make_parser()
    (choices,) = [action.choices for action in parser._subparsers._group_actions]  # type: ignore[union-attr]
    parts = []
    for verb, sub in choices.items():  # type: ignore[union-attr]
        out = io.StringIO()
        with redirect_stdout(out):
            sub.print_help()
        parts += [f"## `deqproof {verb}`\n", f"```text\n{out.getvalue().rstrip()}\n```\n"]
    return "\n".join(parts)


def examples() -> str:
    """The scripts in `docs/examples`: their first line of words, and their text."""
    parts = []
    for path in sorted((ROOT / "docs" / "examples").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        found = re.match(r'"""(.*?)(?:\n|""")', text)
        parts += [f'??? example "{path.name}: {found[1] if found else ""}"', "    ```python",
                  *(f"    {line}".rstrip() for line in text.splitlines()), "    ```", ""]
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


MADE: dict[str, Callable[[], str]] = {"findings": findings, "statuses": statuses, "verbs": verbs, "examples": examples}


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Put what is made in place of lines `<!-- made: NAME -->`."""
    return re.sub(r"<!-- made: (\w+) -->", lambda match: MADE[match[1]](), markdown)


def on_files(files: Files, config: Any, **kwargs: Any) -> Files:
    """Take the gallery's pictures, which the README shows too, among the pages' files."""
    for path in sorted(GALLERY.glob("*.svg")):
        files.append(File.generated(config, f"gallery/{path.name}", abs_src_path=str(path)))
    return files
