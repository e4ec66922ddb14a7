r"""The objectives of a DKEF as quadratics in alpha, and the alpha that minimises them ([SM] section 4.2).

Every objective is, sample by sample,

    0.5 sum_i (v_i . s + t_i)^2 + sum_j w_j^T (ds/dx) w_j,     s = grad q0 + sum_l alpha_l grad k_l,

with directions v_i, w_j and targets t. Exact: v and w the unit vectors, t = 0. Sliced: one random v, w = v. Variance
reduced: v the unit vectors, one random w. Denoising: v the unit vectors at the noisy x, t = e / sigma, no w, and all
times sigma^4 as in the released code: that decides what the ridge weighs (sigma^4 G + ridge I) and when the gradient is
clipped. Hence
G = mean sum_i Dk[v_i] Dk[v_i]^T, b = mean(second + sum_i Dk[v_i] (Dq0[v_i] + t_i)) and
alpha = -(G + ridge I)^{-1} b.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deq.losses import draw_projections
from deq.losses.sliced import draw_normal
from deq.models.dkef import DKEF
from deq.models.dkef_kernel import KernelForm, SumOfForms
from deq.models.dkef_slopes import Slopes, WrittenSlopes
from deq.models.jets import Jet, input_jet

OBJECTIVES = ("sm", "ssm", "ssm-vr", "dsm")


@dataclass(frozen=True)
class Quadratic:
    """An objective on a batch, before alpha is chosen.

    Attributes:
        kernel: the kernel functions at the batch.
        slopes: derivatives of the features along the v_i, m of them.
        second: second derivatives of the kernel functions summed over the w_j, `[n, M]`, or None for no w.
        offset: Dq0[v_i] + t_i, `[n, m]`.
        constant: second derivative of q0, summed over the w_j, `[n]`.
        factor: of the whole objective: sigma^4 for "dsm", else 1.
    """

    kernel: KernelForm
    slopes: Slopes
    second: Tensor | None
    offset: Tensor
    constant: Tensor
    factor: float = 1.0

    def rows(self, chosen: slice) -> Quadratic:
        """On a part of the batch."""
        return Quadratic(self.kernel.rows(chosen), self.slopes.rows(chosen),
                         None if self.second is None else self.second[chosen], self.offset[chosen],
                         self.constant[chosen], self.factor)

    def normal_equations(self) -> tuple[Tensor, Tensor]:
        """Sums (not means) of G `[M, M]` and b `[M]` over the batch."""
        c = self.kernel.coefficients()                                                           # [n, R h, M]
        if self.slopes.directions < c.shape[1]:
            first = self.slopes.times(c).flatten(0, 1)                                           # [n m, M]
            gram, linear = first.T @ first, self.offset.flatten() @ first
        else:
            gram = SumOfForms.apply(c, self.slopes.gram())  # type: ignore[no-untyped-call]
            linear = self.slopes.against(self.offset).flatten() @ c.flatten(0, 1)
        linear = linear if self.second is None else linear + self.second.sum(0)
        return (gram, linear) if self.factor == 1 else (self.factor * gram, self.factor * linear)

    def along(self, alpha: Tensor) -> Tensor:
        """`v_i . s`, `[n, m]`, targets included."""
        return self.slopes.along(self.kernel.combine(alpha)) + self.offset

    def trace(self, alpha: Tensor) -> Tensor:
        """`sum_j w_j^T (ds/dx) w_j`, `[n]`."""
        return self.constant if self.second is None else self.second @ alpha + self.constant

    def values(self, alpha: Tensor) -> Tensor:
        """The objective of each sample, `[n]`."""
        return self.factor * (0.5 * self.along(alpha).square().sum(1) + self.trace(alpha))


def quadratic(model: DKEF, x: Tensor, objective: str = "sm", *, generator: torch.Generator | None = None,
              sigma: float = 0.16, projections: Tensor | None = None, anchors: Tensor | None = None) -> Quadratic:
    """The objective on the batch x `[n, d]`, with the graph of all parameters.

    Args:
        model: whose kernel functions.
        x: rows.
        objective: "sm", "ssm", "ssm-vr" or "dsm".
        generator: source of projections (Rademacher) and noise.
        sigma: noise scale of "dsm".
        projections: the random v, `[n, d]`, or the noise of "dsm"; drawn where None.
        anchors: `model.anchors()`, where several batches share it.

    Raises:
        ValueError: an unknown objective, or sigma not positive.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    features, base = model.features, -1 / model.base_scale**2
    v = projections
    if objective == "dsm":
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        noise = draw_normal(x.shape, x, generator) if v is None else v
        x = x + sigma * noise
        slopes, jet = features.unit_jet(x, second=False)
        return Quadratic(model.kernel_form(jet.value, anchors), slopes, None, base * x + noise / sigma,
                         x.new_zeros(len(x)), sigma**4)
    if objective == "sm":
        slopes, jet = features.unit_jet(x)
        kernel = model.kernel_form(jet.value, anchors)
        return Quadratic(kernel, slopes, kernel.second(slopes.blocks(), _bend(jet)), base * x,
                         x.new_full((len(x),), base * model.dim))
    v = draw_projections(x, generator=generator)[0] if v is None else v
    constant = base * v.square().sum(1)
    if objective == "ssm":
        jet = features.jet(input_jet(x, features.kernels, v[:, None], x.new_ones(1)))
        slopes, offset = WrittenSlopes(_first(jet)), base * (v * x).sum(1, keepdim=True)
    else:
        slopes, jet = features.unit_jet(x, extra=v)
        offset = base * x
    kernel = model.kernel_form(jet.value, anchors)
    return Quadratic(kernel, slopes, kernel.second_along(_first(jet)[:, :, 0], _bend(jet)), offset, constant)


