"""The example of the README runs as it stands, and what its table names exists."""

import re
from pathlib import Path

import pytest
import torch

import analysis
import deq

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_and_trains(capsys: pytest.CaptureFixture[str]):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    torch.manual_seed(0)
    scope: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in scope["layer"].parameters())
    assert "CONVERGED" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b(?:deq|analysis)\.[A-Za-z_]+(?:\.[A-Za-z_]+)*", README))))
def test_named_things_exist(name: str):
    package, *rest = name.split(".")
    item: object = {"deq": deq, "analysis": analysis}[package]
    for part in rest:
        assert hasattr(item, part), f"{name} is named in the README but does not exist"
        item = getattr(item, part)
