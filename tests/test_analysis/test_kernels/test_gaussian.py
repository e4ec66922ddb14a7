"""Gaussian expectations against closed forms, mpmath and each other; refusals."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.activation_facts import lipschitz_constant, precise_derivative, precise_value
from analysis.activations import ACTIVATIONS, as_activation, hard_tanh, leaky_relu
from analysis.errors import GrowsTooFast, NotResolved
from analysis.gaussian import expect, expected_derivative_square, moments, precise_moments

NAMES = sorted(ACTIVATIONS)
# Sums of a few thousand terms of size one, each rounded once: 1e-14 leaves a factor of ten.
ROUNDING = 1e-14


@given(st.integers(0, 9), st.floats(0.05, 4.0))
def test_monomials_have_the_moments_of_the_normal(power, tau):
    truth = 0.0 if power % 2 else math.prod(range(1, power, 2)) * tau**power
    got = expect(lambda x: x**power, tau)
    scale = 2 ** (power / 2) * math.gamma((power + 1) / 2) / math.sqrt(math.pi) * tau**power  # E |tau xi|^power
    assert abs(got.value - truth) <= ROUNDING * scale
    assert abs(got.value - truth) <= 50 * got.error + ROUNDING * scale


@given(st.floats(0.1, 3.0), st.floats(-2.0, 2.0))
def test_an_undeclared_kink_is_found(tau, kink):
    """E max(tau xi - k, 0) = tau pdf(k/tau) - k (1 - cdf(k/tau))."""
    z = kink / tau
    truth = tau * math.exp(-z * z / 2) / math.sqrt(2 * math.pi) - kink * math.erfc(z / math.sqrt(2)) / 2
    for kinks in ((), (kink,)):
        assert expect(lambda x: np.maximum(x - kink, 0), tau, kinks=kinks).value == pytest.approx(
            truth, abs=ROUNDING * (tau + abs(kink)))


@pytest.mark.parametrize("tau", [1e-3, 1.0, 30.0])
def test_relu_moments_in_closed_form(tau):
    at = moments("relu", tau)
    assert at.slope == pytest.approx(0.5, rel=ROUNDING)
    assert at.curvature == pytest.approx(1 / (tau * math.sqrt(2 * math.pi)), rel=ROUNDING)
    assert at.variance == pytest.approx(tau**2 * (0.5 - 0.5 / math.pi), rel=ROUNDING)
    assert at.square_curvature == pytest.approx(1 - 1 / math.pi, rel=10 * ROUNDING)
    assert at.derivative_square == pytest.approx(0.5, rel=ROUNDING)


@pytest.mark.parametrize("name", [*NAMES, leaky_relu(0.3), hard_tanh(1.3, 0.7)],
                         ids=lambda item: getattr(item, "name", item))
def test_moments_agree_with_mpmath(name):
    tau = 0.9
    fast, slow = moments(name, tau), precise_moments(name, mpmath.mpf(tau), 18)
    for field in ("mean", "slope", "curvature", "variance", "square_curvature"):
        assert abs(getattr(fast, field) - float(getattr(slow, field))) <= 1e-13, field
    if math.isinf(fast.derivative_square):
        assert mpmath.isinf(slow.derivative_square)
    else:
        assert fast.derivative_square == pytest.approx(float(slow.derivative_square), abs=1e-13)


@pytest.mark.parametrize("name", ["tanh", "softplus", "elu", "swish"])
def test_the_derivative_by_interpolation_agrees_with_the_known_one(name):
    phi = as_activation(name)
    # Differentiating a polynomial of degree 19 loses about order^2 = 400 units of rounding, squared norms double it.
    assert expected_derivative_square(phi.value, 1.1) == pytest.approx(expected_derivative_square(phi, 1.1), abs=1e-10)


def test_a_jump_makes_the_squared_derivative_infinite():
    assert math.isinf(expected_derivative_square("step", 1.0))
    assert math.isinf(expected_derivative_square(lambda x: np.sign(x - 0.3), 1.3))


@pytest.mark.parametrize("phi", [lambda x: np.exp(x * x), lambda x: np.exp(x * x / 3.9), lambda x: np.sinh(x) ** 40])
def test_a_phi_that_grows_too_fast_is_refused(phi):
    with pytest.raises(GrowsTooFast, match="grows too fast"):
        moments(phi, 1.0)


def test_a_phi_just_inside_is_accepted():
    """E exp(xi^2/4) = sqrt(2), though its square is infinite for exp(x^2/4): take exp(x^2/16)."""
    assert expect(lambda x: np.exp(x * x / 16), 1.0).value == pytest.approx(math.sqrt(8 / 7), rel=ROUNDING)


def test_bad_input_is_named():
    with pytest.raises(TypeError, match=r"np\.maximum instead of max"):
        expect(lambda x: max(x, 0), 1.0)
    with pytest.raises(ValueError, match="elementwise"):
        expect(lambda x: x[:1], 1.0)
    with pytest.raises(ValueError, match="tau must be positive"):
        expect("relu", 0.0)
    with pytest.raises(GrowsTooFast, match="not finite"):
        expect(lambda x: x * np.nan, 1.0)
    with pytest.raises(NotResolved, match="not smooth"):
        expect(lambda x: np.sin(1e7 * x), 1.0)
    with pytest.raises(ValueError, match="pass precise="):
        precise_moments(lambda x: x, mpmath.mpf(1), 20)


@pytest.mark.parametrize("name", NAMES)
def test_facts_agree_with_the_float_functions(name, rng):
    phi = ACTIVATIONS[name]
    value, derivative, bound = precise_value(phi), precise_derivative(phi), lipschitz_constant(phi)
    x = rng.normal(size=20) * 2
    np.testing.assert_allclose([float(value(mpmath.mpf(v))) for v in x], phi(x), rtol=1e-14, atol=1e-15)
    if derivative is not None:
        slopes = [float(derivative(mpmath.mpf(v))) for v in x]
        np.testing.assert_allclose(slopes, phi.derivative(x), rtol=1e-13, atol=1e-15)
    if bound is not None:
        grid = np.linspace(-12, 12, 240001)
        slopes = np.abs(phi.derivative(grid))
        assert slopes.max() <= bound * (1 + 1e-12)
        assert slopes.max() >= bound * (1 - 1e-4)
