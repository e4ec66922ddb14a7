"""Proposition 1 and 2 tensors against unrolled autodiff, mpmath and each other, over drawn architectures."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import (
    NotAFixedPointError,
    SingularEquilibriumError,
    implicit_derivatives,
    newton_equilibrium,
    phantom_derivatives,
    preconditioned_derivatives,
)
from analysis.phantom.derivatives import iterate_derivatives
from analysis.phantom.equilibrium_point import EPS, equilibrium_point
from analysis.reference import high_precision
from analysis.reference.unrolled import (
    derivatives_of,
    forward_derivatives_of,
    preconditioned_unrolled,
    unrolled,
)

F64 = torch.float64
ACTIVATIONS = {
    "softplus": torch.nn.functional.softplus,
    "tanh": torch.tanh,
    "swish": lambda v: v * torch.sigmoid(v),
    "erf": torch.erf,
}


def make_dense(seed, n, d, norm, activation):
    """A dense cell act(W z + U x + b) with |W|_2 = norm, and one input."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=F64, generator=generator)

    weight = draw(n, n)
    weight = norm * weight / torch.linalg.matrix_norm(weight, 2)
    inject, bias, x = draw(n, d) / math.sqrt(d), draw(n), draw(d)
    act = ACTIVATIONS[activation]
    return (lambda z, u: act(weight @ z + inject @ u + bias)), x, (weight, inject, bias)


def relative(a, b):
    return float((a - b).norm() / b.norm())


architectures = st.tuples(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 5),
                          st.sampled_from([0.0, 0.3, 0.8, 0.95]), st.sampled_from(sorted(ACTIVATIONS)))


@settings(max_examples=10)
@given(architectures)
def test_implicit_matches_a_long_unroll(case):
    f, x, _ = make_dense(*case)
    z = newton_equilibrium(f, x, torch.zeros(case[1], dtype=F64))
    found = implicit_derivatives(f, x, z, order=3)
    point = equilibrium_point(f, x, z)
    radius = float(torch.linalg.eigvals(point.jacobian).abs().max())
    # K^2 q^K below rounding; the unroll starts at z* and settles there.
    steps = 12 + int(45 / -math.log(max(radius, 0.1)))
    truth = forward_derivatives_of(unrolled(f, z, steps), x, 2)
    # Each order passes through one more solve, and rounding through each costs n eps cond.
    for order, (a, b) in enumerate(zip(found.tensors, truth, strict=False), start=1):
        scale = max(float(t.norm()) for t in truth[:order])
        assert float((a - b).norm()) <= 50 * case[1] * EPS * point.condition ** (2 * order) * scale + 1e-12 * scale
    assert torch.equal(found.first, implicit_derivatives(f, x, z, order=1).first)
    assert relative(found.third, found.third.transpose(1, 3)) <= 1e-10 if float(found.third.norm()) else True


@given(architectures, st.integers(1, 6), st.sampled_from([1.0, 0.5, 0.1]))
def test_recursion_matches_autograd_through_the_steps(case, steps, damping):
    f, x, _ = make_dense(*case)
    z = newton_equilibrium(f, x, torch.zeros(case[1], dtype=F64))
    found = phantom_derivatives(f, x, z, steps, damping, order=3)
    truth = derivatives_of(unrolled(f, z, steps, damping), x, 3)
    for a, b in zip(found.tensors, truth, strict=True):
        # z* carries a residual of rounding size, which the steps see and the recursion does not.
        assert float((a - b).norm()) <= 1e-11 * max(1.0, float(b.norm()))


@given(architectures, st.integers(1, 3))
def test_exact_preconditioner_is_exact_at_orders_up_to_its_steps(case, steps):
    f, x, _ = make_dense(*case)
    z = newton_equilibrium(f, x, torch.zeros(case[1], dtype=F64))
    point = equilibrium_point(f, x, z)
    inverse = torch.linalg.inv(torch.eye(case[1], dtype=F64) - point.jacobian)
    exact = implicit_derivatives(f, x, z, order=3)
    found = preconditioned_derivatives(f, x, z, inverse, steps, order=3)
    truth = derivatives_of(preconditioned_unrolled(f, z, inverse, steps), x, 3)
    size = max(1.0, *(float(t.norm()) for t in exact.tensors)) * point.condition**3
    for order in range(1, 4):
        a, b, c = (t[order - 1] for t in (found.tensors, exact.tensors, truth))
        assert float((a - c).norm()) <= 1e-12 * size
        if order <= steps:
            assert float((a - b).norm()) <= 1e-12 * size


