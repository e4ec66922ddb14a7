"""The tables of the report: what was run beside what is printed, and nothing invented."""

import json

import pytest

from figures import page_tables
from verification.paper.tables import TABLES
from verification.paper_tables import gather
from verification.report import Folded, Table

ABOUT = {"commit": "a" * 40, "date": "2026-01-02T00:00:00", "command": "deqproof something"}


def cell(row, seed, steps, *, done=None, **numbers):
    return {"row": row, "seed": seed, "steps_asked": steps, "steps": done or steps, "reduced": steps < 100,
            "numbers": numbers, "provenance": ABOUT}


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
    loss, exact, likelihood = rows["redwine-sm"].entries[:3]
    assert (loss.ours, loss.deviation, loss.printed, loss.reduced) == (-2.0, pytest.approx(2**0.5), -27.2, True)
    assert exact.ours == -2.0  # explicit features: their derivatives are exact
    assert likelihood.text() == ""
    assert (rows["redwine-sm"].seeds, rows["redwine-sm"].steps) == (2, (50, 50))
    deq, deq_exact, deq_likelihood = rows["redwine-deq-sm"].entries[:3]
    assert (deq.ours, deq_exact.ours, deq_likelihood.ours, deq.reduced) == (-9.0, -4.0, -12.5, False)
    assert rows["redwine-cp"].steps is None
    assert rows["parkinson-sm"].sources == ()


def test_steps_are_those_that_were_done_and_what_ended_them_is_said(tmp_path):
    cells = [cell("redwine-sm", seed, 100, done=done, test_sm_loss=loss, test_log_likelihood=-10.0,
                  test_log_likelihood_low=-10.5)
             for seed, done, loss in ((0, 40, -1.0), (1, 60, -2.0), (2, 50, -8022.0))]
    (tmp_path / "table2.json").write_text(json.dumps({"schema": 1, "cells": cells}))
    row = next(row for row in gather(2, tmp_path) if row.name == "redwine-sm")
    assert (row.steps, row.ended, row.length()) == ((40, 60), ("patience",), "40 to 60")
    assert row.entries[0].quartiles == (-4012.0, -2.0, -1.5)         # the wild seed moves the mean, not the median
    assert row.entries[0].robust() == "-2 [-4012, -1.5]"
    early, gap = row.entries[3:5]
    assert early.ours == row.entries[0].ours          # patience did end them: what they report is what it reports
    assert gap.ours == pytest.approx(0.5)


def test_whole_runs_go_first_once_they_have_as_many_seeds_and_variants_have_rows_of_their_own(tmp_path):
    old = [cell("redwine-deq-sm", seed, 100, done=30, test_sm_loss=-1.0) for seed in (0, 1)]
    new = [cell("redwine-deq-sm", seed, 100, test_sm_loss=-5.0, early_test_sm_loss=-2.0) | {"stopped_by": "steps"}
           for seed in (0, 1)]
    other = cell("redwine-deq-sm", 0, 100, test_sm_loss=-7.0) | {"stopped_by": "steps", "variant": "released map"}

    def rows(cells):
        (tmp_path / "table2.json").write_text(json.dumps({"schema": 1, "cells": cells}))
        return {row.name: row for row in gather(2, tmp_path)}

    found = rows([*old, new[0], other])
    assert (found["redwine-deq-sm"].entries[0].ours, found["redwine-deq-sm"].ended) == (-1.0, ("patience",))
    variant = found["redwine-deq-sm (released map)"]
    assert (variant.entries[0].ours, variant.entries[0].printed, variant.seeds) == (-7.0, None, 1)
    found = rows([*old, *new])
    assert (found["redwine-deq-sm"].entries[0].ours, found["redwine-deq-sm"].length()) == (-5.0, "100")
    assert found["redwine-deq-sm"].entries[3].ours == -2.0
    assert "redwine-deq-sm (released map)" not in found


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
    (folded,) = [block for block in blocks if isinstance(block, Folded)]
    assert folded.lines == ["`deqproof something`: commit aaaaaaaaaa, 2026-01-02, CPU, 1 threads"], "each run once"
    assert "Nothing was run." in tables[0].caption
    assert "Nothing was run." not in tables[1].caption
    for table in tables:
        for index in range(1, len(table.columns)):
            assert any(row[index] not in (None, "") for row in table.rows), "an empty column is shown"
