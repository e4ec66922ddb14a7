"""Products with the Jacobian from one recorded evaluation, against torch.func.jvp, and their adjointness."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import deq
from deq import MapError
from deq.linear.jacobian import JacobianProducts


class Sine(torch.autograd.Function):
    """An operation with a backward pass, no forward mode, and no batching: it looks at its numbers."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.sin()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        assert float(cotangent.detach().abs().sum()) >= 0  # needs values
        return cotangent * ctx.saved_tensors[0].cos()


def convolution(z: Tensor, weight: Tensor) -> Tensor:
    return functional.softplus(functional.conv2d(z, weight, padding=1))


def recorded(f, z: Tensor) -> JacobianProducts:
    point = z.clone().requires_grad_()
    return JacobianProducts(point, f(point))


def test_direct_and_transposed_products(generator: torch.Generator):
    z, u, v = torch.randn(3, 2, 8, 4, 4, generator=generator, dtype=torch.float64).unbind()
    weight = torch.randn(8, 8, 3, 3, generator=generator, dtype=torch.float64)
    products = recorded(lambda z: convolution(z, weight), z)
    expected = torch.func.jvp(lambda z: convolution(z, weight), (z,), (v,))[1]
    torch.testing.assert_close(products.direct(v), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(products.direct(2 * v), 2 * expected, rtol=1e-12, atol=1e-12)
    left, right = (u * products.direct(v)).sum(), (products.transposed(u) * v).sum()
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("stack", [(3,), (2, 3), (0,)])
@pytest.mark.parametrize("map_name", ["convolution", "no batching"])
def test_stacked_right_hand_sides(stack: tuple[int, ...], map_name: str, generator: torch.Generator):
    z = torch.randn(2, 2, 3, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 2, 3, 3, generator=generator, dtype=torch.float64)
    f = {"convolution": lambda z: convolution(z, weight), "no batching": lambda z: 0.5 * Sine.apply(z)}[map_name]
    products = recorded(f, z)
    v = torch.randn(*stack, *z.shape, generator=generator, dtype=torch.float64)
    for product in (products.direct, products.transposed):
        found = product(v)
        assert found.shape == v.shape
        for index in torch.cartesian_prod(*(torch.arange(k) for k in stack)).reshape(-1, len(stack)).tolist():
            torch.testing.assert_close(found[tuple(index)], product(v[tuple(index)]), rtol=1e-12, atol=1e-13)


def test_dense_blocks(generator: torch.Generator):
    z = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 2, 3, 3, generator=generator, dtype=torch.float64)
    blocks = recorded(lambda z: convolution(z, weight), z).blocks()
    v = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    expected = torch.func.jvp(lambda z: convolution(z, weight), (z,), (v,))[1]
    torch.testing.assert_close((blocks @ v.flatten(1).unsqueeze(2)).reshape(z.shape), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("share", [1.0, 1e-6])
@pytest.mark.parametrize("batch", [2, 64])
def test_blocks_of_coupled_samples_are_refused(share: float, batch: int, generator: torch.Generator):
    z = torch.randn(batch, 5, generator=generator, dtype=torch.float64)
    with pytest.raises(MapError, match="couples the samples"):
        recorded(lambda z: torch.tanh(z + share * z.mean(0)), z).blocks()


def test_a_hidden_dependence_is_named(generator: torch.Generator):
    point = torch.randn(2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="leaves torch"):
        JacobianProducts(point, point.detach() + shift, varies=True).transposed(torch.ones(2, 3, dtype=torch.float64))
    constant = JacobianProducts(point, shift.expand(2, 3))
    assert not constant.transposed(torch.ones(4, 2, 3, dtype=torch.float64)).any()
    assert not constant.direct(torch.ones(2, 3, dtype=torch.float64)).any()


def test_matrix_free_hessian_product_of_a_large_state_equals_the_unroll(generator: torch.Generator):
    """32 x 32 x 16: above the size from which Krylov cycles are short."""
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
