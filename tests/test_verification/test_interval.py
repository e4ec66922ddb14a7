"""Three-valued comparison, against exact rational endpoints."""

import operator
from fractions import Fraction

import mpmath
import pytest
from flint import arb, arb_mat, ctx
from hypothesis import given
from hypothesis import strategies as st
from mpmath import iv

from verification.evidence import Method, Outcome
from verification.methods.interval import (
    Certainty,
    agree,
    all_inside,
    as_arb,
    as_interval,
    contains,
    inside,
    interval_evidence,
    is_finite,
    less,
    less_equal,
    outcome,
    precision,
)

SMALL = st.integers(-8, 8)
PAIR = st.tuples(SMALL, SMALL).map(sorted)


def ball(ends):
    return arb(Fraction(sum(ends), 2).__float__(), (ends[1] - ends[0]) / 2)


@given(a=PAIR, b=PAIR)
def test_interval_comparison_is_that_of_the_sets(a, b):
    for compare, name in ((less, "lt"), (less_equal, "le")):
        assert compare(iv.mpf(a), iv.mpf(b)) is truth(a, b, name)
    assert contains(iv.mpf(a), iv.mpf(b)) is containment(a, b)


@given(a=PAIR, b=PAIR)
def test_ball_comparison_claims_nothing_false(a, b):
    # A ball's radius is rounded up to 30 bits, so that ends that touch may overlap: doubt is allowed there, no more.
    touching = bool(set(a) & set(b))
    for compare, name in ((less, "lt"), (less_equal, "le")):
        answer = compare(ball(a), ball(b))
        assert answer is truth(a, b, name) or (touching and answer is Certainty.UNKNOWN)
    answer = contains(ball(a), ball(b))
    assert answer is containment(a, b) or (touching and answer is not Certainty.CERTAINLY_NOT)


def truth(a, b, name):
    answers = {getattr(operator, name)(x, y) for x in a for y in b}
    wanted = {frozenset({True}): Certainty.CERTAINLY, frozenset({False}): Certainty.CERTAINLY_NOT}
    return wanted.get(frozenset(answers), Certainty.UNKNOWN)


def containment(a, b):
    if a[0] <= b[0] and b[1] <= a[1]:
        return Certainty.CERTAINLY
    return Certainty.CERTAINLY_NOT if b[1] < a[0] or a[1] < b[0] else Certainty.UNKNOWN


def test_undecided_nan_and_bool():
    wide = arb(1, 0.5)
    assert less(wide, 1.2) is Certainty.UNKNOWN
    assert less(arb("nan"), 1) is Certainty.UNKNOWN
    assert contains(arb("nan"), 1) is Certainty.UNKNOWN
    assert inside(1, arb("nan")) is Certainty.UNKNOWN
    assert not is_finite(arb_mat([[1, arb("nan")]]))
    with pytest.raises(TypeError, match="three-valued"):
        bool(less(0, 1))
    with pytest.raises(TypeError, match="real number"):
        less(0, True)
    with pytest.raises(TypeError, match="real number"):
        less(0, [1])


def test_interior_needs_room():
    assert inside(arb(0, 1), arb(0, 0.5)).certain
    assert inside(arb(0, 1), arb(0.5, 0.625)) is Certainty.UNKNOWN
    assert contains(arb(0, 1), arb(0.5, 0.375)).certain
    assert inside(arb(0, 1), arb(3, 1)) is Certainty.CERTAINLY_NOT
    assert all_inside(arb_mat([[arb(0, 1), arb(0, 1)]]), arb_mat([[0, arb(1, 0.25)]])) is Certainty.UNKNOWN
    assert all_inside(arb_mat([[arb(0, 1), arb(0, 1)]]), arb_mat([[0, 2]])) is Certainty.CERTAINLY_NOT


def test_floats_are_binary_and_strings_are_decimal():
    with precision(200):
        assert less(Fraction(1, 10), 0.1).certain  # the double nearest 0.1 lies above it
        assert less_equal(as_arb("0.1"), 0.1).certain
        assert as_arb(mpmath.mpf(0.1)).is_exact()


@given(st.fractions(-1000, 1000, max_denominator=10**6))
def test_conversions_enclose(value):
    with precision(60):
        for enclosure in (as_arb(value), as_interval(value), as_interval(as_arb(value)), as_arb(as_interval(value))):
            assert contains(enclosure, value) is not Certainty.CERTAINLY_NOT
            low, high = as_interval(enclosure)._mpi_
            assert exact(low) <= value <= exact(high)


def exact(raw):
    sign, man, exp, _ = raw
    return (-1) ** sign * man * Fraction(2) ** exp


def test_infinite_interval_is_refused():
    with pytest.raises(ValueError, match="finite"):
        as_interval(float("nan"))


def test_two_arithmetics_agree_and_a_wrong_one_is_seen():
    _, _, answer = agree(lambda x, y: (x * x - 2) / y + y ** 3, "0.3", Fraction(5, 7))
    assert answer is Certainty.CERTAINLY
    _, _, answer = agree(lambda x: x + (1 if isinstance(x, arb) else 2), 1)
    assert answer is Certainty.CERTAINLY_NOT


def test_precision_comes_back_after_an_error():
    before = ctx.prec, iv.prec
    with pytest.raises(ZeroDivisionError), precision(300):
        raise ZeroDivisionError
    assert (ctx.prec, iv.prec) == before
    with pytest.raises(ValueError, match="2 bits"), precision(0):
        pass


def test_evidence_keeps_doubt():
    sure = interval_evidence(Certainty.CERTAINLY, "one case", complete=True, gap=1.0)
    assert (sure.method, sure.outcome, sure.complete) == (Method.INTERVAL, Outcome.HOLDS, True)
    doubt = interval_evidence(Certainty.UNKNOWN, "one case", complete=True)
    assert (doubt.outcome, doubt.complete) == (Outcome.UNKNOWN, False)
    assert outcome(Certainty.CERTAINLY_NOT) is Outcome.FAILS
