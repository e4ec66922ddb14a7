"""Batched GMRES against dense solves, and its failures."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deq.linear.gmres import gmres

D = torch.float64


def product(matrices):
    return lambda v: torch.einsum("bij,bj->bi", matrices, v.flatten(1)).reshape(v.shape)


@given(n=st.sampled_from([1, 2, 5, 24]), batch=st.integers(1, 4), condition=st.floats(1, 100), single=st.booleans(),
       restart=st.sampled_from([24, 60]), number=st.integers(0, 2**31))
def test_agrees_with_dense_solves(n, batch, condition, single, restart, number):
    generator = torch.Generator().manual_seed(number)
    dtype = torch.float32 if single else D
    left, right = (torch.linalg.qr(torch.randn(batch, n, n, dtype=D, generator=generator))[0] for _ in range(2))
    matrices = (left * torch.logspace(0, -math.log10(condition), n, dtype=D)) @ right
    truth = torch.randn(batch, n, dtype=D, generator=generator)
    rhs = torch.einsum("bij,bj->bi", matrices, truth).to(dtype)
    matrices = matrices.to(dtype)
    rtol = 1e-5 if single else 1e-13
    solution = gmres(product(matrices), rhs, rtol=rtol, max_iter=10 * n + 10, restart=restart)
    assert solution.converged.all()
    assert not solution.singular.any()
    residual = (rhs.double() - torch.einsum("bij,bj->bi", matrices.double(), solution.value.double())).norm(dim=1)
    eps = torch.finfo(dtype).eps
    # The largest singular value is 1: a product is rounded by sqrt(n) eps |x|.
    rounding = 4 * math.sqrt(n) * eps * solution.value.double().norm(dim=1)
    assert (residual <= rtol * rhs.double().norm(dim=1) + rounding).all()
    # Backward stable in all: error <= condition * (residual + rounding of matrix and right-hand side) / |A|.
    error = (solution.value.double() - truth).norm(dim=1)
    rounding = 2 * rounding + 4 * n * eps * truth.norm(dim=1)
    assert (error <= condition * (rtol * rhs.double().norm(dim=1) + rounding)).all()


@pytest.mark.parametrize("factor", [0.5, 0.9, 0.97])
def test_equilibrium_systems_to_1e13(factor, generator):
    n = 300
    rotation = torch.linalg.qr(torch.randn(3, n, n, dtype=D, generator=generator))[0]
    matrices = torch.eye(n, dtype=D) - factor * rotation
    rhs = torch.randn(3, n, dtype=D, generator=generator)
    solution = gmres(product(matrices), rhs, rtol=1e-13, max_iter=3000, restart=60)
    assert solution.converged.all()
    truth = torch.linalg.solve(matrices, rhs)
    bound = (2e-13 * rhs.norm(dim=1) + 40 * math.sqrt(n) * torch.finfo(D).eps * truth.norm(dim=1)) / (1 - factor)
    assert ((solution.value - truth).norm(dim=1) <= bound).all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 2)])
def test_any_trailing_shape(shape):
    rhs = torch.ones(4, *shape, dtype=D)
    solution = gmres(lambda v: 2 * v, rhs, rtol=1e-14)
    assert torch.equal(solution.value, rhs / 2)
    # One step exhausts the Krylov space: the happy breakdown.
    assert solution.iterations.tolist() == [1] * 4


def test_zero_right_hand_sides_and_own_tolerances(generator):
    rotation = torch.linalg.qr(torch.randn(4, 90, 90, dtype=D, generator=generator))[0]
    matrices = torch.eye(90, dtype=D) - 0.5 * rotation
    rhs = torch.randn(4, 90, dtype=D, generator=generator)
    rhs[2] = 0
    rtol = torch.tensor([1e-2, 1e-12, 1e-12, 1e-6], dtype=D)
    solution = gmres(product(matrices), rhs, rtol=rtol)
    assert solution.converged.all()
    assert torch.equal(solution.value[2], torch.zeros(90, dtype=D))
    first, second, third, fourth = solution.iterations.tolist()
    assert third == 0 < first < fourth < second
    alone = gmres(product(matrices[:1]), rhs[:1], rtol=1e-2)
    assert alone.iterations.tolist() == [first]
    assert torch.allclose(alone.value[0], solution.value[0], rtol=0, atol=1e-13 * float(rhs.norm()))


def test_initial_guess(generator):
    matrices = torch.eye(8, dtype=D) + 0.3 * torch.randn(2, 8, 8, dtype=D, generator=generator) / 8
    truth = torch.randn(2, 8, dtype=D, generator=generator)
    rhs = torch.einsum("bij,bj->bi", matrices, truth)
    solution = gmres(product(matrices), rhs, rtol=1e-12, initial=truth)
    assert solution.iterations.tolist() == [0, 0]
    assert torch.equal(solution.value, truth)


def test_slow_start_of_a_permutation():
    # The residual stays at 1 until the last step.
    turn = torch.roll(torch.eye(6, dtype=D), 1, 0).expand(2, 6, 6)
    rhs = torch.eye(6, dtype=D)[:2]
    solution = gmres(product(turn), rhs, rtol=1e-14)
    assert solution.converged.all()
    assert solution.iterations.tolist() == [6, 6]
    assert torch.equal(solution.value, torch.linalg.solve(turn, rhs))


def test_singular_systems_are_flagged():
    matrix = torch.diag(torch.tensor([0.0, 1.0, 2.0], dtype=D)).expand(4, 3, 3)
    rhs = torch.tensor([[1.0, 1, 1], [0, 1, 1], [0, 0, 0], [1, 0, 0]], dtype=D)
    solution = gmres(product(matrix), rhs, rtol=1e-12)
    # The second and third are consistent, and solved.
    assert solution.converged.tolist() == [False, True, True, False]
    assert solution.singular.tolist() == [True, False, False, True]
    assert solution.residual[[0, 3]].tolist() == pytest.approx([1.0, 1.0], rel=1e-12)
    nilpotent = torch.tensor([[0.0, 1], [0, 0]], dtype=D).expand(2, 2, 2)
    solution = gmres(product(nilpotent), torch.tensor([[1.0, 0], [0, 1]], dtype=D), rtol=1e-12)
    assert solution.singular.tolist() == [True, True]
    assert gmres(lambda v: 0 * v, torch.ones(2, 3), rtol=1e-5).singular.all()


def test_limit_and_nan_are_failures(generator):
    matrices = torch.eye(50, dtype=D) - 0.99 * torch.linalg.qr(torch.randn(2, 50, 50, dtype=D, generator=generator))[0]
    rhs = torch.randn(2, 50, dtype=D, generator=generator)
    solution = gmres(product(matrices), rhs, rtol=1e-12, max_iter=5, restart=3)
    assert not solution.converged.any()
    assert solution.iterations.tolist() == [5, 5]
    assert (solution.residual < rhs.norm(dim=1)).all()
    matrices[0] = float("nan")
    solution = gmres(product(matrices), rhs, rtol=1e-12, max_iter=500)
    assert solution.converged.tolist() == [False, True]
    assert not gmres(product(matrices[1:]), torch.full((1, 50), float("inf"), dtype=D), rtol=1e-3).converged.any()


def test_one_product_an_iteration(generator):
    calls = []
    matrices = torch.eye(30, dtype=D) - 0.7 * torch.linalg.qr(torch.randn(2, 30, 30, dtype=D, generator=generator))[0]

    def counted(v):
        calls.append(1)
        return product(matrices)(v)

    solution = gmres(counted, torch.ones(2, 30, dtype=D), rtol=1e-10)
    # And one for the residual at the end.
    assert len(calls) == int(solution.iterations.max()) + 1


@pytest.mark.parametrize(("arguments", "message"), [
    ({"rhs": torch.ones(())}, "no batch dimension"),
    ({"max_iter": 0}, "max_iter is 0"), ({"restart": 0}, "restart is 0"),
    ({"matvec": lambda v: v[:, :1]}, r"returned \(2, 1\)"), ({"matvec": lambda v: v.double()}, "torch.float64")])
def test_bad_arguments_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        gmres(**({"matvec": lambda v: v, "rhs": torch.ones(2, 3), "rtol": 1e-5} | arguments))


def test_empty_batch():
    solution = gmres(lambda v: v, torch.ones(0, 3), rtol=1e-5)
    assert solution.value.shape == (0, 3)
    assert solution.converged.shape == (0,)
