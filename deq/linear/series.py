"""The Neumann series as a solver: a few cheap products where a map contracts fast, the residual checked each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deq.linear.jacobian import as_rows

__all__ = ["SLOW", "SeriesStart", "neumann_start"]

# Contraction factor up to which plain iteration beats acceleration: on a real spectrum it takes at most 1.7 times the
# products of the best polynomial method, on a disc no more than that one, and it needs none of its vector work.
SLOW = 0.4


@dataclass(frozen=True)
class SeriesStart:
    """Where the series got.

    Attributes:
        value: approximation of (I - J)^{-1} v, [batch, ...].
        residual: v - (I - J) value, evaluated afresh, [batch, ...].
        norm: its 2-norm, [batch].
        converged: whether every system met its tolerance (systems that are not finite do not count).
        products: products with J that were spent.
    """

    value: Tensor
    residual: Tensor
    norm: Tensor
    converged: bool
    products: int


@torch.no_grad()
def neumann_start(product: Callable[[Tensor], Tensor], rhs: Tensor, *, rtol: float, max_iter: int,
                  ratio: float = SLOW, initial: Tensor | None = None) -> SeriesStart:
    """Iterate x <- v + J x for as long as every residual falls by `ratio` a step, until |residual| <= rtol |v|.

    No basis and no orthogonalisation. Residuals are looked at, with one host synchronisation, after the first steps and
    then only when the decrease seen so far says that half of those left are done. Where it stops early its value is a
    start for a Krylov method, with the residual already known.

    Args:
        product: v -> J v on [batch, ...], sample by sample.
        rhs: v, [batch, ...].
        rtol: relative tolerance of each system.
        max_iter: limit on the number of products.
        ratio: the slowest decrease that is put up with.
        initial: where to start, [batch, ...]; v by default.
    """
    def size(v: Tensor) -> Tensor:
        return torch.linalg.vector_norm(as_rows(v), dim=1)

    value, last = rhs if initial is None else initial, size(rhs)
    limit = rtol * last
    count, steps = 0, 1
    before: tuple[Tensor, Tensor, Tensor] | None = None
    while True:
        for _ in range(steps - 1):
            value = rhs + product(value)
        image = rhs + product(value)
        count += steps
        residual = image - value
        norm = size(residual)
        pending = norm > limit  # false for NaN: such a system was reported where it arose
        ratios = torch.stack((norm / last, norm / limit)).nan_to_num(0.0)
        gain, gap = torch.where(pending, ratios, 0.0).amax(1).tolist()
        if gap == 0 or gain > ratio**steps or count == max_iter:
            if gain > 1 and before is not None:  # it grew while nobody looked
                value, residual, norm = before
            return SeriesStart(value if value is not rhs else rhs.clone(), residual, norm, gap == 0, count)
        before = value, residual, norm
        value, last = image, norm
        left = math.log(gap) / -math.log(gain) * steps if 0 < gain < 1 else 1.0
        steps = max(1, min(int(left / 2), max_iter - count))
