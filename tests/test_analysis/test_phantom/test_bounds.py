"""Bounds of the phantom error: valid on every draw, ordered, and not vacuous."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis import implicit_derivatives, newton_equilibrium, phantom_derivatives, phantom_error_bound
from analysis.phantom.bounds import bend_norm, bounds_at, mixed_norm, rate_and_constant
from analysis.phantom.equilibrium_point import equilibrium_point

F64 = torch.float64


def make_cell(seed, n, d, norm, non_normal):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n, n, dtype=F64, generator=generator)
    weight = norm * weight / torch.linalg.matrix_norm(weight, 2)
    if non_normal:
        weight = torch.tril(weight, -1) * 4 + 0.5 * torch.eye(n, dtype=F64)
    inject, x = (torch.randn(*shape, dtype=F64, generator=generator) for shape in ((n, d), (d,)))
    return (lambda z, u: torch.tanh(weight @ z + inject @ u)), x


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 4), st.sampled_from([0.3, 0.9, 0.99]), st.booleans(),
       st.integers(1, 12), st.sampled_from([1.0, 0.6]))
def test_valid_and_ordered(seed, n, d, norm, non_normal, steps, damping):
    f, x = make_cell(seed, n, d, norm, non_normal)
    z = newton_equilibrium(f, x, torch.zeros(n, dtype=F64))
    exact, phantom = implicit_derivatives(f, x, z), phantom_derivatives(f, x, z, steps, damping)
    bound = phantom_error_bound(f, x, z, steps, damping)
    first = float((exact.first - phantom.first).norm())
    second = float((exact.second - phantom.second).norm())
    assert first <= bound.first <= bound.first_powers * (1 + 1e-9) + bound.rounding
    assert second <= bound.second <= bound.second_powers * (1 + 1e-9) + bound.rounding
    assert bound.first_powers <= bound.first_law * (1 + 1e-9) + bound.rounding
    assert bound.second_powers <= bound.second_law * (1 + 1e-9) + bound.rounding
    operator = float(torch.linalg.matrix_norm(exact.first - phantom.first, 2))
    assert operator <= bound.first_operator <= bound.first * (1 + 1e-12)
    # The sharp first-order bound is an identity but for rounding.
    assert bound.first <= first * (1 + 1e-6) + 3 * bound.rounding


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 3))
def test_tensor_norms_against_full_tensors(seed, n, d):
    f, x = make_cell(seed, n, d, 0.8, False)
    point = equilibrium_point(f, x, newton_equilibrium(f, x, torch.zeros(n, dtype=F64)))
    first = implicit_derivatives(f, x, point.z).first
    bend = torch.func.hessian(point.f, 0)(point.z, point.x)
    cross = torch.func.jacrev(torch.func.jacrev(point.f, 0), 1)(point.z, point.x)
    mixed = cross + torch.einsum("iab,bv->iav", bend, first)
    for found, tensor in ((bend_norm(point), bend), (mixed_norm(point, first), mixed)):
        truth = float(torch.linalg.matrix_norm(tensor.permute(0, 2, 1).reshape(-1, n), 2))
        assert abs(found - truth) <= 1e-7 * max(1.0, truth)  # a Gram matrix halves the digits near zero


def test_one_pass_gives_every_step():
    f, x = make_cell(3, 5, 2, 0.9, False)
    z = newton_equilibrium(f, x, torch.zeros(5, dtype=F64))
    table = bounds_at(equilibrium_point(f, x, z), 4)
    assert [row.steps for row in table] == [1, 2, 3, 4]
    assert table[2].second == pytest.approx(phantom_error_bound(f, x, z, 3).second, rel=1e-12)


@given(st.integers(0, 10**6), st.integers(2, 8), st.floats(0.1, 0.97))
def test_a_power_decays_where_the_two_norm_does_not(seed, n, radius):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.triu(torch.randn(n, n, dtype=F64, generator=generator), 1) + radius * torch.eye(n, dtype=F64)
    q, kappa = rate_and_constant(matrix, 20)
    assert q < 1
    power = torch.eye(n, dtype=F64)
    for k in range(60):
        assert float(torch.linalg.matrix_norm(power, 2)) <= kappa * q**k * (1 + 1e-9)
        power = power @ matrix


def test_nilpotent_decays_at_any_rate():
    shift = 3 * torch.diag(torch.ones(3, dtype=F64), 1)
    q, kappa = rate_and_constant(shift, 5)
    assert q < 1
    assert kappa * q**3 >= 27 * (1 - 1e-12)


def test_no_decay_is_claimed_beyond_radius_one():
    assert rate_and_constant(1.5 * torch.eye(2, dtype=F64), 5) == (1.5, 1.0)


def test_bad_input_is_named():
    f, x = make_cell(0, 3, 2, 0.5, False)
    z = newton_equilibrium(f, x, torch.zeros(3, dtype=F64))
    with pytest.raises(ValueError, match="steps = 0"):
        phantom_error_bound(f, x, z, 0)
    with pytest.raises(TypeError, match="integer"):
        phantom_error_bound(f, x, z, 2.0)
    with pytest.raises(ValueError, match="damping"):
        phantom_error_bound(f, x, z, 2, damping=-1.0)


def test_rounding_is_within_the_second_order_bound_where_nothing_else_is_left():
    """At K = 60 the phantom's own error is of size 60 * 0.4^60 < 1e-22: what two routes differ by is rounding alone."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    weight *= 0.4 / torch.linalg.matrix_norm(weight, 2)
    inputs, x = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((6, 3), (3,)))

    def f(z, u):
        return torch.tanh(weight @ z + inputs @ u)

    z = newton_equilibrium(f, x, torch.zeros(6, dtype=torch.float64))
    error = phantom_derivatives(f, x, z, 60).second - implicit_derivatives(f, x, z).second
    bound = phantom_error_bound(f, x, z, 60).second
    assert 0 < float(error.norm()) <= bound < 1e-10
