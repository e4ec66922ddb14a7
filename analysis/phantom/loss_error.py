r"""From the error of derivatives to that of losses: what K phantom steps do to score, SM and SSM loss and divergence.

With log p(x) = g(z*(x), x), gamma = dg/dz, G = d^2g/dz^2, M = d^2g/dz dx at the equilibrium, D = Dz, E = Dz - Dz^(K):

    s - s_K        = E^T gamma
    tr H - tr H_K  = gamma . (Lz - Lz^(K)) + 2 tr(E^T G D) - tr(E^T G E) + 2 tr(M^T E)
    H - H_K        = gamma . (D^2z - D^2z^(K)) + E^T G D + D^T G E - E^T G E + M^T E + E^T M

and with p_j >= |J^j|_2, |D|_2 the operator and |D|_F the Frobenius norm, T[a, v] = f_zx[a, v] + f_zz[a, Dz v],

    |E|_F <= p_K |D|_F,
    |Lz - Lz^(K)| <= p_K |Lz| + sum_{k<K} p_{K-1-k} (2 |T| p_k |D|_F + |f_zz| p_k^2 |D|_F |D|_2)

(and the like for D^2z, with T and f_zz unfolded along the other leg). p_j = |J^j|_2 is the level "powers";
p_j = kappa q^j with q < 1 the level "law": score errors decay like q^K, errors of trace and loss like K q^K.
The level "sharp" applies the triangle inequality only to the terms of

    gamma . (D^2z - D^2z^(K))[u, v] = a_K . D^2z[u, v]
                                      + sum_{k<K} a_{K-1-k} . (T[E_k u, v] + T[E_k v, u] - f_zz[E_k u, E_k v])

with a_j = (J^T)^j gamma and E_k = J^k D.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, log, sqrt
from typing import Literal

import torch
from torch import Tensor
from torch.func import grad, jacrev

from analysis.phantom.bounds import rate_and_constant
from analysis.phantom.derivatives import derivatives_at
from analysis.phantom.equilibrium_point import EPS, EquilibriumPoint, Map, equilibrium_point
from analysis.phantom.majorants import Majorant
from deq.density.products import directional

Level = Literal["sharp", "powers", "law"]
LogDensity = Callable[[Tensor, Tensor], Tensor]
QUANTITIES = ("score", "trace", "score_matching", "sliced", "variance_reduced", "hessian")


@dataclass(frozen=True)
class LossErrorBound:
    """Upper bounds of what K phantom steps change, for one sample.

    Attributes:
        steps: K.
        score: |s - s_K|_2; also of the root sqrt(2 F) of the sample's Fisher divergence, for any data score.
        trace: |tr H - tr H_K|, H the derivative of the score as autograd sees it (z^(0) frozen).
        hessian: |H - H_K|_2.
        score_matching: of 0.5 |s|^2 + tr H; also of the expectation over v of both sliced losses.
        sliced: of 0.5 (v.s)^2 + v.H v for the worst v of length sqrt(d) (a Rademacher v has that length).
        variance_reduced: of 0.5 |s|^2 + v.H v for the worst such v.
        exact_score: |s|_2; exact_trace: |tr H|; exact_loss: |0.5 |s|^2 + tr H|: to make errors relative.
        q: rate; kappa: constant, of the level "law".

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> log_density = lambda z, x: z.sum() - 0.5 * x.square().sum()
        >>> analysis.loss_error_bounds(f, log_density, x, z, steps=1)[0].steps
        1
    """

    steps: int
    score: float
    trace: float
    hessian: float
    score_matching: float
    sliced: float
    variance_reduced: float
    exact_score: float
    exact_trace: float
    exact_loss: float
    q: float
    kappa: float


def loss_error_bounds(f: Map, log_density: LogDensity, x: Tensor, z_star: Tensor, steps: int, *,
                      level: Level = "sharp", residual_tol: float = 1e-8) -> list[LossErrorBound]:
    """Bound the error of score, Hessian trace and score-matching losses for K = 1, ..., steps, at one sample.

    Args:
        f: map of a single sample, f(z, x) -> tensor like z, float64, twice continuously differentiable near (z*, x).
        log_density: g(z, x) -> a scalar, float64, twice continuously differentiable.
        x: input, d numbers.
        z_star: equilibrium, n numbers.
        steps: the largest K, at least 1.
        level: "sharp" uses J^k D z and (J^T)^j gamma, "powers" only |J^j|_2, "law" only q and kappa.
        residual_tol: see `equilibrium_point`.

    Raises:
        TypeError: steps is not an integer, or an argument of another kind.
        ValueError: steps < 1, an unknown level, wrong dtype or shape, NaN.
        NotAFixedPointError: z_star does not solve the equation.
        SingularEquilibriumError: I - J is singular.

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> log_density = lambda z, x: z.sum() - 0.5 * x.square().sum()
        >>> bounds = analysis.loss_error_bounds(f, log_density, x, z, steps=3)
        >>> bounds[0].score > bounds[1].score > bounds[2].score
        True
    """
    check_steps(steps)
    point = equilibrium_point(f, x, z_star, residual_tol=residual_tol)
    sample = _Sample(point, lambda z, u: log_density(z.reshape(z_star.shape), u.reshape(x.shape)))
    powers = powers_of(point, steps, level)
    errors = sample.sharp(steps) if level == "sharp" else sample.by_norms(powers.sizes)
    return sample.bounds(errors, powers)


def check_steps(steps: int) -> None:
    """Raise TypeError or ValueError unless `steps` is a whole number of at least one."""
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"steps must be an integer, not {steps!r}")
    if steps < 1:
        raise ValueError(f"steps = {steps}: a phantom gradient needs steps >= 1")


@dataclass(frozen=True)
class Powers:
    """Upper bounds p_j of |J^j|_2 for j = 0, ..., K, with the rate q and constant kappa behind the law."""

    sizes: list[float]
    q: float
    kappa: float


def powers_of(point: EquilibriumPoint, steps: int, level: Level) -> Powers:
    """The p_j of a level.

    Raises:
        ValueError: an unknown level.
    """
    q, kappa = rate_and_constant(point.jacobian, steps)
    # float64 rounding of powers and norms: n eps relative each, K of them
    grow = 1 + 8 * steps * len(point.jacobian) * EPS
    if level == "law":
        return Powers([1.0] + [grow * kappa * q**j for j in range(1, steps + 1)], q, kappa)
    if level not in ("sharp", "powers"):
        raise ValueError(f"level must be 'sharp', 'powers' or 'law', not {level!r}")
    sizes, power = [1.0], torch.eye(len(point.jacobian), dtype=torch.float64)
    for _ in range(steps):
        power = point.jacobian @ power
        sizes.append(grow * float(torch.linalg.matrix_norm(power, 2)))
    return Powers(sizes, q, kappa)


def fisher_divergence_error(divergence: float, score_bounds: Sequence[float]) -> float:
    """Bound |F - F_K| for F = 0.5 mean |s - s_data|^2 over samples, from the score bounds of the samples.

    By Minkowski sqrt(2 F_K) lies within r = rms(score bounds) of sqrt(2 F), so |F - F_K| <= r sqrt(2 F) + r^2 / 2.

    Raises:
        ValueError: a negative divergence, or no samples.

    Example:
        >>> import analysis
        >>> analysis.fisher_divergence_error(1.0, [0.0, 0.0])
        0.0
    """
    if not divergence >= 0:
        raise ValueError(f"a Fisher divergence is not negative: {divergence}")
    if not score_bounds:
        raise ValueError("no samples")
    root = sqrt(sum(bound**2 for bound in score_bounds) / len(score_bounds))
    return root * sqrt(2 * divergence) + root**2 / 2


def least_phantom_steps(accuracy: float, f: Map, log_density: LogDensity, x: Tensor, z_star: Tensor, *,
                        quantity: str = "score", relative: bool = True, level: Level = "sharp",
                        max_steps: int = 256) -> int:
    """The least K whose bound promises the accuracy: with so many phantom steps the error is certainly below it.

    Args:
        accuracy: wanted; relative to the exact score, trace or score-matching loss, or absolute.
        f: as for `loss_error_bounds`.
        log_density: likewise.
        x: one input, or several stacked along the first leg (then z_star has one leg more than f takes, too).
        z_star: the equilibria.
        quantity: one of `QUANTITIES`.
        relative: whether accuracy is relative.
        level: of the bounds; "law" asks for more steps.
        max_steps: where to give up.

    Returns:
        K, the largest needed over the samples.

    Raises:
        ValueError: an accuracy that is not positive, an unknown quantity, or no K up to max_steps suffices (the message
            gives the rate).

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> log_density = lambda z, x: z.sum() - 0.5 * x.square().sum()
        >>> analysis.least_phantom_steps(0.01, f, log_density, x, z) <= 8  # |J| is below 1/2
        True
    """
    if not 0 < accuracy < float("inf"):
        raise ValueError(f"accuracy must be positive and finite, not {accuracy}")
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity must be one of {', '.join(QUANTITIES)}, not {quantity!r}")
    check_steps(max_steps)
    pairs = list(zip(x, z_star, strict=True)) if x.dim() > 1 else [(x, z_star)]
    return max(_least(accuracy, f, log_density, one, z, quantity, relative, level, max_steps) for one, z in pairs)


def steps_for_rate(accuracy: float, q: float) -> int:
    """The least K with q^K <= accuracy: enough for the relative error of Dz and of the score's term in it, if |J| <= q.

    Raises:
        ValueError: accuracy not in (0, 1), or q not in [0, 1): no number of steps is then enough.

    Example:
        >>> import analysis
        >>> analysis.steps_for_rate(0.01, q=0.5)  # 2^-7 < 0.01
        7
    """
    if not 0 < accuracy < 1:
        raise ValueError(f"a relative accuracy lies in (0, 1), not {accuracy}")
    if not 0 <= q < 1:
        raise ValueError(f"q = {q}: phantom steps are sure to converge only for 0 <= q < 1")
    return 1 if q <= accuracy else ceil(log(accuracy) / log(q) - 1e-12)


def _least(accuracy: float, f: Map, log_density: LogDensity, x: Tensor, z_star: Tensor, quantity: str, relative: bool,
           level: Level, max_steps: int) -> int:
    count = min(8, max_steps)
    while True:
        bounds = loss_error_bounds(f, log_density, x, z_star, count, level=level)
        for bound in bounds:
            scale = 1.0
            if relative:
                scale = {"score": bound.exact_score, "trace": bound.exact_trace,
                         "hessian": bound.exact_trace}.get(quantity, bound.exact_loss)
            if getattr(bound, quantity) <= accuracy * scale:
                return bound.steps
        if count == max_steps:
            raise ValueError(f"no K up to {max_steps} promises {quantity} to {accuracy:g}: the bound is "
                             f"{getattr(bounds[-1], quantity):.3g} at K = {count}, with rate q = {bounds[-1].q:.4g}")
        count = min(4 * count, max_steps)


class _Sample:
    """One equilibrium with its derivatives, from which all bounds follow."""

    def __init__(self, point: EquilibriumPoint, log_density: LogDensity) -> None:
        z, x = point.z, point.x
        exact = derivatives_at(point, 2)
        self.point, self.first, self.second = point, exact.first, exact.second
        self.laplacian = self.second.diagonal(dim1=1, dim2=2).sum(-1)
        gamma, g_x = grad(log_density, argnums=(0, 1))(z, x)
        with torch.no_grad():
            (g_zz, g_zx), (_, g_xx) = jacrev(grad(log_density, argnums=(0, 1)), argnums=(0, 1))(z, x)
        mixed = g_zx.T @ self.first
        through = torch.tensordot(gamma, self.second, dims=1) + self.first.T @ g_zz @ self.first
        curvature = through + mixed + mixed.T + g_xx
        self.gamma, self.g_zz, self.g_zx = gamma.detach(), g_zz, g_zx
        self.score = float((self.first.T @ gamma + g_x).norm())
        self.trace = float(curvature.trace())
        sizes = float(self.gamma.norm()) * (float(self.first.norm()) + float(self.second.norm()))
        # float64: eps times the length of sums, the condition of I - J once a derivative, the size of what is added
        unit = 64 * (z.numel() + x.numel()) * EPS * point.condition**2
        self.slack = unit * (1 + sizes + abs(self.trace) + self.score)

    def by_norms(self, p: list[float]) -> list[_CurvatureError]:
        """Errors of score, trace and Hessian for K = 1, 2, ... from bounds of |J^j|_2."""
        inner, bent = _unfoldings(self.point, self.first), self.g_zz @ self.first
        first, two, gamma = float(self.first.norm()), _two(self.first), float(self.gamma.norm())
        found = []
        for count in range(1, len(p)):
            error = p[count] * first
            laplacian, second = p[count] * float(self.laplacian.norm()), p[count] * float(self.second.norm())
            for k in range(count):
                square = p[k] ** 2 * first * two
                laplacian += p[count - 1 - k] * (2 * inner.mixed_out * p[k] * first + inner.bend_out * square)
                second += p[count - 1 - k] * (2 * inner.mixed_in * p[k] * first + inner.bend_in * square)
            common = _two(self.g_zz) * error * error + 2 * float(self.g_zx.norm()) * error
            found.append(_CurvatureError(gamma * p[count] * two,
                                         gamma * laplacian + 2 * float(bent.norm()) * error + common,
                                         gamma * second + 2 * _two(bent) * error + common))
        return found

    def sharp(self, steps: int) -> list[_CurvatureError]:
        """The same from J^k D and (J^T)^j gamma themselves; each difference of step k is one term."""
        duals, errors = [self.gamma], [self.first]
        for _ in range(steps):
            duals.append(self.point.jacobian.T @ duals[-1])
            errors.append(self.point.jacobian @ errors[-1])
        forms = [_bilinear(self.point, self.first, dual) for dual in duals[:steps]]
        found = []
        for count in range(1, steps + 1):
            terms = [torch.tensordot(duals[count], self.second, dims=1)]
            for k in range(count):
                mixed, bend = forms[count - 1 - k]
                half = errors[k].T @ mixed
                terms.append(half + half.T - errors[k].T @ bend @ errors[k])
            error = errors[count]
            half = error.T @ (self.g_zz @ self.first + self.g_zx)
            terms.append(half + half.T - error.T @ self.g_zz @ error)
            found.append(_CurvatureError(float((error.T @ self.gamma).norm()),
                                         sum(abs(float(term.trace())) for term in terms), sum(map(_two, terms))))
        return found

    def bounds(self, errors: list[_CurvatureError], powers: Powers) -> list[LossErrorBound]:
        """What these errors mean for the losses."""
        results = []
        for count, error in enumerate(errors, start=1):
            score, trace, curvature = (size + self.slack for size in (error.score, error.trace, error.hessian))
            half = (Majorant(self.score, score) * Majorant(self.score, score)).error / 2
            dimension = self.point.x.numel()
            results.append(LossErrorBound(
                steps=count, score=score, trace=trace, hessian=curvature, score_matching=half + trace,
                sliced=dimension * (half + curvature), variance_reduced=half + dimension * curvature,
                exact_score=self.score, exact_trace=abs(self.trace),
                exact_loss=abs(0.5 * self.score**2 + self.trace), q=powers.q, kappa=powers.kappa))
            if not isfinite(results[-1].sliced):
                raise ValueError(f"the bounds overflow at K = {count}: the steps diverge (q = {powers.q:.4g})")
        return results


@dataclass(frozen=True)
class _CurvatureError:
    """Bounds of |s - s_K|_2, |tr H - tr H_K| and |H - H_K|_2."""

    score: float
    trace: float
    hessian: float


def _bilinear(point: EquilibriumPoint, first: Tensor, dual: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices [n, d] and [n, n] of (a, v) -> dual . T[a, v] and (a, b) -> dual . f_zz[a, b]."""
    def slopes(z: Tensor, x: Tensor) -> Tensor:
        return grad(lambda y: dual @ point.f(y, x))(z)
    with torch.no_grad():
        bend, cross = jacrev(slopes, argnums=(0, 1))(point.z, point.x)
    return cross + bend @ first, bend


@dataclass(frozen=True)
class _Inner:
    """Norms of T and f_zz: `out` takes the last two legs to the first one, `in` the second leg to the two others."""

    mixed_out: float
    mixed_in: float
    bend_out: float
    bend_in: float


def _unfoldings(point: EquilibriumPoint, first: Tensor) -> _Inner:
    n, d = point.z.numel(), point.x.numel()
    along_x = list(zip(first.T, torch.eye(d, dtype=torch.float64), strict=True))
    along_z = [(row, torch.zeros_like(point.x)) for row in torch.eye(n, dtype=torch.float64)]
    sizes = []
    for directions in (along_x, along_z):
        outer, inner = torch.zeros_like(point.jacobian), torch.zeros_like(point.jacobian)
        with torch.no_grad():
            for move_z, move_x in directions:
                def slope(z: Tensor, move_z: Tensor = move_z, move_x: Tensor = move_x) -> Tensor:
                    return directional(point.f, (z, point.x), (move_z, move_x))
                slice_ = jacrev(slope)(point.z).detach()
                outer += slice_ @ slice_.T
                inner += slice_.T @ slice_
        sizes += [float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0.0)) ** 0.5 for gram in (outer, inner)]
    return _Inner(*sizes)


def _two(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))
