"""The README's example trains, and it names every verb of the command line (that its blocks run: `test_docs`)."""

import pkgutil
import re
from pathlib import Path

import pytest
import torch

import figures.commands

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_and_trains(capsys: pytest.CaptureFixture[str]):
    scope: dict[str, object] = {}
    torch.manual_seed(0)
    for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(compile(code, "README.md", "exec"), scope)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in scope["layer"].parameters())
    assert "CONVERGED" in capsys.readouterr().out


def test_every_verb_is_named():
    verbs = {module.name for module in pkgutil.iter_modules(figures.commands.__path__) if module.name[0] != "_"}
    assert len(verbs) > 10
    assert verbs == set(re.findall(r"`deqproof ([a-z]+)`", README))


def test_links_lead_somewhere():
    root = Path(__file__).parent.parent
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (root / link).exists()] == []
