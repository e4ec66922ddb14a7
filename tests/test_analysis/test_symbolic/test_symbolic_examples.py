"""Exact examples: each against a second exact or numerical route."""

import math

import mpmath
import pytest
import sympy
import torch

from analysis import implicit_derivatives, newton_equilibrium, phantom_derivatives
from analysis.reference import high_precision
from analysis.symbolic import chord_newton, kinks, phantom_fields, scalar_law, smallest_counterexample

F64 = torch.float64


def test_kink_is_two_sided_for_relu_and_smooth_for_the_square():
    relu = kinks.kink_example("relu")
    assert (relu.left, relu.right, relu.left_first, relu.right_first) == (1, 2, 0, 2)
    square = kinks.kink_example("square")
    assert square.left == square.right == square.printed == 3
    with pytest.raises(ValueError, match="relu"):
        kinks.kink_example("tanh")


def test_smallest_counterexample_against_the_tensor_code():
    example = smallest_counterexample.smallest()
    zero = torch.zeros(2, dtype=F64)

    def f(z, x):
        return torch.stack([z[1], x[0] + z[0] ** 2 / 2])

    second = implicit_derivatives(f, zero[:1], zero).second[:, 0, 0]
    assert second.tolist() == [float(v) for v in example.correct()] == [1.0, 1.0]
    assert list(example.printed()) == [0, 0]
    for steps in (1, 2, 3, 4):
        phantom = phantom_derivatives(f, zero[:1], zero, steps).second[:, 0, 0]
        assert phantom.tolist() == [float(v) for v in example.phantom(steps)]
    commuting = smallest_counterexample.commuting_case()
    assert sympy.simplify(commuting.correct() - commuting.printed()).is_zero_matrix


def test_scalar_law_against_the_recursion():
    # f = q z + x + a z x + c z^2 / 2 at the origin: every symbol of the law has a number.
    q, a, c = 0.7, 0.3, -0.4

    def f(z, x):
        return q * z + x + a * z * x + c * z * z / 2

    zero = torch.zeros(1, dtype=F64)
    exact = implicit_derivatives(f, zero, zero)
    for steps in (1, 3, 8):
        found = phantom_derivatives(f, zero, zero, steps)
        closed = scalar_law.second_error().subs({
            scalar_law.q: q, scalar_law.d1: float(exact.first), scalar_law.d2: float(exact.second), scalar_law.fzx: a,
            scalar_law.fzz: c, scalar_law.K: steps, scalar_law.Q: q**steps})
        assert float(exact.second - found.second) == pytest.approx(float(closed), rel=1e-10)
    assert all(scalar_law.second_error_checks().values())
    assert scalar_law.third_rate() != 0


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_chord_newton_orders(steps):
    assert chord_newton.exact_orders(steps) == steps
    assert chord_newton.exact_orders(steps, exact=False) == 0


def test_rotating_score_against_the_tensor_code():
    at = torch.tensor([0.4, -0.6], dtype=F64)

    def f(z, x):
        return x[1] + x[0] * z

    z = newton_equilibrium(f, at, torch.zeros(1, dtype=F64))
    for steps in (1, 2, 5):
        score = phantom_derivatives(f, at, z, steps)
        values = {phantom_fields.x1: 0.4, phantom_fields.x2: -0.6}
        closed = [float(v.subs(values)) for v in phantom_fields.rotating_score(steps)]
        assert score.first[0].tolist() == pytest.approx(closed, rel=1e-12)
        trace = float(phantom_fields.frozen_trace(steps).subs(values))
        assert float(score.second[0].trace()) == pytest.approx(trace, rel=1e-12, abs=1e-14)
    assert phantom_fields.curl(phantom_fields.rotating_score(None)) == 0
    assert phantom_fields.curl(phantom_fields.rotating_score(1)) != 0


def test_biased_model_against_the_tensor_code():
    def f(z, x):
        c = 0.9 * x**2 / (1 + x**2)
        return c * z - (1 - c) * x**2 / 2

    at = torch.tensor([0.8], dtype=F64)
    z = -(at**2) / 2
    for steps in (1, 2, 3):
        found = phantom_derivatives(f, at, z, steps)
        score, trace, _ = phantom_fields.biased_model(steps, sympy.Rational(9, 10))
        assert float(found.first) == pytest.approx(float(score.subs(phantom_fields.x, 0.8)), rel=1e-12)
        assert float(found.second) == pytest.approx(float(trace.subs(phantom_fields.x, 0.8)), rel=1e-12)
    assert phantom_fields.optimum(None, sympy.Rational(9, 10)) == pytest.approx(1.0, rel=1e-15)
    assert float(phantom_fields.gaussian_mean(phantom_fields.x**4)) == pytest.approx(3.0, rel=1e-15)


def test_high_precision_derivatives_of_a_known_function():
    with mpmath.workdps(70):
        def function(at):
            return [mpmath.exp(at[0] * at[1])]

        found = high_precision.derivative(function, [0.5, 2], [[1, 0], [0, 1]], 60)[0]
        # d2/dxdy exp(xy) = (1 + xy) exp(xy) = 2 e at xy = 1; 60 digits leave 2 * 60 / 4 = 30.
        assert abs(found - 2 * mpmath.e) < mpmath.mpf(10) ** -28
        solved = high_precision.equilibrium(lambda z, x: [mpmath.cos(z[0])], [], [0.7], 60)
        assert abs(solved[0] - mpmath.cos(solved[0])) < mpmath.mpf(10) ** -60
        assert high_precision.softplus(mpmath.mpf(-200)) > 0
        with pytest.raises(ArithmeticError, match="60 steps"):
            high_precision.equilibrium(lambda z, x: [z[0] + 1 + z[0] ** 2], [], [0.3], 30)
    assert math.isclose(float(high_precision.softplus(mpmath.mpf(0))), math.log(2))