def test_third_order_against_sixty_digits():
    f, x, parameters = make_dense(5, 3, 2, 0.9, "softplus")
    z = newton_equilibrium(f, x, torch.zeros(3, dtype=F64))
    found = implicit_derivatives(f, x, z, order=3)
    with mpmath.workdps(90):
        precise = high_precision.dense_map(*(p.tolist() for p in parameters), high_precision.softplus)

        def equilibrium(at):
            return high_precision.equilibrium(precise, at, z.tolist(), 80)

        for order, legs in ((1, (0,)), (2, (0, 1)), (2, (1, 1)), (3, (0, 0, 1)), (3, (1, 1, 1))):
            units = [[int(i == leg) for i in range(2)] for leg in legs]
            truth = torch.tensor([float(v) for v in high_precision.derivative(equilibrium, x.tolist(), units, 80)],
                                 dtype=F64)
            mine = found.tensors[order - 1][(slice(None), *legs)]
            assert relative(mine, truth) <= 1e-12


def test_an_activation_without_a_forward_mode_backward():
    weight = 0.4 * torch.eye(3, dtype=F64) + 0.1

    def cell(z, x, act=torch.nn.functional.silu):
        return act(weight @ z + x)

    def twin(z, x):
        return cell(z, x, ACTIVATIONS["swish"])

    x = torch.tensor([0.3, -1.0, 2.0], dtype=F64)
    z = newton_equilibrium(cell, x, torch.zeros(3, dtype=F64))
    for a, b in zip(implicit_derivatives(cell, x, z, order=3).tensors,
                    implicit_derivatives(twin, x, z, order=3).tensors, strict=True):
        assert relative(a, b) <= 1e-13


def test_shapes_are_flattened_and_parameters_do_not_leak():
    weight = torch.randn(1, 1, 3, 3, dtype=F64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def cell(z, x):
        return torch.tanh(0.1 * torch.nn.functional.conv2d(z[None], weight, padding=1)[0] + x)

    x = torch.linspace(-1, 1, 16, dtype=F64).reshape(1, 4, 4).requires_grad_()
    z = newton_equilibrium(cell, x, torch.zeros(1, 4, 4, dtype=F64))
    found = implicit_derivatives(cell, x, z)
    assert found.first.shape == (16, 16)
    assert found.second.shape == (16, 16, 16)
    assert not found.second.requires_grad
    truth = derivatives_of(lambda u: unrolled(cell, z, 60)(u.reshape(1, 4, 4)).reshape(-1), x.detach().reshape(-1), 2)
    assert relative(found.second, truth[1]) <= 1e-12


def test_bad_input_is_named():
    f, x, _ = make_dense(1, 3, 2, 0.5, "tanh")
    z = newton_equilibrium(f, x, torch.zeros(3, dtype=F64))
    with pytest.raises(NotAFixedPointError, match=r"not a fixed point.*exceeds"):
        implicit_derivatives(f, x, z + 0.1)
    with pytest.raises(ValueError, match=r"float32.*double"):
        implicit_derivatives(f, x.float(), z)
    with pytest.raises(ValueError, match="x has NaN"):
        implicit_derivatives(f, x * float("nan"), z)
    with pytest.raises(ValueError, match="z's shape"):
        implicit_derivatives(lambda z, x: f(z, x)[:2], x, z)
    with pytest.raises(TypeError, match="torch tensor"):
        implicit_derivatives(f, x.numpy(), z)
    with pytest.raises(TypeError, match="f must return"):
        implicit_derivatives(lambda z, x: 0.0, x, z)
    with pytest.raises(ValueError, match="empty"):
        implicit_derivatives(f, x[:0], z)
    with pytest.raises(ValueError, match="steps = 0"):
        phantom_derivatives(f, x, z, 0)
    with pytest.raises(TypeError, match="integer"):
        phantom_derivatives(f, x, z, 1.5)
    with pytest.raises(ValueError, match="damping"):
        phantom_derivatives(f, x, z, 2, damping=0.0)
    with pytest.raises(ValueError, match="preconditioner"):
        preconditioned_derivatives(f, x, z, torch.eye(2, dtype=F64), 2)
    with pytest.raises(ValueError, match="order"):
        implicit_derivatives(f, x, z, order=0)
    with pytest.raises(ValueError, match="pass order=3"):
        _ = implicit_derivatives(f, x, z).third
    with pytest.raises(NotAFixedPointError, match="did not reach"):
        newton_equilibrium(lambda z, x: z + 1 + z * z, x, z + 1, max_iter=5)
    with pytest.raises(SingularEquilibriumError, match="singular at a Newton iterate"):
        newton_equilibrium(lambda z, x: z + 1, x, z)


def test_a_fold_is_singular():
    # z = z + x^2 - z^2 has J = 1 at z = x = 0.
    zero = torch.zeros(1, dtype=F64)
    with pytest.raises(SingularEquilibriumError, match="eigenvalue"):
        implicit_derivatives(lambda z, x: z + x * x - z * z, zero, zero)


def test_iterates_start_at_zero():
    f, x, _ = make_dense(2, 4, 3, 0.7, "tanh")
    point = equilibrium_point(f, x, newton_equilibrium(f, x, torch.zeros(4, dtype=F64)))
    iterates = iterate_derivatives(point)
    assert all(float(t.norm()) == 0.0 for t in next(iterates).tensors)
    assert torch.equal(next(iterates).first, point.input_jacobian)
