import json

import pytest
import torch

from deq.data import Tabular
from deq.models import DKEF
from figures.cli import main
from verification.experiments import dkef_subject


@pytest.fixture(autouse=True)
def _small(monkeypatch, generator):
    rows = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    table = Tabular("made-up", rows[:200], rows[200:230], rows[230:])
    monkeypatch.setattr(dkef_subject, "parkinson_or_stand_in", lambda folder: table)
    monkeypatch.setattr(dkef_subject, "DKEF", lambda dim, **options: DKEF(dim, width=5, inducing=8, **options))


def test_a_course_is_kept_with_its_provenance(tmp_path, capsys):
    assert main(["course", "--steps", "3", "--every", "2", "--results", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "course-sm.json").read_text())
    assert record["steps"] == [0, 2]
    assert record["routes"]["exact(3)"]["gradient"][1] < 1e-9 < record["routes"]["K=2"]["gradient"][1]
    assert record["provenance"]["versions"]["torch"]
    assert "step 2: spectral radius" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--steps", "--every"])
def test_numbers_below_one_are_usage_errors(option, tmp_path, capsys):
    assert main(["course", option, "0", "--results", str(tmp_path)]) == 2
    assert option in capsys.readouterr().err
