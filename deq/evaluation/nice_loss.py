"""The exact score-matching loss of NICE by one forward sweep, for test sets of a thousand images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deq.evaluation.likelihood import score_matching_values
from deq.gradients.rules import Phantom
from deq.layer import DEQ
from deq.models.blocks import SoftplusCell
from deq.models.jets import Jet, input_jet
from deq.models.nice import NICE, EquilibriumShift


def nice_score_matching_values(model: NICE, x: Tensor, chunk: int = 8) -> Tensor:
    """`0.5 |s|^2 + tr(Ds)` of each row of x `[n, d]`, without a graph.

    With h the transform and J its Jacobian, `tr(Ds) = -|J|^2 - h . (Laplacian of h)`: value, J and Laplacian are
    carried forward together through the couplings, at a quarter of the cost of d backward passes. Shifts that are
    equilibria are differentiated by their own phantom rule; where a shift has another rule or map, or is of another
    make, the d backward passes are taken.

    Example:
        >>> model = NICE(4, width=3)
        >>> x = torch.randn(2, 4)
        >>> torch.allclose(nice_score_matching_values(model, x), score_matching_values(model.log_density, x), atol=1e-4)
        True
    """
    if not all(_has_jet(shift) for shift in model.shifts):
        return score_matching_values(model.log_density, x)
    return torch.cat([_values(model, rows) for rows in x.split(chunk)])


def _has_jet(shift: nn.Module) -> bool:
    if isinstance(shift, EquilibriumShift):
        layer = shift.equilibrium
        return isinstance(layer, DEQ) and isinstance(layer.gradient, Phantom) and layer.gradient.damping == 1 and (
            isinstance(layer.cell, SoftplusCell))
    return isinstance(shift, nn.Sequential) and all(isinstance(part, (nn.Linear, nn.Softplus)) for part in shift)


def _values(model: NICE, rows: Tensor) -> Tensor:
    x = rows.detach().requires_grad_()
    score, = torch.autograd.grad(model.log_density(x).sum(), x)
    with torch.no_grad():
        basis = torch.eye(model.dim, dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
        jet = input_jet(x.detach(), 1, basis, x.new_ones(model.dim))
        halves = [_half(jet, start) for start in (0, 1)]
        for index, shift in enumerate(model.shifts):
            source = index % 2
            halves[1 - source] = halves[1 - source] + _through(shift, halves[source])
        trace = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for half, scale in zip(halves, model.scale.chunk(2), strict=True):
            if half.first is None or half.second is None:
                raise RuntimeError("a jet along unit vectors lost its derivatives")
            square = (2 * scale).exp()
            trace -= (half.first.square().sum(2) * square).sum((0, 2)) + (half.value * half.second * square).sum((0, 2))
    return 0.5 * score.square().sum(1) + trace


def _half(jet: Jet, start: int) -> Jet:
    if jet.first is None or jet.second is None:
        raise RuntimeError("the input's jet has no derivatives")
    return Jet(jet.value[..., start::2], jet.first[..., start::2], jet.second[..., start::2], jet.weights)


def _through(shift: nn.Module, y: Jet) -> Jet:
    if isinstance(shift, EquilibriumShift):
        u, layer = _through(shift.injection, y), shift.equilibrium
        if not isinstance(layer, DEQ) or not isinstance(layer.cell, SoftplusCell):
            raise TypeError(f"a shift without a known jet: {shift}")
        z, linear = Jet(layer(u.value[0])[None]), layer.cell.linear
        for _ in range(layer.gradient.steps):
            z = (_linear(z, linear) + u).softplus()
        return _linear(z, shift.readout)
    for part in shift.children():
        y = _linear(y, part) if isinstance(part, nn.Linear) else y.softplus()
    return y


def _linear(y: Jet, part: nn.Module) -> Jet:
    if not isinstance(part, nn.Linear):
        raise TypeError(f"not a linear map: {part}")
    return y.linear(part.weight[None], None if part.bias is None else part.bias[None])
