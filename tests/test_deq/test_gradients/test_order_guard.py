"""The guard under plain autograd: right orders pass, the first wrong one raises, and values are untouched."""

import pytest
import torch

import deq
from deq import DerivativeOrderError, Exact, Neumann, Phantom


def solve(x: torch.Tensor, weight: torch.Tensor, rule) -> torch.Tensor:
    return deq.equilibrium(lambda z: torch.tanh(z @ weight + x), torch.zeros_like(x), gradient=rule, tol=1e-13)


@pytest.fixture
def problem() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = 0.2 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    return x, weight.requires_grad_()


def differentiate(x: torch.Tensor, weight: torch.Tensor, rule, order: int, last: torch.Tensor) -> torch.Tensor:
    """`order` derivatives; all but the last in x."""
    value = solve(x, weight, rule).sin().sum()
    for _ in range(order - 1):
        value = torch.autograd.grad(value, x, create_graph=True)[0].square().sum()
    return torch.autograd.grad(value, last)[0]


@pytest.mark.parametrize("rule_of", [Exact, lambda k: Exact(k, linear="krylov"), lambda k: Neumann(3, k)])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_limit_is_sharp(problem, rule_of, limit: int):
    x, weight = problem
    for last in (x, weight):  # total order counts inputs and parameters together
        assert differentiate(x, weight, rule_of(limit), limit, last).isfinite().all()
        with pytest.raises(DerivativeOrderError, match=rf"order {limit + 1} .*only up to order {limit}"):
            differentiate(x, weight, rule_of(limit), limit + 1, last)


def test_phantom_is_not_limited(problem):
    x, weight = problem
    assert differentiate(x, weight, Phantom(2), 5, weight).isfinite().all()


def test_several_first_order_passes_over_one_graph_are_first_order(problem):
    x, weight = problem
    z = solve(x, weight, Exact(1))
    rows = [torch.autograd.grad(z[0, i], x, create_graph=True)[0] for i in range(3)]
    again = [torch.autograd.grad(z[0, i], x, retain_graph=True)[0] for i in range(3)]
    for a, b in zip(rows, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_products_of_first_derivatives_are_not_second_order(problem):
    """(dz/dx)^2 contains no second derivative of z: Exact(1) may give it, and gives it right."""
    x, weight = problem
    z = solve(x, weight, Exact(1))
    (a,) = torch.autograd.grad(z.sum(), x, retain_graph=True)
    (b,) = torch.autograd.grad(z.square().sum(), x)
    assert (a * b).isfinite().all()


def test_jacobian_vector_product_by_double_backward_never_goes_wrong_silently(problem):
    """Its own derivative is of second order: with Exact(2) it is right, with Exact(1) it must raise somewhere."""
    x, weight = problem

    def derivative_of_product(rule) -> torch.Tensor:
        z = solve(x, weight, rule)
        dummy = torch.ones_like(z, requires_grad=True)
        (pulled,) = torch.autograd.grad(z, x, dummy, create_graph=True)
        (product,) = torch.autograd.grad(pulled, dummy, torch.ones_like(x), create_graph=True)
        return torch.autograd.grad(product.sum(), x)[0]

    torch.testing.assert_close(derivative_of_product(Exact(3)), derivative_of_product(Exact(2)), rtol=1e-10, atol=1e-12)
    with pytest.raises(DerivativeOrderError):
        derivative_of_product(Exact(1))


def test_the_guard_adds_nothing(problem):
    x, weight = problem
    exact, phantom = solve(x, weight, Exact(2)), solve(x, weight, Phantom(1))
    torch.testing.assert_close(exact, phantom, rtol=1e-11, atol=1e-11)


def test_a_map_without_closure_needs_no_guard():
    z = deq.equilibrium(torch.cos, torch.zeros(2, 1, dtype=torch.float64), tol=1e-14)
    torch.testing.assert_close(z.cos(), z)
    assert not z.requires_grad
