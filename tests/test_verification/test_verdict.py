"""The truth table of `combine`, written out by hand: nothing here is computed from the code under test."""

import itertools

import pytest

from verification.evidence import Evidence, Method, Outcome, Subject, holds_if, within
from verification.verdict import Verdict, combine

HOLDS, FAILS, UNKNOWN, VACUOUS = Outcome.HOLDS, Outcome.FAILS, Outcome.UNKNOWN, Outcome.VACUOUS


def said(outcome, complete=False, subject=Subject.STATEMENT):
    return Evidence(
        Method.SYMBOLIC if complete else Method.NUMERICAL, outcome, "a test", complete=complete, subject=subject
    )


def mended(outcome):
    return said(outcome, subject=Subject.CORRECTION)


TABLE = [
    ([], Verdict.UNTESTED),
    ([mended(HOLDS)], Verdict.UNTESTED),
    ([said(HOLDS)], Verdict.SUPPORTED),
    ([said(HOLDS, complete=True)], Verdict.PROVED),
    ([said(HOLDS), said(HOLDS, complete=True)], Verdict.PROVED),
    ([said(FAILS)], Verdict.REFUTED),
    ([said(FAILS), mended(HOLDS)], Verdict.CORRECTED),
    ([said(FAILS), mended(FAILS)], Verdict.REFUTED),
    ([said(FAILS), mended(UNKNOWN)], Verdict.REFUTED),
    ([said(FAILS), mended(VACUOUS)], Verdict.REFUTED),
    ([said(FAILS), mended(HOLDS), mended(FAILS)], Verdict.REFUTED),
    ([said(UNKNOWN)], Verdict.UNDECIDED),
    ([said(HOLDS), said(UNKNOWN)], Verdict.UNDECIDED),
    ([said(HOLDS, complete=True), said(UNKNOWN)], Verdict.UNDECIDED),
    ([said(VACUOUS)], Verdict.VACUOUS),
    ([said(VACUOUS), said(HOLDS)], Verdict.SUPPORTED),
    ([said(VACUOUS, complete=True), said(HOLDS)], Verdict.SUPPORTED),
    ([said(HOLDS), said(FAILS)], Verdict.REFUTED),
    ([said(HOLDS, complete=True), said(FAILS)], Verdict.REFUTED),
    ([said(UNKNOWN), said(FAILS)], Verdict.REFUTED),
]


@pytest.mark.parametrize(("evidence", "verdict"), TABLE)
def test_truth_table(evidence, verdict):
    for order in itertools.permutations(evidence):
        assert combine(order) is verdict


def test_every_combination_has_a_verdict():
    choices = [said(o, c) for o in Outcome for c in (False, True)] + [mended(o) for o in Outcome]
    for items in itertools.product(choices, repeat=3):
        verdict = combine(items)
        assert isinstance(verdict, Verdict)
        assert verdict is not Verdict.ERROR
        statement = [item.outcome for item in items if item.subject is Subject.STATEMENT]
        assert (FAILS in statement) == (verdict in (Verdict.REFUTED, Verdict.CORRECTED))


def test_a_verdict_is_no_truth_value():
    with pytest.raises(TypeError, match="not a truth value"):
        bool(Verdict.SUPPORTED)


def test_only_symbolic_and_interval_evidence_can_be_complete():
    for method in Method:
        if method in (Method.SYMBOLIC, Method.INTERVAL):
            assert Evidence(method, HOLDS, "all", complete=True).complete
        else:
            with pytest.raises(ValueError, match="cannot be a complete proof"):
                Evidence(method, HOLDS, "all", complete=True)


def test_comparison_helpers():
    nan = float("nan")
    assert within(1e-12, 1e-9) is HOLDS
    assert within(1e-6, 1e-9) is FAILS
    assert within(nan, 1e-9) is FAILS
    assert within(1e-9, nan) is FAILS
    assert within(1.0, 2.0, reference_norm=1.5) is VACUOUS
    assert holds_if(True) is HOLDS
    assert holds_if(False) is FAILS
