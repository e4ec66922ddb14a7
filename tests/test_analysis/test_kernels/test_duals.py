"""Dual activations: closed forms, Mehler's series and quadrature against each other and against mpmath."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.activations import ACTIVATIONS, as_activation, hard_tanh, polynomial, two_slopes
from analysis.errors import GrowsTooFast
from analysis.gaussian.panels import resolve
from analysis.kernels import DualMethod, NotPiecewiseSmooth, dual
from analysis.kernels.closed_forms import piecewise_linear
from analysis.kernels.covariance import pair
from analysis.kernels.highprec import dual_reference

NAMES = ("relu", "tanh", "softplus", "elu", "erf")


@given(name=st.sampled_from(NAMES), suu=st.floats(0.2, 2.5), svv=st.floats(0.2, 2.5), rho=st.floats(-0.95, 0.95))
def test_agrees_with_mpmath(name, suu, svv, rho):
    suv = rho * np.sqrt(suu * svv)
    value, derivative = dual_reference(name, suu, svv, suv, digits=15)
    found = dual(name, suu, svv, suv)
    # the reference itself is good to 1e-12 (its rule against twice the points), the requirement is 1e-10
    assert abs(float(value) - found.value) <= 1e-11
    assert abs(float(derivative) - found.derivative) <= 1e-11


def covariances(rng, count):
    roots = rng.standard_normal((count, 2, 2))
    return (roots @ roots.transpose(0, 2, 1)).reshape(count, 4)[:, [0, 3, 1]].T


@pytest.mark.parametrize("activation", [*sorted(ACTIVATIONS), polynomial(1, 2, -0.5, 0.3), two_slopes(1.2, -0.3),
                                        hard_tanh(1.3, 0.6), lambda x: np.abs(x - 0.3) + np.sin(3 * x)],
                         ids=lambda a: getattr(as_activation(a), "name", "callable"))
def test_three_methods_agree_within_their_errors(activation, rng):
    suu, svv, suv = covariances(rng, 5)
    activation = as_activation(activation)
    methods = [DualMethod.MEHLER, DualMethod.QUADRATURE] + [DualMethod.CLOSED_FORM] * bool(activation.form)
    found = [dual(activation, suu, svv, suv, method=method) for method in methods]
    jumps = activation.name == "step"
    for a in found:
        for b in found:
            assert np.all(np.abs(a.value - b.value) <= a.value_error + b.value_error)
            if not jumps:
                assert np.all(np.abs(a.derivative - b.derivative) <= a.derivative_error + b.derivative_error)
    best = found[-1]
    usual = np.abs(suv) < 0.95 * np.sqrt(suu * svv)  # nearer to a line, kinks cost quadrature digits, and it says so
    assert best.value_error[usual].max(initial=0.0) < 1e-11
    # Price's theorem, by a central difference: h^2 times a third derivative, plus eps / h
    step = 1e-4 * np.sqrt(suu * svv - suv**2)
    up, down = (dual(activation, suu, svv, suv + sign * step, method=methods[-1]) for sign in (1, -1))
    slope = (up.value - down.value) / (2 * step)
    np.testing.assert_allclose(slope, best.derivative, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gap", [0.0, 1e-16, 1e-12, 1e-6])
@pytest.mark.parametrize("sign", [1, -1])
def test_relu_near_equal_points_keeps_its_digits(gap, sign):
    # the covariances that a double can hold; mpmath gets the very same ones
    suu, svv = 1.7, 0.9
    suv = sign * np.sqrt(suu * svv) * (1 - gap)
    while suv * suv > suu * svv:
        suv = np.nextafter(suv, 0)
    with mpmath.workdps(60):
        a, b, c = (mpmath.mpf(x) for x in (suu, svv, suv))
        if a * b < c * c:
            c = sign * mpmath.sqrt(a * b)
        psi = mpmath.pi - mpmath.acos(c / mpmath.sqrt(a * b))
        value = mpmath.sqrt(a * b) * (mpmath.sin(psi) - psi * mpmath.cos(psi)) / (2 * mpmath.pi)
        derivative = psi / (2 * mpmath.pi)
    found = dual("relu", suu, svv, suv)
    assert abs(float(derivative) - found.derivative) <= 4e-16
    assert abs(float(value) - found.value) <= 4e-15 * max(float(value), 0 if sign > 0 else 1e-30)


@pytest.mark.parametrize("name", ["elu", "hard_tanh", "relu", "tanh", "softplus"])
def test_equal_and_opposite_points(name, rng):
    s = rng.uniform(0.1, 3.0, 4)
    phi = as_activation(name)
    for sign in (1, -1):
        found = dual(name, s, s, sign * s)
        # at correlation +-1 the expectation has one variable; a fine trapezoid serves as the other route
        grid = np.linspace(-12, 12, 480_001)
        density = np.exp(-grid**2 / 2) / np.sqrt(2 * np.pi) * (grid[1] - grid[0])
        for n, variance in enumerate(s):
            u = np.sqrt(variance) * grid
            assert found.value[n] == pytest.approx(np.sum(density * phi(u) * phi(sign * u)), abs=1e-8)
            assert found.derivative[n] == pytest.approx(np.sum(density * phi.derivative(u) * phi.derivative(sign * u)),
                                                        abs=2e-4)  # half a grid step of a jump: 2.5e-5 / sd
        assert found.value_error.max() < 1e-11


def test_piecewise_linear_with_general_kinks(rng):
    kinks = ((-0.7, 0.5), (0.9, -2.0))
    suu, svv, suv = covariances(rng, 3)

    def phi(x):
        return 0.3 - 0.4 * x + sum(jump * np.maximum(x - t, 0) for t, jump in kinks)

    value, derivative = piecewise_linear(pair(suu, svv, suv), 0.3, -0.4, kinks)
    truth = dual(phi, suu, svv, suv, method="quadrature")
    assert np.all(np.abs(value - truth.value) <= truth.value_error + 1e-13)
    assert np.all(np.abs(derivative - truth.derivative) <= truth.derivative_error + 1e-13)


def test_kinks_are_found_without_being_named():
    found = resolve(lambda x: np.abs(x - 0.3) + np.maximum(x + 1.7, 0) ** 2 + (x > 2.123), 16.0)
    np.testing.assert_allclose(found.kinks, [-1.7, 0.3, 2.123], atol=1e-4)  # a jump of phi'' is located to ~1e-5
    np.testing.assert_allclose(found.jumps, [0, 0, 1], atol=1e-9)
    slopes = found.derivative(np.array([-5.0, -1.0, 1.0, 3.0]))
    np.testing.assert_allclose(slopes, [-1, -1 + 1.4, 1 + 5.4, 1 + 9.4], rtol=1e-10)


def test_a_kink_or_jump_at_zero_is_seen_although_a_panel_ends_there():
    for phi, jump in ((np.sign, 2.0), (np.abs, 0.0), (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), 0.0)):
        found = resolve(phi, 16.0)
        np.testing.assert_array_equal(found.kinks, [0.0])
        np.testing.assert_allclose(found.jumps, [jump], atol=1e-12)
    for phi in (np.tanh, np.cos, lambda x: np.logaddexp(0, x), lambda x: x**3 - 2 * x, lambda x: np.tanh(20 * x)):
        assert len(resolve(phi, 16.0).kinks) == 0


def test_mehler_bound_shrinks_with_terms_and_holds():
    truth = dual("elu", 1.0, 1.5, 0.9, method="quadrature")
    bounds = []
    for terms in (4, 8, 16, 32):
        found = dual("elu", 1.0, 1.5, 0.9, method="mehler", terms=terms)
        assert abs(found.value - truth.value) <= found.value_error + truth.value_error
        assert abs(found.derivative - truth.derivative) <= found.derivative_error + truth.derivative_error
        bounds.append(float(found.value_error))
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 1e-4 * bounds[0]


def test_zero_variance():
    found = dual("softplus", 0.0, 1.0, 0.0)
    mean = dual("softplus", 1e-300, 1.0, 0.0).value
    assert found.value == pytest.approx(mean, rel=1e-14)
    assert dual("relu", 0.0, 0.0, 0.0).value <= 1e-200


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (("relu", 1.0, 1.0, 1.5), ValueError, "not a covariance"),
    (("relu", -1.0, 1.0, 0.0), ValueError, "negative"),
    (("relu", np.nan, 1.0, 0.0), ValueError, "finite"),
    (("no such phi", 1.0, 1.0, 0.0), ValueError, "unknown activation"),
    ((lambda x: np.exp(x * x), 1.0, 1.0, 0.0), GrowsTooFast, "grows too fast"),
    ((lambda x: np.sin(1e6 * x), 1.0, 1.0, 0.5), NotPiecewiseSmooth, "kinks"),
])
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        dual(*arguments)


def test_closed_form_must_exist():
    with pytest.raises(ValueError, match="no closed form"):
        dual("tanh", 1.0, 1.0, 0.5, method="closed form")
