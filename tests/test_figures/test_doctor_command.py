"""`deqproof doctor`: exit status, JSON, the record, the page; with made-up findings, since probes take seconds."""

import json

import pytest

from deq.interop.doctor import FAULTS, Finding, State
from figures import cli
from figures.commands import doctor as command
from figures.page_doctor import make
from verification.report import Table
from verification.store import Store


@pytest.fixture
def states(monkeypatch):
    """What the probes find, by name; right where it is not said."""
    found = {}
    monkeypatch.setattr(command, "diagnose", lambda faults, seconds: [
        Finding(fault, found.get(fault.name, State.RIGHT), "a detail") for fault in faults])
    return found


def test_faults_of_torch_are_no_failure_and_broken_probes_are(states, capsys):
    states["layer_norm"], states["batched_lu"] = State.WRONG, State.HANGS
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert f"2 of {len(FAULTS)} known faults are present" in shown
    assert "wrong, silently" in shown
    states["logdet"] = State.UNKNOWN
    assert cli.main(["doctor"]) == 1
    assert "1 could not be probed" in capsys.readouterr().out


def test_json_names_and_the_record(states, capsys, tmp_path):
    states["logdet"] = State.WRONG
    assert cli.main(["doctor", "logdet", "batched_lu", "--json", "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {item["name"]: item["state"] for item in found["findings"]} == {"logdet": "wrong", "batched_lu": "right"}
    record = Store(tmp_path).load_record("doctor")
    assert record == found
    _, table = make(record)
    assert isinstance(table, Table)
    assert [row[1] for row in table.rows] == ["wrong, silently", "not here"]


@pytest.mark.parametrize(("words", "message"), [(["layer_nrom"], "layer_norm"), (["--seconds", "0"], "--seconds")])
def test_usage_errors(states, capsys, words, message):
    assert cli.main(["doctor", *words]) == 2
    assert message in capsys.readouterr().err
