"""A start for h = W activation(h) + g that mostly needs no solver any more: chord steps with one Jacobian a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from deq.density.affine import AffineStructure
from deq.density.jets import elementwise_derivatives
from deq.linear.factorise import try_inverse

# The steps before which the mean slope is taken anew; a Picard step comes first.
_REFRESH = (1, 3)
_MOST_STEPS = 40
# The shared inverse costs n^3, a step batch n^2.
_STATE_LIMIT, _SAMPLES = 1024, 8


@torch.no_grad()
def chord_start(structure: AffineStructure, start: Tensor, atol: float, rtol: float) -> tuple[Tensor, int]:
    """Steps h <- h + (I - W mean(D))^{-1} (f(h) - h), D the slopes: one small inverse serves all samples.

    Where the slopes of samples differ little from their mean this contracts fast, also when f hardly does. Where they
    differ much it may not: it stops as soon as it gains less than a Picard step of a usual map would, and what comes
    back is a start like any other, for a solver that checks it.

    Args:
        structure: of the map; `injected` is g.
        start: [batch, n].
        atol: absolute tolerance on |f(h) - h| of a sample.
        rtol: relative tolerance.

    Returns:
        The best h found, and how often f was evaluated.
    """
    weight, injected, phi = structure.weight.detach(), structure.injected.detach(), structure.activation
    batch, n = start.shape
    if not batch or n > min(_STATE_LIMIT, _SAMPLES * batch):
        return start, 0
    transposed = weight.T
    best, h, inverse = start, start, None
    last = torch.inf
    for step in range(_MOST_STEPS):
        value = torch.addmm(injected, phi(h), transposed)
        residual = value - h
        norm = torch.linalg.vector_norm(residual, dim=1)
        limit = torch.linalg.vector_norm(value, dim=1).mul_(rtol).add_(atol)
        excess = float((norm / limit).amax())
        if not excess <= 0.7 * last and step > 1:
            break
        best, last = h, excess
        if excess <= 0.5:
            break
        if step in _REFRESH:
            system = elementwise_derivatives(phi, h)[1].mean(0).neg().unsqueeze(1) * transposed
            system.diagonal().add_(1)
            inverse = try_inverse(system)[0]
        h = value if inverse is None else torch.addmm(h, residual, inverse)
    return best if bool(best.isfinite().all()) else start, step + 1
