"""Replaced operations: same values as torch's, and third derivatives that differences confirm."""

import pytest
import torch
from torch import nn
from torch.func import grad, jvp

import deq
from deq.interop.right_derivatives import refuse_wrong_nodes, right_derivatives
from tests.zoo import ZOO, points
from tests.zoo_cases import five_point

REPLACED = ["layer_norm affine", "instance_norm", "batch_norm of one", "batch_norm eval", "solve", "solve right",
            "solve_ex", "tensorsolve", "det", "logdet", "slogdet", "cholesky_inverse", "householder_product",
            "attention causal", "multihead", "glu", "hardsigmoid"]


def forward(function):
    return lambda s: jvp(function, (s,), (torch.ones_like(s),))[1]


@pytest.mark.parametrize("name", REPLACED)
def test_third_derivatives_in_every_mixture_of_modes(name: str):
    u = points(2)
    v = torch.sin(torch.arange(12, dtype=torch.float64)).reshape(2, 6)

    def function(s: torch.Tensor) -> torch.Tensor:
        with right_derivatives():
            made = ZOO[name](u + s * v)
        return (torch.sin(0.7 * made) * torch.cos(torch.arange(made.numel()).reshape(made.shape))).sum()

    with torch.no_grad(), right_derivatives():
        replaced = ZOO[name](u)
    torch.testing.assert_close(replaced, ZOO[name](u), rtol=1e-12, atol=1e-13)
    slope, at = grad(function), lambda h: torch.tensor(h, dtype=torch.float64)
    # Five-point differences: h^4 and eps / h, and for the third, of a second difference, eps / h^2.
    second = five_point(lambda h: slope(at(h)))
    third = (-slope(at(4e-3)) + 16 * slope(at(2e-3)) - 30 * slope(at(0.0)) + 16 * slope(at(-2e-3))
             - slope(at(-4e-3))) / (12 * 4e-6)
    for outer in (grad, forward):
        for inner in (grad, forward):
            torch.testing.assert_close(outer(inner(function))(at(0.0)), second, rtol=1e-6, atol=1e-6)
    for outer in (grad, forward):
        torch.testing.assert_close(outer(forward(slope))(at(0.0)), third, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(outer(grad(slope))(at(0.0)), third, rtol=1e-5, atol=1e-5)


def test_running_statistics_are_updated_as_torch_does():
    for module, x in ((nn.BatchNorm1d(3), torch.randn(7, 3)), (nn.BatchNorm2d(2), torch.randn(3, 2, 4, 4)),
                      (nn.InstanceNorm1d(2, track_running_stats=True), torch.randn(3, 2, 5))):
        twin = type(module)(module.num_features, track_running_stats=True)
        with right_derivatives():
            found = module(x)
        torch.testing.assert_close(found, twin(x))
        torch.testing.assert_close(module.running_mean, twin.running_mean)
        torch.testing.assert_close(module.running_var, twin.running_var)


def test_a_normalisation_that_was_not_seen_is_refused_at_third_order():
    x = torch.randn(2, 3, requires_grad=True)
    y = torch.nn.functional.layer_norm(x, (3,)).exp()
    refuse_wrong_nodes(y, x, 2)
    refuse_wrong_nodes(y + x.detach().requires_grad_(), torch.zeros(2, 3, requires_grad=True), 3)
    with pytest.raises(deq.DerivativeOrderError, match="NativeLayerNorm"):
        refuse_wrong_nodes(y, x, 3)
    with right_derivatives():
        refuse_wrong_nodes(torch.nn.functional.layer_norm(x, (3,)).exp(), x, 3)
