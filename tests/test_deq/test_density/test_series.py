"""Taylor coefficients against 30-digit ones, nested forward mode, and refusals."""

import mpmath
import pytest
import torch

import deq
from deq.interop.right_derivatives import right_derivatives
from tests.zoo import ZOO, points

CURVES = {
    "exp of a product": (lambda x: torch.exp(torch.sin(x) * x), lambda t: mpmath.exp(mpmath.sin(t) * t)),
    "quotient": (lambda x: torch.tanh(x) / (1 + x * x), lambda t: mpmath.tanh(t) / (1 + t * t)),
    "power of softplus": (
        lambda x: torch.nn.functional.softplus(x) ** 1.5,
        lambda t: mpmath.log(1 + mpmath.exp(t)) ** 1.5,
    ),
    "no dependence": (lambda x: torch.ones_like(x), lambda t: mpmath.mpf(1)),
}


@pytest.mark.parametrize("name", sorted(CURVES))
def test_coefficients_to_order_six(name: str):
    function, precise = CURVES[name]
    found = deq.jet(function, torch.tensor(0.3, dtype=torch.float64), order=6)
    with mpmath.workdps(30):
        expected = mpmath.taylor(precise, mpmath.mpf("0.3"), 6)
    for a, b in zip(found, expected, strict=True):
        assert abs(float(a) - float(b)) <= 1e-14


@pytest.mark.parametrize(
    "name", ["softmax", "layer_norm affine", "attention", "conv2d", "einsum", "max_pool2d", "lstm cell", "logdet"]
)
def test_operations_to_third_order(name: str):
    u, v = points(2), torch.cos(torch.arange(12, dtype=torch.float64)).reshape(2, 6)

    def derivative(t: torch.Tensor) -> torch.Tensor:
        with right_derivatives():
            return ZOO[name](u + t * v)

    for k, found in enumerate(deq.jet(ZOO[name], u, v, order=3)):
        expected = derivative(torch.zeros((), dtype=torch.float64)) / [1, 1, 2, 6][k]
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
        derivative = torch.func.jacfwd(derivative)


def test_coefficients_have_parameter_derivatives():
    x, p = torch.linspace(-1, 1, 4, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    third = deq.jet(lambda x: torch.sin(p * x), x, order=3)[3]
    torch.testing.assert_close(third, -(p**3) * torch.cos(p * x) / 6)
    (found,) = torch.autograd.grad(third.sum(), p)
    q = p.detach()
    torch.testing.assert_close(found, ((-3 * q**2 * torch.cos(q * x) + q**3 * x * torch.sin(q * x)) / 6).sum())


def test_an_equilibrium_inside():
    """z = tanh(x + z / 2) along x + t: coefficients from an unroll of sixty steps."""
    x = torch.linspace(-1, 1, 3, dtype=torch.float64).reshape(3, 1)

    def unrolled(x: torch.Tensor) -> torch.Tensor:
        z = torch.zeros_like(x)
        for _ in range(60):
            z = torch.tanh(x + 0.5 * z)
        return z

    def solved(x: torch.Tensor) -> torch.Tensor:
        return deq.equilibrium(lambda z: torch.tanh(x + 0.5 * z), torch.zeros_like(x), tol=1e-14)

    for a, b in zip(deq.jet(solved, x, order=2), deq.jet(unrolled, x, order=2), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_unusable_arguments():
    x = torch.zeros(2)
    with pytest.raises(ValueError, match="order"):
        deq.jet(torch.sin, x, order=-1)
    with pytest.raises(ValueError, match="shape"):
        deq.jet(torch.sin, x, torch.zeros(3), order=1)
    with pytest.raises(deq.DerivativeOrderError, match="no derivative"):
        deq.jet(lambda x: torch.cdist(x, x + 1), torch.randn(3, 2), order=2)
