"""Products with the Jacobian by every route, against torch.func.jvp, and their adjointness."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from deq.linear.jacobian import JacobianProducts, dense_jacobian


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
    torch.testing.assert_close(products.direct(v), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(products.direct(2 * u), 2 * products.direct(u))  # kept, and still linear
    left, right = (u * products.direct(v)).sum(), (products.transposed(u) * v).sum()
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-9)


def test_a_large_map_without_forward_mode_takes_the_pullback(generator: torch.Generator):
    z, v = torch.randn(2, 1, 2**14, generator=generator, dtype=torch.float64).unbind()
    products = JacobianProducts(lambda z: 0.5 * Doubling.apply(z), z, ())
    torch.testing.assert_close(products.direct(v), 0.5 * z.cos() * v, rtol=1e-13, atol=0)


def test_dense_blocks(generator: torch.Generator):
    z = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 2, 3, 3, generator=generator, dtype=torch.float64)
    blocks = dense_jacobian(convolution, z, (weight,))
    v = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    expected = torch.func.jvp(lambda z: convolution(z, weight), (z,), (v,))[1]
    torch.testing.assert_close((blocks @ v.flatten(1).unsqueeze(2)).reshape(z.shape), expected, rtol=1e-12, atol=1e-12)
