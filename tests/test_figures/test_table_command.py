import importlib
import json

import pytest

from figures.cli import main
from verification.paper.tables import TABLES

COMMAND = importlib.import_module("figures.commands.table")


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Table 2 with its smoke sizes in place of the real ones."""
    real = COMMAND.load_config
    monkeypatch.setattr(COMMAND, "load_config", lambda name, overrides=None: real(
        name, smoke=overrides is not None, overrides=overrides))
    return ["table", "2", "--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]


def test_cells_are_trained_kept_with_provenance_and_not_run_twice(quick, tmp_path, capsys):
    order = [*quick, "--train", "--only", "redwine-sm-8", "--seeds", "0", "1", "--steps", "2"]
    assert main(order) == 0
    path = tmp_path / "results" / "table2.json"
    cells = json.loads(path.read_text())["cells"]
    assert [(cell["row"], cell["seed"], cell["steps"], cell["reduced"]) for cell in cells] == [
        ("redwine-sm-8", 0, 2, True), ("redwine-sm-8", 1, 2, True)]
    assert all(cell["provenance"]["versions"] and cell["numbers"]["test_sm_loss"] for cell in cells)
    before = path.read_text()
    assert main(order) == 0
    assert path.read_text() == before
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines()[::-1] if line.startswith("redwine-sm-8 "))
    assert "+-" in row
    assert row.split()[-3:] == ["2", "2", "steps"]           # seeds, steps done, what ended them
    assert "*" in row
    assert "-29.5" in row
    assert "not run" in shown


def test_a_run_that_stops_is_a_cell_that_says_so(quick, tmp_path, monkeypatch, capsys):
    def stop(config, out, **options):
        raise COMMAND.TrainingStopped("loss is nan at step 1")

    monkeypatch.setattr(COMMAND, "train", stop)
    assert main([*quick, "--train", "--only", "redwine-dsm", "--seeds", "0"]) == 1
    cell = json.loads((tmp_path / "results" / "table2.json").read_text())["cells"][0]
    assert "nan" in cell["stopped"]
    assert cell["steps"] is None
    capsys.readouterr()
    main(quick)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("redwine-dsm"))
    assert row.endswith("not run")


def test_no_time_starts_nothing(quick, tmp_path):
    assert main([*quick, "--train", "--minutes", "0"]) == 0
    assert not (tmp_path / "results").exists()


def test_wrong_names_and_files_are_usage_errors(quick, tmp_path, capsys):
    assert main([*quick, "--train", "--only", "rosé"]) == 2
    assert "rosé" in capsys.readouterr().err
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table2.json").write_text("[1, 2]")
    assert main(quick) == 2
    assert "not a results file" in capsys.readouterr().err
    (tmp_path / "results" / "table2.json").write_text('{"schema": 99, "cells": []}')
    assert main(quick) == 2
    assert "schema 99" in capsys.readouterr().err


def test_every_printed_row_has_a_configuration_and_every_configuration_a_row():
    names = set(COMMAND.list_configs())
    for number, table in TABLES.items():
        rows = set(table.rows) if number == 10 else {f"table{number}/{row}" for row in table.rows}
        assert rows <= names
        if number != 10:
            assert rows == {name for name in names if name.startswith(f"table{number}/")}
        assert all(len(values) == len(table.columns) for values in table.rows.values())


@pytest.mark.parametrize("number", sorted(TABLES))
def test_an_empty_folder_gives_empty_cells(number, tmp_path, capsys):
    assert main(["table", str(number), "--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for row in TABLES[number].rows:
        assert next(line for line in lines if line.startswith(f"{row} ")).endswith("not run")


def test_a_table_without_rows_of_its_own_is_not_trained(tmp_path, capsys):
    assert main(["table", "10", "--train", "--results", str(tmp_path)]) == 2
    assert "tables 1, 2, 4 and 5" in capsys.readouterr().err