def _first(jet: Jet) -> Tensor:
    if jet.first is None:
        raise RuntimeError("the features gave no first derivatives")
    return jet.first


def _bend(jet: Jet) -> Tensor:
    if jet.second is None:
        raise RuntimeError("the features gave no second derivatives")
    return jet.second


def solve_alpha(gram: Tensor, linear: Tensor, rows: int, log_ridge: Tensor) -> Tensor:
    """`-(G + 10^log_ridge I)^{-1} b` from sums over `rows` samples, graph kept."""
    identity = torch.eye(len(linear), dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram / rows + 10**log_ridge * identity)
    return -torch.cholesky_solve((linear / rows)[:, None], factor)[:, 0]


def halves_loss(model: DKEF, rows: Tensor, objective: str = "sm", *, generator: torch.Generator | None = None,
                sigma: float = 0.16) -> Tensor:
    """The objective on the second half of the rows with alpha solved on the first, graph kept: a training step's loss.

    Features are computed for both halves at once.
    """
    half = len(rows) // 2
    form = quadratic(model, rows, objective, generator=generator, sigma=sigma)
    alpha = solve_alpha(*form.rows(slice(half)).normal_equations(), half, model.log_ridge)
    return form.rows(slice(half, None)).values(alpha).mean()


def fit_alpha(model: DKEF, x: Tensor, objective: str = "sm", *, generator: torch.Generator | None = None,
              sigma: float = 0.16, chunk: int = 64) -> tuple[Tensor, Tensor]:
    """Accumulated sums G and b over many rows, without a graph, in chunks that stay in cache."""
    gram = model.inducing.new_zeros(len(model.inducing), len(model.inducing))
    linear = gram.new_zeros(len(gram))
    with torch.no_grad():
        anchors = model.anchors()
        for rows in x.split(chunk):
            g, b = quadratic(model, rows, objective, generator=generator, sigma=sigma,
                             anchors=anchors).normal_equations()
            gram, linear = gram + g, linear + b
    return gram, linear


def evaluate(model: DKEF, x: Tensor, objective: str = "sm", *, alpha: Tensor | None = None,
             generator: torch.Generator | None = None, sigma: float = 0.16, chunk: int = 64) -> Tensor:
    """The objective of each row of x, `[n]`, no graph, with the fitted alpha where none is given."""
    chosen = model.alpha if alpha is None else alpha
    with torch.no_grad():
        anchors = model.anchors()
        return torch.cat([quadratic(model, rows, objective, generator=generator, sigma=sigma,
                                    anchors=anchors).values(chosen) for rows in x.split(chunk)])


def validation_mean(model: DKEF, x: Tensor, objective: str = "sm", *, generator: torch.Generator | None = None,
                    sigma: float = 0.16) -> Callable[[Tensor], Tensor]:
    """The mean objective over x `[n, d]` as a function of alpha alone, the model's other parameters held.

    The exact objective draws nothing, so its mean is one quadratic, made once; the others draw anew at each call.
    """
    anchors = model.anchors().detach()
    if objective != "sm":
        def drawn(alpha: Tensor) -> Tensor:
            with torch.no_grad():
                form = quadratic(model, x, objective, generator=generator, sigma=sigma, anchors=anchors)
            return form.values(alpha).mean()
        return drawn
    gram, linear = fit_alpha(model, x)
    n = len(x)
    constant = 0.5 * (x / model.base_scale**2).square().sum(1).mean() - model.dim / model.base_scale**2

    def exact(alpha: Tensor) -> Tensor:
        return 0.5 * alpha @ (gram / n) @ alpha + (linear / n) @ alpha + constant

    return exact
