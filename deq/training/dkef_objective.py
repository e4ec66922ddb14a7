r"""The objectives of a DKEF as quadratics in alpha, and the alpha that minimises them ([SM] section 4.2).

Every objective is, sample by sample,

    0.5 sum_i p_i (v_i . s + t_i)^2 + sum_i w_i v_i^T (ds/dx) v_i,     s = grad q0 + sum_l alpha_l grad k_l,

with directions v_i, weights p and w and targets t. Exact: the unit vectors, p = w = 1, t = 0. Sliced: one random v.
Variance reduced: unit vectors with p = 1, the random v with w = 1. Denoising: unit vectors at the noisy x,
t = e / sigma, w = 0. Hence G = mean sum_i p_i Dk[v_i] Dk[v_i]^T,
b = mean(second + sum_i p_i Dk[v_i] (Dq0[v_i] + t_i)),
and alpha = -(G + ridge I)^{-1} b.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deq.losses import draw_projections
from deq.losses.sliced import draw_normal
from deq.models.dkef import DKEF

OBJECTIVES = ("sm", "ssm", "ssm-vr", "dsm")


@dataclass(frozen=True)
class Quadratic:
    """An objective on a batch, before alpha is chosen.

    Attributes:
        first: Dk[v_i], `[n, m, M]`.
        second: weighted second derivatives of the kernel functions, `[n, M]`.
        offset: Dq0[v_i] + t_i, `[n, m]`.
        constant: weighted second derivative of q0, `[n]`.
        square: p, `[m]`.
    """

    first: Tensor
    second: Tensor
    offset: Tensor
    constant: Tensor
    square: Tensor

    def normal_equations(self) -> tuple[Tensor, Tensor]:
        """Sums (not means) of G `[M, M]` and b `[M]` over the batch."""
        weighted = self.first * self.square[:, None]
        gram = weighted.flatten(0, 1).T @ self.first.flatten(0, 1)
        return gram, self.second.sum(0) + torch.einsum("nml,nm->l", weighted, self.offset)

    def values(self, alpha: Tensor) -> Tensor:
        """The objective of each sample, `[n]`."""
        residual = self.first @ alpha + self.offset
        return 0.5 * (residual**2) @ self.square + self.second @ alpha + self.constant


def quadratic(model: DKEF, x: Tensor, objective: str = "sm", *, generator: torch.Generator | None = None,
              sigma: float = 0.16, projections: Tensor | None = None) -> Quadratic:
    """The objective on the batch x `[n, d]`, with the graph of all parameters.

    Args:
        model: whose kernel functions.
        x: rows.
        objective: "sm", "ssm", "ssm-vr" or "dsm".
        generator: source of projections (Rademacher) and noise.
        sigma: noise scale of "dsm".
        projections: the random v, `[n, d]`, or the noise of "dsm"; drawn where None.

    Raises:
        ValueError: an unknown objective, or sigma not positive.
    """
    n, d = x.shape
    basis = torch.eye(d, dtype=x.dtype, device=x.device).expand(n, -1, -1)
    ones, zeros = x.new_ones(d), x.new_zeros(d)
    target: Tensor | float = 0.0
    weights: Tensor | None
    if objective == "sm":
        directions, square, weights = basis, ones, ones
    elif objective in ("ssm", "ssm-vr"):
        v = draw_projections(x, generator=generator)[0] if projections is None else projections
        directions, square, weights = v[:, None], ones[:1], ones[:1]
        if objective == "ssm-vr":
            directions = torch.cat([basis, directions], 1)
            square, weights = torch.cat([ones, zeros[:1]]), torch.cat([zeros, ones[:1]])
    elif objective == "dsm":
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        noise = draw_normal(x.shape, x, generator) if projections is None else projections
        x, target = x + sigma * noise, noise / sigma
        directions, square, weights = basis, ones, None
    else:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    kernel = model.kernel(x, directions, weights)
    if kernel.first is None:
        raise RuntimeError("the kernel gave no first derivatives")
    offset = torch.einsum("nmd,nd->nm", directions, -x) / model.base_scale**2 + target
    second = torch.zeros_like(kernel.value) if kernel.second is None else kernel.second
    lengths = directions.square().sum(2) @ (torch.zeros_like(square) if weights is None else weights)
    return Quadratic(kernel.first, second, offset, -lengths / model.base_scale**2, square)


def solve_alpha(gram: Tensor, linear: Tensor, rows: int, log_ridge: Tensor) -> Tensor:
    """`-(G + 10^log_ridge I)^{-1} b` from sums over `rows` samples, graph kept."""
    identity = torch.eye(len(linear), dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram / rows + 10**log_ridge * identity)
    return -torch.cholesky_solve((linear / rows)[:, None], factor)[:, 0]


def fit_alpha(model: DKEF, x: Tensor, objective: str = "sm", *, generator: torch.Generator | None = None,
              sigma: float = 0.16, chunk: int = 256) -> tuple[Tensor, Tensor]:
    """Accumulated sums G and b over many rows, without a graph, in chunks that bound memory."""
    gram = model.inducing.new_zeros(len(model.inducing), len(model.inducing))
    linear = gram.new_zeros(len(gram))
    with torch.no_grad():
        for rows in x.split(chunk):
            g, b = quadratic(model, rows, objective, generator=generator, sigma=sigma).normal_equations()
            gram, linear = gram + g, linear + b
    return gram, linear


def evaluate(model: DKEF, x: Tensor, objective: str = "sm", *, alpha: Tensor | None = None,
             generator: torch.Generator | None = None, sigma: float = 0.16, chunk: int = 256) -> Tensor:
    """The objective of each row of x, `[n]`, no graph, with the fitted alpha where none is given."""
    chosen = model.alpha if alpha is None else alpha
    with torch.no_grad():
        return torch.cat([quadratic(model, rows, objective, generator=generator, sigma=sigma).values(chosen)
                          for rows in x.split(chunk)])
