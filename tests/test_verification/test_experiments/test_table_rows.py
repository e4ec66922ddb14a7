"""Rows of tables compared: which runs belong together, and what their interval allows to say."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from verification.claims import table_rows as claims
from verification.context import Context
from verification.evidence import Outcome
from verification.experiments.table_rows import exact_loss, row_cells, welch
from verification.needs import NotAtHand
from verification.paper_tables import comparable

LOSSES = st.lists(st.floats(-100, 100), min_size=2, max_size=6)


@given(first=LOSSES, second=LOSSES)
def test_the_interval_is_that_of_welchs_test(first, second):
    gap = welch(first, second)
    assert gap.mean == pytest.approx(np.mean(first) - np.mean(second), abs=1e-12)
    if min(np.ptp(first), np.ptp(second)) > 1e-2:
        interval = ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
        assert gap.half_width == pytest.approx((interval.high - interval.low) / 2, rel=1e-6)


def test_one_run_has_no_interval():
    with pytest.raises(ValueError, match="two runs a row at least, got 1 and 3"):
        welch([1.0], [1.0, 2.0, 3.0])


def run(seed, asked, reduced):
    return {"seed": seed, "steps_asked": asked, "reduced": reduced}


def test_runs_of_one_length_and_those_that_patience_ended_belong_together():
    short = [run(0, 10, True), run(1, 10, True), run(2, 10, False)]
    assert comparable(short) == short
    # one long run alone does not displace three short ones: its seed and the one that had ended are two of three
    assert comparable([*short, run(0, 99, False)]) == short
    both = [run(0, 99, False), run(1, 99, False)]
    assert comparable([*short, *both]) == [*both, short[2]]
    assert comparable([]) == []


def cell(row, seed, own, exact=None):
    numbers = {"test_sm_loss": own, "test_log_likelihood": -1.0}
    if exact is not None:
        numbers["test_sm_loss_exact"] = exact
    return {"row": row, "seed": seed, "steps": 10, "steps_asked": 10, "steps_of_the_paper": 100, "reduced": False,
            "numbers": numbers,
            "curve": {"step": [5, 10], "validation": [1.0, own], "spectral_radius": [0.1, 0.2]}}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The equilibrium leads by its own derivatives, and by exact ones on red wine alone."""
    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    cells = []
    for data in claims.UCI:
        lead = 0.0 if data == "redwine" else 8.0
        cells += [cell(f"{data}-deq-sm", seed, -10 - 0.1 * seed, -10 + lead - 0.1 * seed) for seed in range(3)]
        cells += [cell(f"{data}-{row}", seed, -5 + 0.2 * seed) for row in claims.EXPLICIT for seed in range(3)]
    (tmp_path / "table2.json").write_text(json.dumps({"schema": 1, "cells": cells}))
    return tmp_path


def test_own_and_exact_derivatives_are_told_apart(stored):
    context = Context()
    assert [found.outcome for found in claims.reported_losses(context)] == [Outcome.HOLDS] * 3
    outcomes = [found.outcome for found in claims.exact_losses(context)]
    assert outcomes == [Outcome.FAILS, Outcome.HOLDS, Outcome.FAILS]
    assert [found.outcome for found in claims.TOPIC.claims[0].control(context)] == [Outcome.FAILS]
    record = context.records["dkef-curves"]
    assert set(record) == set(claims.UCI)
    assert record["redwine"]["rows"]["deq-sm"][0]["spectral_radius"] == [0.1, 0.2]
    with pytest.raises(NotAtHand, match=r"table3.json has fewer than two runs of gaussian-100-deq-sm"):
        claims._lowest(claims.GAUSSIAN, claims.own_loss)


def test_shortened_runs_decide_nothing(stored):
    path = stored / "table2.json"
    path.write_text(path.read_text().replace('"reduced": false', '"reduced": true'))
    assert {found.outcome for found in claims.reported_losses(Context())} == {Outcome.UNKNOWN}


def test_a_reported_order_against_the_true_one_is_found(stored):
    path = stored / "table2.json"
    cells = json.loads(path.read_text())["cells"]
    assert [found.outcome for found in claims.reported_order(Context())] == [Outcome.HOLDS] * 3
    (victim,) = [cell for cell in cells if cell["row"] == "whitewine-deq-sm" and cell["seed"] == 2]
    victim["numbers"] |= {"test_sm_loss": -8000.0, "test_sm_loss_exact": 50.0}
    path.write_text(json.dumps({"schema": 1, "cells": cells}))
    *_, found = claims.reported_order(Context())
    assert found.outcome is Outcome.FAILS
    assert found.numbers["pairs out of order"] == 2
    assert "-8000.00 (exact 50.00" in found.numbers["reported lower"]
    assert [item.outcome for item in claims._ordered(claims.UCI, claims.exact_loss)] == [Outcome.HOLDS] * 3


def test_an_equilibrium_without_its_exact_loss_is_not_judged_by_another(stored):
    (deq, *_) = row_cells(stored / "table2.json", "redwine-deq-sm")
    del deq["numbers"]["test_sm_loss_exact"]
    with pytest.raises(KeyError, match="test_sm_loss_exact"):
        exact_loss(deq)


def test_no_stored_table_contradicts_the_paper_outright():
    for claim in claims.TOPIC.claims[:2]:
        outcomes = {found.outcome for found in claim.check(Context())}
        assert Outcome.FAILS not in outcomes
