"""A control must turn the verdict of the claim when its fault is planted in the claim's own evidence."""

import math

import pytest

from verification.controls import alike, plant, turned
from verification.evidence import Evidence, Method, Outcome, Subject
from verification.verdict import Verdict


def item(outcome, method=Method.NUMERICAL, subject=Subject.STATEMENT, complete=False, **numbers):
    return Evidence(method, Outcome(outcome), "a test", numbers, subject=subject, complete=complete)


GOOD = [item("holds", error=1e-16)]


def test_a_planted_fault_turns_a_supported_claim():
    assert turned(GOOD, [item("fails", error=1.0)], Verdict.SUPPORTED) == ""


def test_a_proof_is_no_shield_where_numbers_fail():
    evidence = [item("holds", Method.SYMBOLIC, complete=True, a=1), *GOOD]
    assert turned(evidence, [item("fails", error=1.0)], Verdict.PROVED) == ""


@pytest.mark.parametrize("control", [item("fails", other=1.0), item("fails", Method.SYMBOLIC, error=1.0)])
def test_a_control_on_another_measurement_is_none(control):
    assert "nothing that the claim rests on" in turned(GOOD, [control], Verdict.SUPPORTED)


def test_a_control_that_does_not_turn_the_verdict_is_none():
    assert "stays supported" in turned(GOOD, [item("holds", error=0.5)], Verdict.SUPPORTED)


def test_a_refuted_claim_turns_when_the_true_statement_is_planted():
    assert turned([item("fails", error=1.0)], [item("holds", error=0.0)], Verdict.REFUTED) == ""
    both = [item("fails", error=1.0), item("fails", Method.MONTE_CARLO, rate=1.0)]
    assert "stays refuted" in turned(both, [item("holds", error=0.0)], Verdict.REFUTED)


def test_a_corrected_claim_turns_when_the_correction_is_spoilt():
    evidence = [item("fails", error=1.0), item("holds", subject=Subject.CORRECTION, error=0.0)]
    assert turned(evidence, [item("fails", error=2.0)], Verdict.CORRECTED) == ""


def test_of_several_control_items_for_one_place_a_failure_stays():
    planted = plant(GOOD, [item("fails", error=1.0), item("holds", error=0.0)])
    assert [found.outcome for found in planted] == [Outcome.FAILS]


def test_measurements_are_matched_by_method_and_name():
    assert alike(item("holds", error=0.0), item("fails", error=math.nan, more=1))
    assert not alike(item("holds", error=0.0), item("holds", gap=0.0))
    assert alike(item("holds"), item("fails")), "evidence without numbers is matched by its method alone"
