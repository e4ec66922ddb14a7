import json

import pytest
import torch

from deq.data import Tabular
from deq.models import DKEF
from figures.cli import main
from figures.commands import compare
from verification.experiments import outcome


@pytest.fixture(autouse=True)
def _small(monkeypatch, generator):
    rows = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    table = Tabular("made-up", rows[:200], rows[200:230], rows[230:])
    monkeypatch.setattr(compare, "load_tabular", lambda name, folder: table)
    monkeypatch.setattr(outcome, "DKEF", lambda dim, **options: DKEF(dim, width=5, inducing=8, **options))


def test_runs_are_kept_with_their_provenance_beside_older_ones(tmp_path):
    words = ["compare", "--steps", "3", "--every", "2", "--results", str(tmp_path)]
    assert main([*words, "--seeds", "0", "1"]) == 0
    assert main([*words, "--seeds", "1", "2", "--rules", "exact"]) == 0
    cells = json.loads((tmp_path / "exact-vs-phantom.json").read_text())["cells"]
    assert sorted((cell["rule"], cell["seed"]) for cell in cells) == [
        ("exact", 0), ("exact", 1), ("exact", 2), ("phantom-2", 0), ("phantom-2", 1)]
    assert all(cell["steps"] == [0, 2, 3] and cell["reduced"] and cell["provenance"]["versions"] for cell in cells)


def test_time_up_ends_at_an_evaluation(tmp_path, capsys):
    assert main(["compare", "--steps", "9", "--every", "2", "--minutes", "0", "--results", str(tmp_path)]) == 0
    assert "step 0:" in capsys.readouterr().out
    cells = json.loads((tmp_path / "exact-vs-phantom.json").read_text())["cells"]
    assert {tuple(cell["steps"]) for cell in cells} == {(0,)}


@pytest.mark.parametrize("option", ["--steps", "--every"])
def test_numbers_below_one_are_usage_errors(option, tmp_path, capsys):
    assert main(["compare", option, "0", "--results", str(tmp_path)]) == 2
    assert option in capsys.readouterr().err
