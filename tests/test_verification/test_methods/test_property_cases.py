"""Gathered cases: failures, NaN and vacuous comparisons are counted, not lost."""

import pytest

from verification.evidence import Outcome
from verification.methods.property_cases import Comparison, gather
from verification.methods.symbolic import identities


def test_counts_and_worst():
    evidence = gather([Comparison(1e-12, 1e-10, 1.0, "a"), Comparison(5e-11, 1e-10, 1.0, "b"),
                       Comparison(0.0, 1.0, 1.0)], "three")
    assert evidence.outcome is Outcome.HOLDS
    assert evidence.counts == {"true": 2, "false": 0, "vacuous": 1}
    assert evidence.numbers["worst case"] == "b"


def test_nan_fails_and_only_vacuous_is_vacuous():
    assert gather([Comparison(float("nan"), 1e-3, 1.0)], "nan").outcome is Outcome.FAILS
    good = Comparison(0.0, 1e-3, 1.0)
    for values in ((float("nan"), 1e-3, 1.0), (0.0, float("nan"), 1.0), (0.0, 1e-3, float("nan"))):
        evidence = gather([good, Comparison(*values), good], "one is no number")
        assert evidence.outcome is Outcome.FAILS
        assert evidence.counts == {"true": 2, "false": 1, "vacuous": 0}
    assert gather([Comparison(0.0, 0.0, 0.0)], "zero").outcome is Outcome.VACUOUS
    assert gather([Comparison(2e-3, 1e-3, 1.0)], "large").outcome is Outcome.FAILS
    with pytest.raises(ValueError, match="no case"):
        gather([], "none")


def test_identities():
    assert identities({"a": True}, "one", complete=True).complete
    failed = identities({"a": True, "b": False}, "two", complete=True)
    assert failed.outcome is Outcome.FAILS
    assert not failed.complete
    with pytest.raises(ValueError, match="vacuously"):
        identities({}, "none")
