"""Mixtures of Gaussian kernels between features of n points and of M anchors, with derivatives in the points.

With `kappa_r = rho_r exp(-|phi_r - zeta_r|^2 / (2 s_r)) / s_r` the gradient of the l-th kernel function is `J C_l`,

    C_l = - (kappa_1l (phi_1 - zeta_1l), ..., kappa_Rl (phi_R - zeta_Rl)),        J [d, R h] the features' derivatives,

and its second derivatives need `(phi - zeta)^T P (phi - zeta)` with `P = J^T J` alone: nothing is of size n M d.
Squares are expanded, which turns them into matrix products. Features and anchors are centred first, so that what
cancels is no larger than the distances themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def gaussian_parts(features: Tensor, anchors: Tensor, mixture: Tensor, scale: Tensor) -> Tensor:
    """`softmax(mixture)_r exp(-|features_r - anchors_r|^2 / (2 scale_r))`, `[R, n, M]`.

    Args:
        features: `[R, n, h]`.
        anchors: `[R, M, h]`.
        mixture: logits `[R]`.
        scale: `[R]`.
    """
    centre = anchors.detach().mean(1, keepdim=True)
    x, z = features - centre, anchors - centre
    half = x @ z.transpose(1, 2) - 0.5 * x.square().sum(2)[:, :, None] - 0.5 * z.square().sum(2)[:, None]
    return torch.exp(half / scale[:, None, None] + torch.log_softmax(mixture, 0)[:, None, None])


class SumOfForms(torch.autograd.Function):
    """`sum_n C_n^T P_n C_n`, `[M, M]`, for C `[n, k, M]` and symmetric P `[n or 1, k, k]`.

    Both passes use the symmetry: three quarters and two thirds of what autograd would do.
    """

    @staticmethod
    def forward(ctx: Any, c: Tensor, p: Tensor) -> Tensor:
        """The sum."""
        ctx.save_for_backward(c, p)
        left, right = c.flatten(0, 1), (p @ c).flatten(0, 1)
        half = left.shape[1] // 2
        first, second = left[:, :half].T, left[:, half:].T
        corner = first @ right[:, half:]
        return torch.cat([torch.cat([first @ right[:, :half], corner], 1),
                          torch.cat([corner.T, second @ right[:, half:]], 1)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """`P C (g + g^T)` and the symmetric part of `C g C^T`."""
        c, p = ctx.saved_tensors
        both = (c.flatten(0, 1) @ (cotangent + cotangent.T)).view_as(c)
        change = 0.5 * (both @ c.transpose(1, 2))
        return p @ both, change if len(p) == len(c) else change.sum(0, keepdim=True)


@dataclass(frozen=True)
class KernelForm:
    """Kernel functions at n points and what their derivatives are made of.

    Attributes:
        features: centred, `[R, n, h]`.
        anchors: centred, `[R, M, h]`.
        kappa: the kernels over their scales, `[R, n, M]`.
        scale: `[R]`.
    """

    features: Tensor
    anchors: Tensor
    kappa: Tensor
    scale: Tensor

    @classmethod
    def make(cls, features: Tensor, anchors: Tensor, mixture: Tensor, scale: Tensor) -> KernelForm:
        """From features `[R, n, h]`, anchors `[R, M, h]`, logits and scales `[R]`."""
        centre = anchors.detach().mean(1, keepdim=True)
        kappa = gaussian_parts(features, anchors, mixture, scale) / scale[:, None, None]
        return cls(features - centre, anchors - centre, kappa, scale)

    def rows(self, chosen: slice) -> KernelForm:
        """At some of the points."""
        return KernelForm(self.features[:, chosen], self.anchors, self.kappa[:, chosen], self.scale)

    def coefficients(self) -> Tensor:
        """C, `[n, R h, M]`."""
        # samples outermost in memory: elementwise work on strided tensors costs several times as much
        features, kappa = (tensor.transpose(0, 1).contiguous() for tensor in (self.features, self.kappa))
        gap = self.anchors.transpose(1, 2).contiguous() - features[..., None]                    # [n, R, h, M]
        return (gap * kappa[:, :, None]).flatten(1, 2)

    def combine(self, alpha: Tensor) -> Tensor:
        """`C alpha`, `[n, R h]`: the gradient of `sum_l alpha_l k_l` in the features."""
        weighted = self.kappa * alpha
        pulled = weighted @ self.anchors - weighted.sum(2, keepdim=True) * self.features
        return pulled.transpose(0, 1).flatten(1)

    def second(self, gram: Tensor, bend: Tensor) -> Tensor:
        """Second derivatives of all kernel functions, summed over directions, `[n, M]`.

        Args:
            gram: `J_r^T J_r` over those directions, `[R, n, h, h]`.
            bend: the features' own second derivatives, summed, `[R, n, h]`.
        """
        turned = (gram @ self.features[..., None])[..., 0]
        squares = (self.anchors[..., None] * self.anchors[:, :, None]).flatten(2)                # [R, M, h h]
        quadratic = gram.flatten(2) @ squares.transpose(1, 2)
        constant = (turned * self.features).sum(2, keepdim=True)
        bent = quadratic + constant - 2 * turned @ self.anchors.transpose(1, 2)
        spread = gram.diagonal(dim1=2, dim2=3).sum(2)[..., None]
        return self._collect(bent, spread, bend)

    def second_along(self, first: Tensor, bend: Tensor) -> Tensor:
        """Second derivatives of all kernel functions along one direction a sample, `[n, M]`.

        Args:
            first: the features' derivatives along it, `[R, n, h]`.
            bend: their second derivatives, `[R, n, h]`.
        """
        slope = (first * self.features).sum(2, keepdim=True) - first @ self.anchors.transpose(1, 2)
        return self._collect(slope.square(), first.square().sum(2, keepdim=True), bend)

    def _collect(self, bent: Tensor, spread: Tensor, bend: Tensor) -> Tensor:
        straight = (bend * self.features).sum(2, keepdim=True) - bend @ self.anchors.transpose(1, 2)
        return (self.kappa * (bent / self.scale[:, None, None] - spread - straight)).sum(0)
