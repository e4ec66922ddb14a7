"""BiCGStab and the chain of methods around it against dense solves; the range of numbers; coupling; failures."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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
       number=st.integers(0, 2**31))
def test_resolvent_agrees_with_dense_solves(n, batch, radius, symmetric, number):
    matrices, generator = random_matrices(batch, n, radius, symmetric, number)
    rhs = torch.randn(batch, n, dtype=D, generator=generator)
    value = Resolvent(1e-12, 2000).solve(product(matrices), rhs)
    assert ((value - dense_solve(matrices, rhs)).norm(dim=1)
            <= distance_bound(matrices, 100e-12, rhs) + 1e-12 * value.norm(dim=1)).all()


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1.0, 1e200, 1e300])
def test_the_whole_range_of_float64(size):
    """A cotangent of 1e-200 has a 2-norm of zero by squares; its solution was zero without a word."""
    matrices, generator = random_matrices(2, 60, 0.7, False, 1)
    rhs = torch.randn(2, 60, dtype=D, generator=generator)
    rhs[1] *= 1e-3
    value = Resolvent(1e-13, 500).solve(product(matrices), size * rhs)
    relative = (value / size - dense_solve(matrices, rhs)).norm(dim=1)
    assert (relative <= distance_bound(matrices, 100e-13, rhs) + 1e-13 * rhs.norm(dim=1)).all()


@pytest.mark.parametrize("n", [4, 70])
@pytest.mark.parametrize("size", [1.0, 1e-200])
def test_coupled_samples_are_solved_as_one_system(n, size):
    """Samples that share a mean: each residual alone says nothing."""
    generator = torch.Generator().manual_seed(n)
    batch = 6
    whole = torch.randn(batch * n, batch * n, dtype=D, generator=generator)
    whole *= 0.8 / torch.linalg.eigvals(whole).abs().max()
    rhs = torch.randn(batch, n, dtype=D, generator=generator)
    value = Resolvent(1e-12, 2000).solve(lambda v: (whole @ v.flatten()).reshape(v.shape), size * rhs) / size
    truth = torch.linalg.solve(torch.eye(batch * n, dtype=D) - whole, rhs.flatten())
    bound = torch.linalg.matrix_norm(torch.linalg.inv(torch.eye(batch * n, dtype=D) - whole), 2)
    assert (value.flatten() - truth).norm() <= 100e-12 * bound * batch * rhs.norm()


def test_a_singular_system_raises():
    eye = torch.eye(70, dtype=D).expand(2, -1, -1)
    with pytest.raises(LinearSolveError, match="linear_max_iter"):
        Resolvent(1e-10, 200).solve(product(eye), torch.ones(2, 70, dtype=D))


@pytest.mark.parametrize("products", [8, 20])
def test_a_solve_that_misses_its_tolerance_raises_also_when_it_is_near(products):
    """200 eigenvalues in (-0.9, 0.9): after so few products the residual is far above 1e-12, though small."""
    values = torch.linspace(-0.9, 0.9, 200, dtype=D)
    with pytest.raises(LinearSolveError, match="linear_max_iter"):
        Resolvent(1e-12, products).solve(lambda v: values * v, torch.ones(1, 200, dtype=D))
    value = Resolvent(1e-12, 400).solve(lambda v: values * v, torch.ones(1, 200, dtype=D))
    torch.testing.assert_close(value, (1 / (1 - values))[None], rtol=1e-9, atol=0)
