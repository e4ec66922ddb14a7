"""Closure conversion: what is found, and that replacing it acts everywhere."""

import torch
from torch import nn
from torch.nn.utils import parametrizations

from deq.interop.closure import close


def test_finds_inputs_parameters_and_constants_once():
    x, scale = torch.randn(2, 3), torch.randn(3)
    module = parametrizations.weight_norm(nn.Linear(3, 3))
    closed, value = close(lambda z: scale * torch.tanh(module(z) + x.T.T) + x, torch.zeros(2, 3))
    expected = [x, scale, *module.parameters()]
    assert {id(t) for t in closed.captured} == {id(t) for t in expected}
    torch.testing.assert_close(value, closed.function(torch.zeros(2, 3)))


def test_substitution_reaches_nested_arguments_and_keywords():
    a, b, index = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([2, 0, 1])
    closed, _ = close(
        lambda z: torch.stack([z, a]).sum(0).index_select(dim=1, index=index) + torch.add(input=b, other=z),
        torch.zeros(2, 3))
    replacement = [torch.full_like(t, 1.0) if t.is_floating_point() else t for t in closed.captured]
    z = torch.randn(2, 3)
    torch.testing.assert_close(closed(z, *replacement), (z + 1)[:, index] + 1 + z)
    torch.testing.assert_close(closed(z, *closed.captured), (z + a)[:, index] + b + z)


def test_a_tensor_made_inside_by_autograd_is_not_a_closure_variable():
    """An energy-based cell differentiates inside f; what comes out of that must be made afresh at every call."""
    weight = torch.randn(3, 3, dtype=torch.float64)

    def energy_step(z: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            y = z.detach().requires_grad_()
            (gradient,) = torch.autograd.grad((torch.cos(y @ weight)).sum(), y)
        return 0.1 * gradient

    closed, _ = close(energy_step, torch.ones(2, 3, dtype=torch.float64))
    assert [t is weight for t in closed.captured] == [True]
    z, other = torch.randn(2, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(closed(z, other), -0.1 * torch.sin(z))
