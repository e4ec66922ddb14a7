"""The tables of the report: what was run beside what is printed, and nothing invented."""

import json

import pytest

from figures import page_tables
from verification.paper.tables import TABLES
from verification.paper_tables import gather
from verification.report import Table, Words

ABOUT = {"commit": "a" * 40, "date": "2026-01-02T00:00:00", "command": "deqproof something"}


def cell(row, seed, steps, **numbers):
    return {"row": row, "seed": seed, "steps_asked": steps, "reduced": steps < 100, "numbers": numbers,
            "provenance": ABOUT}


@pytest.fixture
def results(tmp_path):
    cells = [cell("redwine-sm", 0, 10, test_sm_loss=5.0), cell("redwine-sm", 0, 50, test_sm_loss=-1.0),
             cell("redwine-sm", 1, 50, test_sm_loss=-3.0),
             cell("redwine-deq-sm", 0, 100, test_sm_loss=-9.0, test_sm_loss_exact=-4.0, test_log_likelihood=-12.5),
             {"row": "redwine-cp", "seed": 0, "steps_asked": 10, "reduced": True, "stopped": "diverged",
              "provenance": ABOUT}]
    (tmp_path / "table2.json").write_text(json.dumps({"schema": 1, "cells": cells}))
    (tmp_path / "run-table5-x.json").write_text(json.dumps({
        "config": "table5/deq", "seed": 3, "steps": 7, "reduced": True, "final": {"test_loss": 1.0},
        "training": [{"step": 1, "iterations": 4.0}, {"step": 2}, {"step": 3, "iterations": 6.0}],
        "provenance": ABOUT}))
    (tmp_path / "costs-table5-x.json").write_text(json.dumps({
        "reduced": True, "provenance": ABOUT, "rows": [{"config": "table5/deq", "peak_bytes": 2e9, "seconds": 0.5}]}))
    return tmp_path


def test_the_longest_runs_are_averaged_over_seeds(results):
    rows = {row.name: row for row in gather(2, results)}
    loss, exact, likelihood = rows["redwine-sm"].entries
    assert (loss.ours, loss.deviation, loss.printed, loss.reduced) == (-2.0, pytest.approx(2**0.5), -27.2, True)
    assert exact.ours == -2.0  # explicit features: their derivatives are exact
    assert likelihood.text() == ""
    assert (rows["redwine-sm"].seeds, rows["redwine-sm"].steps) == (2, 50)
    deq, deq_exact, deq_likelihood = rows["redwine-deq-sm"].entries
    assert (deq.ours, deq_exact.ours, deq_likelihood.ours, deq.reduced) == (-9.0, -4.0, -12.5, False)
    assert rows["redwine-cp"].steps is None
    assert rows["parkinson-sm"].sources == ()


def test_single_runs_and_costs_fill_their_columns(results):
    rows = {row.name: row for row in gather(5, results)}
    fid, seconds, memory = rows["deq"].entries
    assert fid.ours is None
    assert (seconds.ours, memory.ours, seconds.reduced) == (0.5, 2.0, True)
    assert {row.name: row.entries[0].ours for row in gather(10, results)}["table5/deq"] == 5.0


def test_the_page_holds_every_table(results, monkeypatch):
    monkeypatch.setattr(page_tables, "RESULTS", results)
    blocks = page_tables.make()
    tables = [block for block in blocks if isinstance(block, Table)]
    assert [len(block.rows) for block in tables[:-1]] == [len(table.rows) for table in TABLES.values()]
    text = " ".join(block.text for block in blocks if isinstance(block, Words))
    assert "commit aaaaaaaaaa" in text
    assert "Nothing was run." in text
