import json

import numpy as np
import pytest
import torch

import deq
from deq.data import Tabular
from deq.models import DKEF
from deq.training.dkef_objective import evaluate as training_loss
from deq.training.dkef_objective import fit_alpha, solve_alpha
from verification.claims import training_outcome
from verification.context import Context
from verification.evidence import Outcome
from verification.experiments.outcome import common, interval, make_run, paired, train_all
from verification.needs import NotAtHand

SMALL = {"width": 5, "inducing": 8}


def cell(rule, seed, losses, steps=(0, 10, 20, 30), stopped=""):
    kinds = {key: list(losses) for key in ("own", "exact", "deployed")}
    return {"table": "parkinson", "rule": rule, "seed": seed, "steps": list(steps), "losses": kinds, "stopped": stopped,
            "steps_of_the_paper": 11100, "provenance": {"commit": "0" * 40, "date": "2026-01-01T00:00:00"}}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Write made-up runs: at the last step the phantom is off by the given gap of each seed."""
    path = tmp_path / "exact-vs-phantom.json"
    monkeypatch.setattr(training_outcome, "STORED", path)

    def write(gaps):
        cells = [cell("exact", seed, [-1.0, -5.0, -9.0, -100.0 - seed]) for seed in range(len(gaps))]
        cells += [cell("phantom-2", seed, [-1.0, -5.0, -9.0, -100.0 - seed + gap]) for seed, gap in enumerate(gaps)]
        path.write_text(json.dumps({"schema": 1, "cells": cells}))

    return write


@pytest.mark.parametrize(("gaps", "outcome"), [
    ([0.1, -0.1, 0.0, 0.05], Outcome.HOLDS),     # about zero, narrow
    ([0.2, 0.21, 0.2, 0.19], Outcome.HOLDS),     # not zero, but well within 1 % of 101.5
    ([5.0, 5.1, 4.9, 5.0], Outcome.FAILS),       # surely larger than the margin
    ([-5.0, -5.1, -4.9, -5.0], Outcome.FAILS),   # the phantom better: not the same end either
    ([9.0, -8.0, 3.0, -4.0], Outcome.UNKNOWN),   # too scattered to tell
])
def test_the_interval_decides(store, gaps, outcome):
    store(gaps)
    (found,) = training_outcome.outcome(Context())
    assert found.outcome is outcome
    assert found.numbers["mean difference"] == pytest.approx(np.mean(gaps))


def test_the_control_holds_and_the_record_is_complete(store):
    store([0.1, -0.1, 0.0])
    context = Context()
    training_outcome.outcome(context)
    claim, _ = training_outcome.TOPIC.claims
    assert [found.outcome for found in claim.control(Context())] == [Outcome.HOLDS]
    record = context.records["training-outcome"]["parkinson"]
    assert record["steps"] == [0, 10, 20, 30]
    assert record["difference"]["mean"] == pytest.approx([0, 0, 0, 0], abs=1e-12)
    assert len(record["losses"]["exact"]["own"]["half_width"]) == 4


def test_each_table_is_judged_on_its_own(store):
    store([0.1, -0.1, 0.0])
    stored = json.loads(training_outcome.STORED.read_text())
    wine = [{**one, "table": "redwine", "steps_of_the_paper": 30} for one in stored["cells"]]
    for one in wine:
        if one["rule"] == "phantom-2":
            one["losses"] = {kind: [*values[:-1], values[-1] + 7] for kind, values in one["losses"].items()}
    stored["cells"] += wine
    training_outcome.STORED.write_text(json.dumps(stored))
    first, second = training_outcome.outcome(Context())
    assert (first.outcome, second.outcome) == (Outcome.HOLDS, Outcome.FAILS)
    assert "parkinson" in first.domain
    assert "reduced" in first.domain
    assert "redwine" in second.domain
    assert "reduced" not in second.domain


def test_a_report_that_is_too_good_is_refuted_and_the_control_holds(store):
    store([0.0, 0.1, 0.0])
    assert training_outcome.reported(Context())[0].outcome is Outcome.HOLDS
    stored = json.loads(training_outcome.STORED.read_text())
    for one in stored["cells"]:
        if one["rule"] == "phantom-2":
            one["losses"]["own"][-1] -= 5
    training_outcome.STORED.write_text(json.dumps(stored))
    assert training_outcome.reported(Context())[0].outcome is Outcome.FAILS
    _, claim = training_outcome.TOPIC.claims
    assert [found.outcome for found in claim.control(Context())] == [Outcome.HOLDS]


def test_without_stored_runs_the_claim_says_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.setattr(training_outcome, "STORED", tmp_path / "none.json")
    with pytest.raises(NotAtHand, match="deqproof compare"):
        training_outcome.outcome(Context())


def test_only_seeds_and_steps_of_both_rules_count():
    cells = [cell("exact", 0, [1, 2, 3, 4]), cell("exact", 1, [1, 2, 3], (0, 10, 20)), cell("exact", 2, [1, 2, 3, 4]),
             cell("phantom-2", 0, [2, 3, 4, 9]), cell("phantom-2", 1, [2, 3, 5, 9]),
             cell("phantom-2", 2, [0, 0, 0, 0], stopped="lost"), cell("phantom-2", 3, [0, 0, 0, 0])]
    assert common(cells, ("exact", "phantom-2")) == ([0, 1], [0, 10, 20])
    found = paired(cells, "phantom-2", "exact", ("exact", "exact"))
    assert found.step == 20
    assert found.differences == (1, 2)
    assert found.interval == pytest.approx((1.5 - 12.7062 * 0.5, 1.5 + 12.7062 * 0.5), abs=1e-4)  # t of one degree
    with pytest.raises(ValueError, match="share 1 seeds"):
        common(cells[:1] + cells[3:], ("exact", "phantom-2"))


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match="at least two"):
        interval([1.0])


@pytest.fixture
def table(generator):
    rows = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    return Tabular("made-up", rows[:200], rows[200:230], rows[230:])


def test_rules_start_alike_and_see_the_same_batches(table):
    exact, phantom = (make_run(table, 3, rule, 4, **SMALL) for rule in ("exact", "phantom-2"))
    saved = []
    train_all([exact, phantom], 4, 2, lambda step: saved.append(step) or True)
    assert saved == exact.steps == phantom.steps == [0, 2, 4]
    assert torch.equal(exact.trainer.order, phantom.trainer.order)
    assert exact.trainer.position == phantom.trainer.position > 0
    assert exact.losses["exact"][0] == phantom.losses["exact"][0]
    assert exact.losses["exact"][2] != phantom.losses["exact"][2]
    # under an exact rule all kinds are one, up to rounding in solves of condition up to 1e3
    for kind in ("own", "deployed"):
        assert exact.losses[kind] == pytest.approx(exact.losses["exact"], rel=1e-9)
    assert phantom.losses["own"] != pytest.approx(phantom.losses["exact"], rel=1e-9)


def test_the_exact_loss_is_that_of_the_same_weights_under_the_exact_rule(table):
    phantom = make_run(table, 3, "phantom-2", 4, **SMALL)
    phantom.advance(4)
    twin = DKEF(3, variant="deq", gradient=deq.Exact(3), tol=1e-10, **SMALL)
    twin.load_state_dict(phantom.trainer.model.state_dict())
    alpha = solve_alpha(*fit_alpha(twin, phantom.rows), len(phantom.rows), twin.log_ridge.detach())
    expected = training_loss(twin, phantom.test, alpha=alpha).mean().item()
    assert phantom.losses["exact"] == pytest.approx([expected], rel=1e-9)


def test_training_ends_when_told_to(table):
    run = make_run(table, 0, "exact", 6, **SMALL)
    train_all([run], 6, 2, lambda step: step < 2)
    assert run.steps == [0, 2]


def test_more_steps_than_epochs_hold_are_refused(table):
    with pytest.raises(ValueError, match="at most 300"):
        make_run(table, 0, "exact", 5000, **SMALL)
