"""The second arithmetic: exact rationals and mpmath values lie inside, definiteness is never claimed wrongly."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import iv

from analysis.rigorous import scalar_intervals
from analysis.rigorous.balls import working_precision
from analysis.rigorous.certainty import Certainty, as_arb, contains
from analysis.rigorous.fixedpoint import (
    ONE,
    Fixed,
    norm_inf_units,
    positive_definite,
    symmetric_norm_below,
    unit_matrix,
)
from analysis.rigorous.scalar_intervals import INTERVAL_ACTIVATIONS
from analysis.rigorous.smooth import BALL_ACTIVATIONS, NotSmooth

NUMBER = st.fractions(-50, 50, max_denominator=1000)
INTERVAL = st.tuples(NUMBER, NUMBER).map(sorted)


def holds(interval, value):
    return interval.low.item() <= value * ONE <= interval.high.item()


@given(a=INTERVAL, b=INTERVAL, s=st.fractions(0, 1), t=st.fractions(0, 1))
def test_operations_enclose_exact_results(a, b, s, t):
    x, y = (low + share * (high - low) for (low, high), share in ((a, s), (b, t)))
    left, right = Fixed.enclosing([tuple(a)], (1,)), Fixed.enclosing([tuple(b)], (1,))
    assert holds(left, x)
    assert holds(left + right, x + y)
    assert holds(left - right, x - y)
    assert holds(left * right, x * y)
    if a[0] > 0 and b[0] > 0:
        assert holds(left.divided(right), x / y)
        root = left.sqrt()
        assert root.low.item() ** 2 <= x * ONE * ONE <= root.high.item() ** 2
    if b[0] <= 0:
        with pytest.raises(ZeroDivisionError):
            left.divided(right)


def test_matrix_product_is_that_of_rationals(rng):
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
    product = Fixed.exact(a) @ Fixed.exact(b)
    for i in range(3):
        for j in range(2):
            exact = sum(Fraction(a[i, k]) * Fraction(b[k, j]) for k in range(4))
            assert product.low[i, j] <= exact * ONE <= product.high[i, j]
            assert product.rad[i, j] <= 4
    wide = Fixed.exact(a).widened(ONE // 10) @ Fixed.exact(b)
    moved = (a + 0.1 * np.sign(rng.normal(size=a.shape))) @ b
    assert np.all(wide.floats() - moved <= wide.rad.astype(object) / ONE + 1e-12)
    assert norm_inf_units(unit_matrix(3)) == ONE


@given(seed=st.integers(0, 10**6), size=st.integers(1, 6), shift=st.floats(-0.5, 0.5))
def test_definiteness_agrees_with_eigenvalues(seed, size, shift):
    half = np.random.default_rng(seed).normal(size=(size, size))
    matrix = half + half.T
    least = np.linalg.eigvalsh(matrix)[0]
    shifted = matrix + (shift - least) * np.eye(size)  # least eigenvalue `shift`, up to rounding
    if abs(shift) > 1e-10:
        assert positive_definite(Fixed.exact(shifted)) is (shift > 0)
    largest = max(np.abs(np.linalg.eigvalsh(half @ half.T)))
    gram = Fixed.exact(half) @ Fixed.exact(half).T
    assert symmetric_norm_below(gram, Fraction(largest * (1 + 1e-9) + 1e-12))
    assert not symmetric_norm_below(gram, Fraction(largest * (1 - 1e-9) - 1e-12))


@pytest.mark.parametrize("name", sorted(INTERVAL_ACTIVATIONS))
@given(centre=st.floats(-12, 12), radius=st.sampled_from([0.0, 1e-12, 0.3, 2.0]))
def test_two_libraries_of_activations_overlap(name, centre, radius):
    ours, other = INTERVAL_ACTIVATIONS[name], BALL_ACTIVATIONS[name]
    before = iv.prec
    iv.prec = 150
    try:
        interval = iv.mpf([mpmath.mpf(centre) - radius, mpmath.mpf(centre) + radius])
        with working_precision(150):
            ball = as_arb(interval)
            for order, function in enumerate((ours.value, ours.slope, ours.bend)):
                try:
                    wanted = other.derivative(order, ball)
                except NotSmooth:
                    continue
                assert contains(wanted, as_arb(function(interval))) is not Certainty.CERTAINLY_NOT
            assert contains(other.slope(ball), as_arb(ours.quotients(interval))) is not Certainty.CERTAINLY_NOT
        assert ours.everywhere == other.slope_bounds
    finally:
        iv.prec = before


@given(x=st.floats(-45, 45))
def test_error_function_by_its_series(x):
    with mpmath.workdps(90):
        enclosure = Fixed.exact([x]).apply(INTERVAL_ACTIVATIONS["erf"].value)
        sign, man, exp, _ = mpmath.erf(mpmath.mpf(x))._mpf_
        value = (-1) ** sign * man * Fraction(2) ** exp
        assert enclosure.low.item() - 2 <= value * ONE <= enclosure.high.item() + 2
        assert enclosure.rad.item() < 2 ** 20  # of 2^256


def test_kinks_are_refused_by_name():
    with pytest.raises(scalar_intervals.Undefined, match="kink"):
        INTERVAL_ACTIVATIONS["relu"].slope(iv.mpf([-1, 1]))
