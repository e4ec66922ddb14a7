"""What a look at an equilibrium costs a dozen products for: residual, radius, and what a truncated gradient misses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deq.gradients.rules import GradientRule, Neumann, Phantom
from deq.interop.pytree import Layout, rows_of
from deq.linear.factorise import solve
from deq.linear.linearization import Linearization
from deq.status import LinearSolveError

__all__ = ["Reading", "measure"]

#: Products with J^T in a look: the Krylov space from which all numbers are read.
PRODUCTS = 12
#: The Krylov space cannot answer beyond this many steps; a phantom gradient has fewer.
MOST_STEPS = 200


@dataclass(frozen=True)
class Reading:
    """Numbers of one look; the worst of the samples looked at.

    Attributes:
        step: of training.
        residual: |f(z) - z| / |f(z)|.
        radius: largest modulus of a Ritz value of J, an estimate of the spectral radius.
        bias: relative error of the adjoint under the rule in use, for a random cotangent; 0 for an exact rule.
        cosine: of that adjoint with the exact one.
        iterations: of the solver, or NaN.
        seconds: that the look took.
    """

    step: int
    residual: float
    radius: float
    bias: float
    cosine: float
    iterations: float
    seconds: float


def measure(f: Callable[..., Any], z: Any, inputs: tuple[Any, ...], *, steps: int | None, damping: float = 1.0,
            samples: int = 4, products: int = PRODUCTS) -> dict[str, float]:
    """Residual, radius, bias and cosine at z on a few samples; changes nothing and draws no global random number.

    Args:
        f: the map f(z, *inputs).
        z: the point, [batch, ...] or a tree of such tensors.
        inputs: of f.
        steps: K of a phantom rule, or None for an exact one.
        damping: of the phantom rule.
        samples: at most so many are looked at, where f can be evaluated on fewer than the batch.
        products: with J^T.
    """
    layout = Layout.of(z)
    flat = layout.pack(z).detach()
    rows = torch.linspace(0, layout.batch - 1, min(samples, layout.batch), device=flat.device).round().long()
    taken = tuple(rows_of(item, rows, layout.batch) for item in inputs)

    def on(point: Tensor, given: tuple[Any, ...]) -> Tensor:
        return layout.pack(f(layout.unpack(point), *given))

    line: Linearization | None = None
    if len(rows) < layout.batch and inputs:
        try:
            line = Linearization(lambda point: on(point, taken), flat[rows])
            if line.value.shape != flat[rows].shape:
                line = None
        except (RuntimeError, ValueError, TypeError, IndexError):  # f holds tensors of the whole batch
            line = None
    if line is None:
        line = Linearization(lambda point: on(point, inputs), flat)
    return _read(line, steps, damping, products)


def steps_of(rule: Any) -> tuple[int | None, float]:
    """Steps and damping of a truncated rule; None for an exact one."""
    if isinstance(rule, Phantom):
        return rule.steps, rule.damping
    if isinstance(rule, Neumann):
        return rule.terms * rule.order, 1.0
    if isinstance(rule, GradientRule) or rule is None:
        return None, 1.0
    return int(rule), 1.0


def _read(line: Linearization, steps: int | None, damping: float, products: int) -> dict[str, float]:
    """Everything from one Arnoldi space of J^T for a fixed start."""
    value = line.value.detach()
    size = torch.linalg.vector_norm(value, dim=1)
    gap = torch.linalg.vector_norm(value - line.z.detach(), dim=1)
    residual = float((gap / size.clamp_min(1e-30)).max())
    if not math.isfinite(residual):
        return {"residual": math.inf, "radius": math.nan, "bias": math.nan, "cosine": math.nan}
    generator = torch.Generator().manual_seed(20_240_511)
    start = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    hessenberg = _hessenberg(line, start, min(products, value.shape[1]))
    radius, bias, cosine = 0.0, 0.0, 1.0
    for matrix in hessenberg.double().cpu():
        if not bool(matrix.isfinite().all()):
            return {"residual": residual, "radius": math.inf, "bias": math.inf, "cosine": 0.0}
        radius = max(radius, float(torch.linalg.eigvals(matrix).abs().max()))
        if steps is not None:
            error, along = truncation(matrix, steps, damping)
            bias, cosine = max(bias, error), min(cosine, along)
    return {"residual": residual, "radius": radius, "bias": bias, "cosine": cosine}


@torch.no_grad()
def _hessenberg(line: Linearization, start: Tensor, steps: int) -> Tensor:
    """The square Hessenberg matrices [b, m, m] of Arnoldi's process for J^T."""
    batch = len(start)
    tiny = torch.finfo(start.dtype).tiny ** 0.5
    basis = [start / torch.linalg.vector_norm(start, dim=1, keepdim=True)]
    out = start.new_zeros(batch, steps + 1, steps)
    for j in range(steps):
        image = line.transposed(basis[j])
        known = torch.stack(basis, 1)
        for _ in range(2):
            part = torch.einsum("bkn,bn->bk", known, image)
            out[:, :j + 1, j] += part
            image = image - torch.einsum("bkn,bk->bn", known, part)
        height = torch.linalg.vector_norm(image, dim=1)
        out[:, j + 1, j] = height
        basis.append(image / height.clamp_min(tiny)[:, None])
    return out[:, :-1]


def truncation(matrix: Tensor, steps: int, damping: float = 1.0) -> tuple[float, float]:
    """Relative error and cosine of K truncated steps against the exact adjoint, in the coordinates of a Krylov space.

    With R = (1 - damping) I + damping J^T the truncated adjoint is (I - R^K) u, u the exact one.
    """
    size = len(matrix)
    identity = torch.eye(size, dtype=matrix.dtype)
    start = identity[:, 0]
    try:
        exact = solve(identity - matrix, start[:, None])[:, 0]
    except (RuntimeError, LinearSolveError):  # I - J is singular in the space: no gradient exists
        return math.inf, 0.0
    rest = exact
    shrink = (1 - damping) * identity + damping * matrix
    for _ in range(min(steps, MOST_STEPS)):
        rest = shrink @ rest
    short = exact - rest
    length = float(torch.linalg.vector_norm(exact))
    dot = float(exact @ short) / max(length * float(torch.linalg.vector_norm(short)), 1e-300)
    return float(torch.linalg.vector_norm(rest)) / max(length, 1e-300), dot
