"""J = df/dz at a point as products, from one recorded evaluation of f; nothing of it forms J unless asked to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deq.linear.gmres import LinearSolution, gmres

__all__ = ["Linearization"]


class Linearization:
    """Products with J and its transpose for a batch of systems [b, n], by autograd on a graph that is kept.

    Args:
        f: the map on matrices, [b, n] -> [b, n].
        z: the point, [b, n]; its rows are the systems (one row for coupled samples).

    Attributes:
        z: the leaf at which f was evaluated.
        value: f(z) with its graph, [b, n].
        products: products spent so far.
        differentiable: whether the value carries a graph that reaches z.

    Example:
        >>> line = Linearization(lambda z: 0.5 * z, torch.ones(2, 3))
        >>> line.transposed(torch.ones(2, 3))[0, 0].item()
        0.5
    """

    def __init__(self, f: Callable[[Tensor], Tensor], z: Tensor) -> None:
        self.z = z.detach().clone().requires_grad_(True)
        self._f = f
        with torch.enable_grad():
            self.value = f(self.z)
        self.products = 0
        self._pull: tuple[Tensor, Tensor] | None = None
        self._difference = False
        self.differentiable = self.value.requires_grad and self._reaches_z()

    def _reaches_z(self) -> bool:
        return torch.autograd.grad(self.value, self.z, torch.zeros_like(self.value), retain_graph=True,
                                   allow_unused=True)[0] is not None

    def transposed(self, v: Tensor) -> Tensor:
        """J^T v, [b, n]; zero where f's graph does not reach z."""
        self.products += 1
        if not self.value.requires_grad:
            return torch.zeros_like(v)
        found = torch.autograd.grad(self.value, self.z, v, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(v) if found is None else found

    def forward(self, v: Tensor) -> Tensor:
        """Products J v, [b, n]: the transposed product differentiated in its vector.

        Central differences where f has no second derivative (fused attention, what may be differentiated once).
        """
        self.products += 1
        if not self.differentiable:
            return torch.zeros_like(v)
        if not self._difference:
            try:
                if self._pull is None:
                    slot = torch.zeros_like(self.value).requires_grad_(True)
                    with torch.enable_grad():
                        pulled = torch.autograd.grad(self.value, self.z, slot, create_graph=True)[0]
                    self._pull = slot, pulled
                slot, pulled = self._pull
                found = torch.autograd.grad(pulled, slot, v, retain_graph=True, allow_unused=True)[0] \
                    if pulled.requires_grad else None
                if found is not None:
                    return found
            except (RuntimeError, NotImplementedError):
                pass
            self._difference = True
        return self.difference(v)

    @torch.no_grad()
    def difference(self, v: Tensor, step: float | None = None) -> Tensor:
        """J v by central differences of f, [b, n]; relative error about eps^(2/3)."""
        scale = step or torch.finfo(v.dtype).eps ** (1 / 3)
        length = torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
        size = torch.linalg.vector_norm(self.z.detach(), dim=1, keepdim=True).clamp_min(1.0)
        h = scale * size / length
        return (self._f(self.z.detach() + h * v) - self._f(self.z.detach() - h * v)) / (2 * h)

    def dense(self, rows: Tensor | None = None) -> Tensor:
        """Form J, [b, n, n], by n transposed products; of these rows alone where given."""
        columns = self.value.shape[1]
        out = []
        for index in range(columns):
            unit = torch.zeros_like(self.value.detach())
            unit[:, index] = 1
            image = self.transposed(unit)
            out.append(image if rows is None else image[rows])
        return torch.stack(out, 1)

    def adjoint(self, c: Tensor, *, rtol: float, max_iter: int = 200, restart: int = 60) -> LinearSolution:
        """Solve (I - J^T) u = c for every row by GMRES."""
        return gmres(lambda v: v - self.transposed(v), c, rtol=rtol, max_iter=max_iter, restart=restart)

    def solve(self, c: Tensor, *, rtol: float, max_iter: int = 200, restart: int = 60) -> LinearSolution:
        """Solve (I - J) u = c for every row by GMRES."""
        return gmres(lambda v: v - self.forward(v), c, rtol=rtol, max_iter=max_iter, restart=restart)
