"""The restated released fit: its closed form against the recursion by quadrature, and where it stops."""

import numpy as np
import pytest

import analysis
from analysis.rmt.explicit import explicit_coefficients
from analysis.rmt.networks import leaky_layer
from analysis.rmt.released import leaky_coefficients, mismatch, released_fit


def test_the_closed_form_agrees_with_the_recursion():
    got = explicit_coefficients([leaky_layer(0.8, 0.3), leaky_layer(0.9, 0.5)], 1.2)
    closed = leaky_coefficients((1.1, 0.5, 1.4, 0.4), 1.2)
    np.testing.assert_allclose(closed, [got.alpha1, got.alpha2, got.alpha3, got.gamma2], rtol=1e-12)


def test_the_fit_succeeds_at_one_half_and_stops_short_at_eight_tenths():
    """A sum of squares near 1e-14 leaves residuals of 1e-7 at best; at 0.8 it is a thousand times that at the least."""
    good, short = (released_fit(analysis.solve_equations("relu", a2)) for a2 in (0.5, 0.8))
    assert max(map(abs, good.residuals)) < 1e-4
    assert max(map(abs, short.residuals)) > 1e-3
    assert len(analysis.equivalent_networks(analysis.solve_equations("relu", 0.8), depth=2)) == 2


def test_the_shadowed_formula_is_far_off():
    fit = released_fit(analysis.solve_equations("relu", 0.3))
    assert fit.inner_tau == pytest.approx(0.65, abs=0.01)
    assert fit.shadowed_tau == pytest.approx(0.009, abs=0.001)


def test_a_network_matched_at_the_same_strength_has_no_mismatch():
    assert mismatch(0.2, 0.2) == (0.0, 0.0, 0.0, 0.0)
    assert max(map(abs, mismatch(0.2, 0.3))) > 0.05
