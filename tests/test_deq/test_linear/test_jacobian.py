"""Products with the Jacobian by every route, against torch.func.jvp, and their adjointness."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import deq
from deq.linear.jacobian import _TRACE_AFTER, JacobianProducts, dense_jacobian


class Doubling(torch.autograd.Function):
    """An operation with a backward pass and no forward mode."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.sin()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return cotangent * ctx.saved_tensors[0].cos()


def convolution(z: Tensor, weight: Tensor) -> Tensor:
    return functional.softplus(functional.conv2d(z, weight, padding=1))


@pytest.mark.parametrize("side", [4, 32])  # 32: large enough to be traced
def test_direct_and_transposed_products(side: int, generator: torch.Generator):
    z, u, v = torch.randn(3, 2, 8, side, side, generator=generator, dtype=torch.float64).unbind()
    weight = torch.randn(8, 8, 3, 3, generator=generator, dtype=torch.float64)
    products = JacobianProducts(convolution, z, (weight,))
    expected = torch.func.jvp(lambda z: convolution(z, weight), (z,), (v,))[1]
    for _ in range(_TRACE_AFTER[v.dtype] + 2):
        torch.testing.assert_close(products.direct(v), expected, rtol=1e-12, atol=1e-12)
    assert (products._traced is not None) == (side == 32)
    torch.testing.assert_close(products.direct(2 * u), 2 * products.direct(u))  # kept, and still linear
    left, right = (u * products.direct(v)).sum(), (products.transposed(u) * v).sum()
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-9)


def test_the_trace_is_used_also_inside_a_custom_function(generator: torch.Generator):
    """There torch has forward mode switched off; a trace taken so would be the zero map."""
    z, v, u = torch.randn(3, 1, 8, 64, 64, generator=generator, dtype=torch.float64).unbind()
    weight = torch.randn(8, 8, 3, 3, generator=generator, dtype=torch.float64)
    products = JacobianProducts(convolution, z, (weight,))

    class Inside(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, v: Tensor) -> Tensor:
            for _ in range(_TRACE_AFTER[v.dtype] + 1):
                products.direct(v)
            return products.direct(u)

    found = Inside.apply(v.requires_grad_())
    assert products._traced is not None
    expected = torch.func.jvp(lambda z: convolution(z, weight), (z,), (u,))[1]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_large_map_without_forward_mode_takes_the_pullback(generator: torch.Generator):
    z, v = torch.randn(2, 1, 2**14, generator=generator, dtype=torch.float64).unbind()
    products = JacobianProducts(lambda z: 0.5 * Doubling.apply(z), z, ())
    for _ in range(_TRACE_AFTER[v.dtype] + 2):
        torch.testing.assert_close(products.direct(v), 0.5 * z.cos() * v, rtol=1e-13, atol=0)


def test_dense_blocks(generator: torch.Generator):
    z = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 2, 3, 3, generator=generator, dtype=torch.float64)
    blocks = dense_jacobian(convolution, z, (weight,))
    v = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    expected = torch.func.jvp(lambda z: convolution(z, weight), (z,), (v,))[1]
    torch.testing.assert_close((blocks @ v.flatten(1).unsqueeze(2)).reshape(z.shape), expected, rtol=1e-12, atol=1e-12)


def test_matrix_free_hessian_product_of_a_large_state_equals_the_unroll(generator: torch.Generator):
    """32 x 32 x 16: above the size from which the tangent map is traced and Krylov cycles are short."""
    x, v = torch.randn(2, 1, 2, 32, 32, generator=generator, dtype=torch.float64).unbind()
    weight = torch.randn(16, 16, 3, 3, generator=generator, dtype=torch.float64) / 40
    injection = torch.randn(16, 2, 3, 3, generator=generator, dtype=torch.float64)

    def f(z: Tensor, x: Tensor) -> Tensor:
        return functional.softplus(functional.conv2d(z, weight, padding=1)
                                   + functional.conv2d(x, injection, padding=1))

    def unroll(x: Tensor) -> Tensor:
        z = x.new_zeros(1, 16, 32, 32)
        for _ in range(60):
            z = f(z, x)
        return z

    results = []
    for solve in (unroll, lambda x: deq.equilibrium(f, x.new_zeros(1, 16, 32, 32), inputs=(x,), tol=1e-12,
                                                    gradient=deq.Exact(2, linear="krylov"))):
        y = x.clone().requires_grad_()
        z = solve(y)
        (score,) = torch.autograd.grad(z.square().mean() + z.sin().mean(), y, create_graph=True)
        (product,) = torch.autograd.grad(score, y, v)
        results.append(torch.cat([score.detach().flatten(), product.flatten()]))
    # solver tolerance 1e-12 over (1 - q)^2, q about 1/2
    assert (results[0] - results[1]).norm() <= 1e-10 * results[0].norm()
