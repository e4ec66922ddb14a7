"""Equilibria of the zoo's operations with their derivatives by a route that shares nothing with the library.

The map is f(z, x) = sin(c Q op(A z + U x + b + p)) / 2 with a contraction factor below 1/10, so an unroll of ten steps
from the solution is the equilibrium to 1e-8, in value and derivatives. The loss is w . z summed over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tests.zoo import WIDTH, ZOO, points

D = 2
STEP = 1e-3


def five_point(function: Callable[[float], Tensor], step: float = STEP) -> Tensor:
    """Central difference of fourth order at zero."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def with_error(function: Callable[[float], Tensor]) -> tuple[Tensor, Tensor]:
    """The same with its error: truncation falls to a sixteenth when the step is halved, so the gap is a safe bound."""
    fine, coarse = five_point(function), five_point(function, 2 * STEP)
    return fine, torch.linalg.vector_norm(fine - coarse)


@dataclass(frozen=True)
class ZooCase:
    """An equilibrium around the operation `name`."""

    name: str
    batch: int = 2

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """A, U, Q, b, w, the input x and the directions q (parameters) and v (inputs)."""
        generator = torch.Generator().manual_seed(len(self.name))
        op, base = ZOO[self.name], points(self.batch, seed=len(self.name))
        made = op(base).detach().reshape(self.batch, -1)
        slope = torch.autograd.functional.jacobian(lambda u: op(u).reshape(self.batch, -1).sum(0), base)
        size = float(slope.abs().sum((1, 2)).max() + made.abs().max())

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        a, q = draw(WIDTH, WIDTH), draw(WIDTH, made.shape[1])
        return {
            "A": 0.1 * a / torch.linalg.matrix_norm(a, 2),
            "Q": q / (torch.linalg.matrix_norm(q, 2) * max(1.0, size)) * 2,
            "U": 0.1 * draw(WIDTH, D),
            "b": base,
            "w": draw(WIDTH),
            "x": 0.1 * draw(self.batch, D),
            "q": draw(WIDTH),
            "v": draw(D),
        }

    def f(self, z: Tensor, x: Tensor, p: Tensor, rows: slice = slice(None)) -> Tensor:
        """The map, [batch, 6]."""
        t = self.tensors
        y = ZOO[self.name](z @ t["A"].T + x @ t["U"].T + t["b"][rows] + p)
        return torch.sin(y.reshape(len(z), -1) @ t["Q"].T) / 2

    def steps(self, z: Tensor, x: Tensor, p: Tensor, count: int) -> Tensor:
        """`count` steps of plain iteration."""
        for _ in range(count):
            z = self.f(z, x, p)
        return z

    @cached_property
    def solution(self) -> Tensor:
        """The equilibrium at x, p = 0."""
        with torch.no_grad():
            return self.steps(torch.zeros(self.batch, WIDTH, dtype=torch.float64), self.tensors["x"], self.still, 60)

    @property
    def still(self) -> Tensor:
        """p = 0."""
        return torch.zeros(WIDTH, dtype=torch.float64)

    def slope(self, count: int, x: Tensor, p: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Gradient in x [batch, d] of the loss of `count` steps, and the x it was taken at."""
        x = x.detach().requires_grad_()
        loss = (self.steps(self.solution, x, p, count) @ self.tensors["w"]).sum()
        return torch.autograd.grad(loss, x, create_graph=create_graph)[0], x

    def curvature(self, count: int, x: Tensor, p: Tensor) -> Tensor:
        """Hessian of each sample [batch, d, d] by reverse over reverse; by differences where torch has none."""
        try:
            g, at = self.slope(count, x, p, create_graph=True)
            rows = [torch.autograd.grad(g[:, i].sum(), at, retain_graph=True)[0] for i in range(D)]
        except RuntimeError:
            rows = [five_point(lambda h, e=e: self.slope(count, x + h * e, p)[0]) for e in torch.eye(D, dtype=x.dtype)]
        return torch.stack(rows, 1)

    def truth(self, count: int) -> dict[str, Tensor]:
        """Derivatives of w . z after `count` steps: first [batch, d], second [batch, d, d], and two of third order.

        `third`: derivative of the trace of `second` along q in p; `bent`: of `second` along v in x; `slack ...`: their
        own errors.
        """
        t = self.tensors
        x, p = t["x"], self.still
        third, slack = with_error(lambda h: self.curvature(count, x, p + h * t["q"]).diagonal(dim1=1, dim2=2).sum())
        bent, slack_bent = with_error(lambda h: self.curvature(count, x + h * t["v"], p))
        return {"first": self.slope(count, x, p)[0], "second": self.curvature(count, x, p), "third": third,
                "bent": bent, "slack third": slack, "slack bent": slack_bent}

    @cached_property
    def exact(self) -> dict[str, Tensor]:
        """Of the equilibrium."""
        return self.truth(10)

    @cached_property
    def phantom(self) -> dict[str, Tensor]:
        """Of two steps from the solution held fixed."""
        return self.truth(2)
