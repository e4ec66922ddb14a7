"""Heads of a density whose structure is known, so that their curvature is a sum over units."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from deq.density.jets import elementwise_derivatives

PerUnit = Callable[[Tensor], Tensor]


class SeparableHead(nn.Module):
    """head(z, x) = sum_j state(z)_j + sum_i input(x)_i with elementwise functions: a diagonal Hessian.

    `EquilibriumDensity` then never touches a direction of x in the head.

    Args:
        state: elementwise in z [batch, n], each unit by its own function (`lambda z: a * z + c * z**2` with a [n]);
            twice differentiable.
        input: the same in x [batch, d], for a base density such as `lambda x: -0.5 * x**2`; None for no such term.

    Example:
        >>> import torch, deq
        >>> head = deq.SeparableHead(lambda z: z**2, lambda x: -0.5 * x**2)
        >>> head(torch.ones(2, 3), torch.ones(2, 4)).tolist()
        [1.0, 1.0]
    """

    def __init__(self, state: PerUnit, input: PerUnit | None = None) -> None:
        super().__init__()
        self.state, self.input = state, input

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Log density up to a constant, [batch]."""
        value = self.state(z).flatten(1).sum(1)
        return value if self.input is None else value + self.input(x).flatten(1).sum(1)

    def derivatives(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Gradient and diagonal Hessian in z, gradient and Laplacian [batch] in x (None without an input term)."""
        _, along_z, curvature = elementwise_derivatives(self.state, z)
        if self.input is None:
            return along_z, curvature, None, None
        _, along_x, second = elementwise_derivatives(self.input, x)
        return along_z, curvature, along_x, second.flatten(1).sum(1)
