"""The Neumann series as a solver: right where it says so, a start with a true residual where it stops early."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from deq.linear.bicgstab import bicgstab
from deq.linear.series import SLOW, neumann_start

D = torch.float64


def normal_matrices(batch, n, q, number):
    """Orthogonal matrices times q: every product shrinks by exactly q."""
    generator = torch.Generator().manual_seed(number)
    return q * torch.linalg.qr(torch.randn(batch, n, n, dtype=D, generator=generator))[0], generator


def product(matrices):
    return lambda v: torch.einsum("bij,bj->bi", matrices, v)


@given(n=st.integers(1, 20), batch=st.integers(1, 4), q=st.floats(0, 0.95 * SLOW), single=st.booleans(),
       number=st.integers(0, 2**31))
def test_fast_maps_are_solved(n, batch, q, single, number):
    matrices, generator = normal_matrices(batch, n, q, number)
    rhs = torch.randn(batch, n, dtype=D, generator=generator)
    dtype = torch.float32 if single else D
    rtol = 1e-5 if single else 1e-13
    start = neumann_start(product(matrices.to(dtype)), rhs.to(dtype), rtol=rtol, max_iter=100)
    assert start.converged
    truth = torch.linalg.solve(torch.eye(n, dtype=D) - matrices, rhs.unsqueeze(2)).squeeze(2)
    # |x - truth| <= |residual| / (1 - q); a product of n terms and the sum are rounded by about n eps.
    bound = (rtol + 8 * n * torch.finfo(dtype).eps) / (1 - q) * rhs.norm(dim=1)
    assert ((start.value.double() - truth).norm(dim=1) <= bound).all()


@given(n=st.integers(1, 20), q=st.floats(1.05 * SLOW, 3), number=st.integers(0, 2**31))
def test_slow_maps_are_left_to_others_with_the_true_residual(n, q, number):
    matrices, generator = normal_matrices(2, n, q, number)
    matrices[0] = 0  # one fast system does not hide the slow one
    rhs = torch.randn(2, n, dtype=D, generator=generator)
    start = neumann_start(product(matrices), rhs, rtol=1e-13, max_iter=100)
    assert not start.converged
    assert start.products == 1
    residual = rhs - (start.value - product(matrices)(start.value))
    assert torch.allclose(start.residual, residual, rtol=0, atol=1e-13 * float(rhs.norm()) * (1 + q) ** 2)
    assert torch.allclose(start.norm, start.residual.norm(dim=1))


def test_growth_between_two_looks_is_not_kept():
    """A nilpotent chain: it shrinks, then every step multiplies by 1e3 for a while."""
    factors = [1e-2, 1e-2, *[1e3] * 6, 1e-9]
    chain = torch.zeros(1, 10, 10, dtype=D)
    for place, factor in enumerate(factors):
        chain[0, place + 1, place] = factor
    rhs = torch.zeros(1, 10, dtype=D)
    rhs[0, 0] = 1
    start = neumann_start(product(chain), rhs, rtol=1e-13, max_iter=100)
    assert not start.converged
    assert start.products > 2
    assert start.norm.item() <= 1e-2
    residual = rhs - (start.value - product(chain)(start.value))
    assert torch.allclose(start.residual, residual, rtol=1e-12, atol=1e-300)
    assert torch.allclose(start.norm, start.residual.norm(dim=1))


def test_zero_and_nan_systems_do_not_hold_up_the_others():
    matrices, generator = normal_matrices(3, 5, 0.2, 0)
    rhs = torch.randn(3, 5, dtype=D, generator=generator)
    rhs[0], rhs[1] = 0, float("nan")
    start = neumann_start(product(matrices), rhs, rtol=1e-10, max_iter=100)
    assert start.converged
    assert (start.value[0] == 0).all()
    truth = torch.linalg.solve(torch.eye(5, dtype=D) - matrices[2], rhs[2])
    assert (start.value[2] - truth).norm() <= 1e-10 * rhs[2].norm() / 0.8


def test_the_limit_on_products_is_kept_and_told():
    matrices, generator = normal_matrices(2, 5, 0.3, 1)
    start = neumann_start(product(matrices), torch.randn(2, 5, dtype=D, generator=generator), rtol=1e-13, max_iter=4)
    assert start.products == 4
    assert not start.converged


@pytest.mark.parametrize("method", ["series", "bicgstab"])
def test_no_value_is_read_in_the_inner_loop_but_the_test_of_convergence(method):
    """Its list of flags is not seen by the dispatcher; any other read would be, once a step."""
    q = 0.9 * SLOW if method == "series" else 0.95
    matrices, generator = normal_matrices(2, 40, q, 0)
    rhs = torch.randn(2, 40, dtype=D, generator=generator)
    multiply = product(matrices)
    reads, products = [], []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if any(name in str(function) for name in ("_local_scalar_dense", "is_nonzero", "nonzero")):
                reads.append(str(function))
            return function(*args, **(kwargs or {}))

    def counted(v):
        products.append(v)
        return multiply(v)

    def count(most):
        reads.clear()
        products.clear()
        with Count():
            if method == "series":
                neumann_start(counted, rhs, rtol=1e-14, max_iter=most)
            else:
                bicgstab(lambda u: u - counted(u), rhs, rtol=1e-14, initial=torch.zeros_like(rhs),
                         initial_residual=rhs, max_iter=most)
        return len(reads), len(products)

    (few, short), (many, long) = count(7), count(13)
    assert long >= short + 4
    assert many == few
