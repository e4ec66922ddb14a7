"""The jet of a function of x: its value with the derivatives that a Laplacian needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Jet", "coordinate_jet"]


@dataclass(frozen=True)
class Jet:
    """A batched function u(x) with the derivatives that its Laplacian needs.

    Attributes:
        value: u, [batch, ...].
        first: derivative along each coordinate of x, [d, batch, ...].
        laplacian: sum over the coordinates of the second derivatives, [batch, ...]; None for first order alone.
    """

    value: Tensor
    first: Tensor
    laplacian: Tensor | None

    def detached(self) -> Jet:
        """The same without a graph."""
        return Jet(self.value.detach(), self.first.detach(),
                   None if self.laplacian is None else self.laplacian.detach())

    def through(self, value: Tensor, slope: Tensor | float, bend: Tensor | float | None) -> Jet:
        """An elementwise function of this jet from its value and its first two derivatives (bend None for zero)."""
        first, laplacian = slope * self.first, None
        if self.laplacian is not None:
            laplacian = slope * self.laplacian
            if bend is not None:
                laplacian = laplacian + bend * torch.linalg.vecdot(self.first, self.first, dim=0)
        return Jet(value, first, laplacian)


def coordinate_jet(x: Tensor) -> Jet:
    """X itself, [batch, ...]: unit directions and no Laplacian."""
    batch, d = x.shape[0], x.shape[1:].numel()
    directions = torch.eye(d, dtype=x.dtype, device=x.device).reshape(d, 1, *x.shape[1:]).expand(d, *x.shape)
    return Jet(x, directions if batch else x.new_zeros((d, *x.shape)), torch.zeros_like(x))
