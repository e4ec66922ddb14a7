"""BiCGStab and the chain of methods around it against dense solves; refinement from float32; failures."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import deq
from deq.linear.bicgstab import bicgstab
from deq.linear.resolvent import Resolvent
from deq.status import LinearSolveError

D = torch.float64


def random_matrices(batch, n, radius, symmetric, number):
    generator = torch.Generator().manual_seed(number)
    matrices = torch.randn(batch, n, n, dtype=D, generator=generator)
    if symmetric:
        matrices = matrices + matrices.mT
    return radius * matrices / torch.linalg.eigvals(matrices).abs().amax(1)[:, None, None], generator


def product(matrices):
    return lambda v: torch.einsum("bij,bj->bi", matrices, v)


def dense_solve(matrices, rhs):
    return torch.linalg.solve(torch.eye(rhs.shape[1], dtype=D) - matrices, rhs.unsqueeze(2)).squeeze(2)


def distance_bound(matrices, relative, rhs):
    """|x - truth| <= |(I - J)^{-1}| |residual|."""
    inverse = torch.linalg.inv(torch.eye(rhs.shape[1], dtype=D) - matrices)
    return torch.linalg.matrix_norm(inverse, 2) * relative * rhs.norm(dim=1)


@given(n=st.integers(1, 80), batch=st.integers(1, 4), radius=st.floats(0, 0.9), symmetric=st.booleans(),
       number=st.integers(0, 2**31))
def test_bicgstab_says_the_truth_about_itself(n, batch, radius, symmetric, number):
    matrices, generator = random_matrices(batch, n, radius, symmetric, number)
    rhs = torch.randn(batch, n, dtype=D, generator=generator)
    system = lambda v: v - product(matrices)(v)  # noqa: E731
    found = bicgstab(system, rhs, rtol=1e-11, initial=torch.zeros_like(rhs), initial_residual=rhs, max_iter=400)
    left = rhs - system(found.value)
    rounding = 1e-14 * n * (1 + found.value.norm(dim=1))
    assert ((found.left - left).norm(dim=1) <= rounding).all()
    assert torch.equal(found.converged, found.left.norm(dim=1) <= 1e-11 * rhs.norm(dim=1))
    assert (found.left.norm(dim=1) <= rhs.norm(dim=1)).all()  # never worse than the start
    assert (found.iterations <= 400).all()


def test_bicgstab_solves_all_of_a_mixed_batch():
    matrices, generator = random_matrices(5, 60, 0.8, False, 3)
    matrices[1] = 0
    rhs = torch.randn(5, 60, dtype=D, generator=generator)
    rhs[2] = 0
    found = bicgstab(lambda v: v - product(matrices)(v), rhs, rtol=1e-12, initial=torch.zeros_like(rhs),
                     initial_residual=rhs, max_iter=400)
    assert found.converged.all()
    assert (found.value[2] == 0).all()
    assert ((found.value - dense_solve(matrices, rhs)).norm(dim=1) <= distance_bound(matrices, 1e-12, rhs)
            + 1e-13 * found.value.norm(dim=1)).all()


def test_bicgstab_gives_up_on_a_rotation_and_gmres_goes_on():
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(1, 200, 200, dtype=D, generator=generator))[0] * 0.97
    rhs = torch.randn(1, 200, dtype=D, generator=generator)
    system = lambda v: v - product(rotation)(v)  # noqa: E731
    quick = bicgstab(system, rhs, rtol=1e-12, initial=torch.zeros_like(rhs), initial_residual=rhs, max_iter=2000)
    assert not quick.converged.any()
    assert int(quick.iterations) < 400
    value = Resolvent(1e-12, 3000).solve(product(rotation), rhs)
    assert (rhs - system(value)).norm() <= 1e-10 * rhs.norm()  # two digits are granted to rounding


@given(n=st.integers(1, 80), batch=st.integers(1, 4), radius=st.floats(0, 0.9), symmetric=st.booleans(),
       number=st.integers(0, 2**31), single=st.booleans())
def test_resolvent_agrees_with_dense_solves(n, batch, radius, symmetric, number, single):
    matrices, generator = random_matrices(batch, n, radius, symmetric, number)
    rhs = torch.randn(batch, n, dtype=D, generator=generator)
    low = product(matrices.float()) if single else None
    value = Resolvent(1e-12, 2000).solve(product(matrices), rhs, lambda: low)
    assert ((value - dense_solve(matrices, rhs)).norm(dim=1)
            <= distance_bound(matrices, 100e-12, rhs) + 1e-12 * value.norm(dim=1)).all()


@pytest.mark.parametrize("size", [1e-120, 1.0, 1e120])
def test_refinement_keeps_the_range_of_float64(size):
    matrices, generator = random_matrices(2, 60, 0.7, False, 1)
    rhs = torch.randn(2, 60, dtype=D, generator=generator)
    asked = []

    def low(v):
        asked.append(v.dtype)
        return product(matrices.float())(v)

    value = Resolvent(1e-13, 500).solve(product(matrices), size * rhs, lambda: low)
    assert set(asked) == {torch.float32}
    relative = (value / size - dense_solve(matrices, rhs)).norm(dim=1)
    assert (relative <= distance_bound(matrices, 1e-13, rhs) + 1e-13 * rhs.norm(dim=1)).all()


def test_a_wrong_float32_product_costs_time_and_no_digit():
    matrices, generator = random_matrices(2, 60, 0.7, False, 2)
    rhs = torch.randn(2, 60, dtype=D, generator=generator)
    for wrong in (lambda v: -0.9 * v, lambda v: v * float("nan"), lambda v: 3 * v):
        value = Resolvent(1e-12, 500).solve(product(matrices), rhs, lambda wrong=wrong: wrong)
        assert ((value - dense_solve(matrices, rhs)).norm(dim=1) <= distance_bound(matrices, 100e-12, rhs)).all()


def test_a_singular_system_raises():
    eye = torch.eye(70, dtype=D).expand(2, -1, -1)
    with pytest.raises(LinearSolveError, match="linear_max_iter"):
        Resolvent(1e-10, 200).solve(product(eye), torch.ones(2, 70, dtype=D))


@pytest.mark.parametrize("insists", [False, True])
def test_large_states_by_float32_are_as_exact(insists):
    """A state of 2^14 elements, for a map that runs in float32 and for one that does not."""
    generator = torch.Generator().manual_seed(0)
    batch, n = 32, 512
    weight = torch.randn(n, n, dtype=D, generator=generator)
    weight = (0.9 / torch.linalg.matrix_norm(weight, 2) * weight).requires_grad_()
    x = torch.randn(batch, n, dtype=D, generator=generator).requires_grad_()

    def f(z):
        if insists:
            assert_double(z)
        return torch.tanh(z @ weight.T + x)

    def assert_double(z):
        if z.dtype != D:
            raise TypeError("this map takes float64 alone")

    z = deq.equilibrium(f, torch.zeros(batch, n, dtype=D), gradient=deq.Exact(1, linear="krylov"), tol=1e-13)
    found = torch.autograd.grad(z.sin().sum(), (weight, x))
    unrolled = torch.zeros(batch, n, dtype=D)
    for _ in range(330):  # 0.9^330 is 8e-16
        unrolled = torch.tanh(unrolled @ weight.T + x)
    for ours, truth in zip(found, torch.autograd.grad(unrolled.sin().sum(), (weight, x)), strict=True):
        assert (ours - truth).norm() <= 1e-11 * truth.norm()
