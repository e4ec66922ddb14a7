"""The objectives of a DKEF by their plain formulas, with every kernel function's derivative in every direction.

The independent reference of the fast forms: tensors `[R, n, M, m]`, nothing expanded, nothing factored.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from deq.models.jets import input_jet


@dataclass
class Plain:
    """Dk[v_i] `[n, m, M]`, second `[n, M]`, offset `[n, m]`, constant `[n]`, square `[m]`, factor of the whole."""

    first: Tensor
    second: Tensor
    offset: Tensor
    constant: Tensor
    square: Tensor
    factor: float

    def normal_equations(self):
        weighted = self.first * self.square[:, None]
        gram = weighted.flatten(0, 1).T @ self.first.flatten(0, 1)
        linear = self.second.sum(0) + torch.einsum("nml,nm->l", weighted, self.offset)
        return self.factor * gram, self.factor * linear

    def values(self, alpha):
        residual = self.first @ alpha + self.offset
        return self.factor * (0.5 * (residual**2) @ self.square + self.second @ alpha + self.constant)


def kernel(model, x, directions, weights):
    """Kernel functions' first derivatives along directions `[n, m, d]` and weighted second ones."""
    copies = model.features.kernels
    jet = model.features.jet(input_jet(x, copies, directions, weights))
    anchors = model.features.jet(input_jet(model.inducing, copies)).value
    gap = jet.value[:, :, None] - anchors[:, None]                                        # [R, n, M, h]
    scale = 10**model.log_length[:, None, None]
    part = torch.softmax(model.mixture, 0)[:, None, None] * torch.exp(-gap.square().sum(3) / (2 * scale))
    slope = gap @ jet.first.transpose(2, 3)                                               # [R, n, M, m]
    first = -torch.einsum("rnl,rnlm->nml", part / scale, slope)
    if weights is None:
        return first, torch.zeros_like(part.sum(0))
    bend = torch.einsum("rnlm,m->rnl", slope**2, weights) / scale
    spread = torch.einsum("rnmh,m->rn", jet.first**2, weights)[:, :, None]
    second = part / scale * (bend - spread - (gap @ jet.second[..., None])[..., 0])
    return first, second.sum(0)


def plain_quadratic(model, x, objective, draw, sigma=0.16):
    """As `deq.training.dkef_objective.quadratic`, with `draw` the projections or the noise."""
    n, d = x.shape
    basis = torch.eye(d, dtype=x.dtype).expand(n, -1, -1)
    ones, zeros = x.new_ones(d), x.new_zeros(d)
    target, directions, square, weights = 0.0, basis, ones, ones
    if objective == "ssm":
        directions, square, weights = draw[:, None], ones[:1], ones[:1]
    elif objective == "ssm-vr":
        directions = torch.cat([basis, draw[:, None]], 1)
        square, weights = torch.cat([ones, zeros[:1]]), torch.cat([zeros, ones[:1]])
    elif objective == "dsm":
        x, target, weights = x + sigma * draw, draw / sigma, None
    first, second = kernel(model, x, directions, weights)
    offset = torch.einsum("nmd,nd->nm", directions, -x) / model.base_scale**2 + target
    lengths = directions.square().sum(2) @ (torch.zeros_like(square) if weights is None else weights)
    return Plain(first, second, offset, -lengths / model.base_scale**2, square,
                 sigma**4 if objective == "dsm" else 1.0)
