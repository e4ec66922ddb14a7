r"""What K phantom steps do to the parameter gradient of the score-matching loss, for a layer `sigma(W z + U x + b)`.

The gradient of 0.5 |s|^2 + tr H differentiates the equilibrium three times, twice in x and once in the parameters.
Along a unit direction (dW, dU, db) of all parameters, with h the argument and p_i = D z e_i, the iterates obey

    t       <- J t       + sigma' eta                                      eta = dW z + dU x + db
    p_id    <- J p_id    + sigma' (dW p_i + dU e_i) + sigma'' h_i h_d
    L_d     <- J L_d     + sigma' dW L + sigma'' (L_h h_d + 2 sum_i h_i h_id) + sigma''' sum_i h_i^2 h_d

and each error obeys the same recursion with the difference of the inhomogeneous terms. The loss sees these errors
through gamma = dg/dz only, and so through a_j = (J^T)^j gamma: gamma . e_K = a_K . e_0 + sum_k a_(K-1-k) . source_k.
Each product is bounded by norms, with the supremum over directions taken in each, so that the result
bounds the Euclidean norm of the gradient's error. One derivative more than the trace makes it decay like K^2 q^K.

Levels: "sharp" takes the a_j, J^k D z, J^k S and L z^(k) themselves; "powers" only |J^j|_2; "law" only q and kappa.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import hypot, isfinite, sqrt

import torch
from torch import Tensor

from analysis.phantom.derivatives import derivatives_at
from analysis.phantom.equilibrium_point import EPS, EquilibriumPoint, equilibrium_point
from analysis.phantom.loss_error import Level, check_steps, powers_of
from analysis.phantom.majorants import Majorant
from deq.linear.factorise import inverse as inverse_of


@dataclass(frozen=True)
class LayerModel:
    """A layer with the readout log p = a.z + c |z|^2 - |x|^2 / (2 s^2), all float64.

    Attributes:
        weight: W [n, n]; inputs: U [n, d]; bias: b [n]; linear: a [n].
        activation: sigma, elementwise on tensors, three times differentiable.
        quadratic: c.
        base_width: s, or None.

    Example:
        >>> import torch, analysis
        >>> weight, inputs = 0.3 * torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        >>> zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        >>> model = analysis.LayerModel(weight, inputs, zero, one, torch.tanh)
        >>> model.weight.shape
        torch.Size([2, 2])
    """

    weight: Tensor
    inputs: Tensor
    bias: Tensor
    linear: Tensor
    activation: Callable[[Tensor], Tensor]
    quadratic: float = 0.0
    base_width: float | None = None

    def step(self, z: Tensor, x: Tensor) -> Tensor:
        """The map f(z, x) of a single sample."""
        return self.activation(self.weight @ z + self.inputs @ x + self.bias)

    def log_density(self, z: Tensor, x: Tensor) -> Tensor:
        """The readout g(z, x), without the normalising constant."""
        value = self.linear @ z + self.quadratic * (z @ z)
        return value if self.base_width is None else value - (x @ x) / (2 * self.base_width**2)


@dataclass(frozen=True)
class GradientErrorBound:
    """Bound of the error of the gradient of the score-matching loss in (W, U, b, a), one sample.

    Attributes:
        steps: K.
        gradient: of the Euclidean norm of the difference.
        size: upper bound of the norm of the exact gradient.
        q: rate; kappa: constant, of the level "law".

    Example:
        >>> import torch, analysis
        >>> weight, inputs = 0.3 * torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        >>> zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        >>> model = analysis.LayerModel(weight, inputs, zero, one, torch.tanh)
        >>> x = 0.1 * one
        >>> z = analysis.newton_equilibrium(lambda z, x: torch.tanh(weight @ z + inputs @ x), x, zero)
        >>> [bound.steps for bound in analysis.gradient_error_bounds(model, x, z, steps=2)]
        [1, 2]
    """

    steps: int
    gradient: float
    size: float
    q: float
    kappa: float


def gradient_error_bounds(model: LayerModel, x: Tensor, z_star: Tensor, steps: int, *, level: Level = "sharp",
                          residual_tol: float = 1e-8) -> list[GradientErrorBound]:
    """Bound the error of the parameter gradient for K = 1, ..., steps.

    Args:
        model: layer and readout.
        x: [d], float64.
        z_star: its equilibrium [n].
        steps: the largest K.
        level: "sharp", "powers" or "law".
        residual_tol: see `equilibrium_point`.

    Raises:
        ValueError: steps < 1, an unknown level, wrong dtype or shape, NaN, or the bounds overflow.
        NotAFixedPointError: z_star does not solve the equation.
        SingularEquilibriumError: I - J is singular.

    Example:
        >>> import torch, analysis
        >>> weight, inputs = 0.3 * torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        >>> zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        >>> model = analysis.LayerModel(weight, inputs, zero, one, torch.tanh)
        >>> x = 0.1 * one
        >>> z = analysis.newton_equilibrium(lambda z, x: torch.tanh(weight @ z + inputs @ x), x, zero)
        >>> bounds = analysis.gradient_error_bounds(model, x, z, steps=2)
        >>> bounds[1].gradient < bounds[0].gradient
        True
    """
    check_steps(steps)
    point = equilibrium_point(model.step, x, z_star, residual_tol=residual_tol)
    here = _Here(model, point)
    powers = powers_of(point, steps, level)
    primal = _Primal.sharp(here, steps) if level == "sharp" else _Primal.by_norms(here, powers.sizes)
    duals = (_duals(here, steps) if level == "sharp" else
             [_Dual.by_norm(here, here.gamma_norm * size) for size in powers.sizes])
    slack = 64 * (len(here.z) + len(here.x)) * EPS * point.condition**3
    mixed = _mixed_errors(here, primal, powers.sizes)
    results = []
    for count in range(1, steps + 1):
        total = _gradient(here, primal, duals, mixed, count)
        if not isfinite(total.error):
            raise ValueError(f"the gradient's bound overflows at K = {count}: the steps diverge (q = {powers.q:.4g})")
        results.append(GradientErrorBound(count, total.error + slack * total.size, total.size * (1 + slack), powers.q,
                                          powers.kappa))
    return results


def smooth_derivatives(activation: Callable[[Tensor], Tensor], argument: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return sigma', sigma'' and sigma''' elementwise, by autograd."""
    point = argument.detach().clone().requires_grad_()
    value, found = activation(point), []
    for _ in range(3):
        if value.requires_grad:
            value, = torch.autograd.grad(value.sum(), point, create_graph=True)
        else:  # a polynomial of low degree: the rest vanishes
            value = torch.zeros_like(argument)
        found.append(value.detach())
    return found[0], found[1], found[2]


class _Here:
    """The equilibrium, its derivatives and the norms that all levels share."""

    def __init__(self, model: LayerModel, point: EquilibriumPoint) -> None:
        self.w, self.z, self.x, self.jacobian = model.weight, point.z, point.x, point.jacobian
        argument = self.w @ self.z + model.inputs @ self.x + model.bias
        self.s1, self.s2, self.s3 = smooth_derivatives(model.activation, argument)
        exact = derivatives_at(point, 2)
        self.first, self.laplacian = exact.first, exact.second.diagonal(dim1=1, dim2=2).sum(-1)
        self.argument, self.l_h = self.w @ self.first + model.inputs, self.w @ self.laplacian
        self.rows = self.argument.norm(dim=1)                                   # |h| over i, for each unit
        identity = torch.eye(len(self.z), dtype=torch.float64)
        self.inner = inverse_of(identity - self.jacobian) * self.s1       # t = inner eta
        self.eta = sqrt(float(self.z @ self.z) + float(self.x @ self.x) + 1)    # sup |eta|
        self.direction = self.eta * (self.w @ self.inner + identity)            # h_d over unit directions
        self.reach = self.direction.norm(dim=1)
        self.along = sqrt(_two(self.first) ** 2 + 1)                            # sup |dW p + dU|_F
        self.gamma = model.linear + 2 * model.quadratic * self.z
        self.gamma_norm, self.quadratic = float(self.gamma.norm()), abs(model.quadratic)
        base = torch.zeros_like(self.x) if model.base_width is None else -self.x / model.base_width**2
        self.score = float((self.first.T @ self.gamma + base).norm())
        self.omega, outer, inner = _two(self.w), _two(inverse_of(identity - self.jacobian)), _two(self.inner)
        top, bent = _two(self.direction), _max(self.s2 * self.rows)
        self.parameter = inner * self.eta                                       # sup |t|
        self.mixed = inner * self.along + outer * bent * top                    # bound of sup |p_id|_F
        self.mixed_argument = self.omega * self.mixed + self.along              # bound of sup |h_id|_F
        self.third = inner * float(self.laplacian.norm()) + outer * (
            _max(self.s2 * self.l_h) * top + 2 * bent * self.mixed_argument + _max(self.s3 * self.rows**2) * top)


@dataclass(frozen=True)
class _Primal:
    """Errors after k = 0, 1, ... steps: of D z (Frobenius, operator), h_i, t, h_d, L, L_h, and of the score."""

    first: list[float]
    first_two: list[float]
    argument: list[float]
    parameter: list[float]
    direction: list[float]
    laplacian: list[float]
    laplacian_argument: list[float]
    score: list[float]

    @classmethod
    def by_norms(cls, here: _Here, p: list[float]) -> _Primal:
        """From bounds of |J^j|_2 alone."""
        first, two = float(here.first.norm()), _two(here.first)
        laplacian = [float(here.laplacian.norm())]
        bent, bend = _max(here.s2 * here.rows), _max(here.s2)
        sources: list[float] = []
        for k in range(len(p) - 1):
            moved = here.omega * p[k] * first
            sources.append((2 * bent + bend * moved) * moved)
            laplacian.append(p[k + 1] * laplacian[0] + sum(p[k - j] * term for j, term in enumerate(sources)))
        return cls([q * first for q in p], [q * two for q in p], [here.omega * q * first for q in p],
                   [q * here.parameter for q in p], [here.omega * q * here.parameter for q in p], laplacian,
                   [here.omega * size for size in laplacian], [here.gamma_norm * q * two for q in p])

    @classmethod
    def sharp(cls, here: _Here, steps: int) -> _Primal:
        """From J^k D z, J^k S sigma' and the phantom Laplacians themselves."""
        error, inner, phantom = here.first, here.inner, torch.zeros_like(here.laplacian)
        lists: list[list[float]] = [[] for _ in range(8)]
        for _ in range(steps + 1):
            moved, gap = here.w @ error, here.laplacian - phantom
            values = (error.norm(), _two(error), moved.norm(), here.eta * _two(inner), here.eta * _two(here.w @ inner),
                      gap.norm(), (here.w @ gap).norm(), (error.T @ here.gamma).norm())
            for series, value in zip(lists, values, strict=True):
                series.append(float(value))
            phantom = here.jacobian @ phantom + here.s2 * (here.argument - moved).square().sum(1)
            error, inner = here.jacobian @ error, here.jacobian @ inner
        return cls(*lists)


@dataclass(frozen=True)
class _Dual:
    """Norms of a = (J^T)^j gamma times unit-wise factors, as the inhomogeneous terms need them."""

    plain: float         # |a|
    slope: float         # |a sigma'|
    bend: float          # max |a sigma''|
    bend_rows: float     # |a sigma'' H|_F, H the matrix of h_i
    bend_rows_two: float  # the same in the operator norm
    bend_l: float        # |a sigma'' L_h|
    bend_reach: float    # sup |a sigma'' h_d|
    third: float         # max |a sigma'''|
    third_rows: float    # max |a sigma''' H|
    third_squares: float  # |a sigma''' H^2|
    third_reach: float   # max |a sigma''' h_d|
    third_both: float    # sup |a sigma''' H h_d|

    @classmethod
    def of_vector(cls, here: _Here, a: Tensor) -> _Dual:
        """The norms of a vector a."""
        bent, third = a * here.s2, a * here.s3
        matrix = bent[:, None] * here.argument
        return cls(float(a.norm()), float((a * here.s1).norm()), _max(bent), float(matrix.norm()), _two(matrix),
                   float((bent * here.l_h).norm()), _two(bent[:, None] * here.direction), _max(third),
                   _max(third * here.rows), float((third * here.rows**2).norm()), _max(third * here.reach),
                   _two((third * here.rows)[:, None] * here.direction))

    @classmethod
    def by_norm(cls, here: _Here, size: float) -> _Dual:
        """Bounds for any vector of that length."""
        bent, third = here.s2, here.s3
        rows = _max(bent * here.rows)
        return cls(*(size * factor for factor in (
            1.0, _max(here.s1), _max(bent), rows, rows, _max(bent * here.l_h), _max(bent * here.reach), _max(third),
            _max(third * here.rows), _max(third * here.rows**2), _max(third * here.reach),
            _max(third * here.rows * here.reach))))

    def of_mixed(self, here: _Here, e: _Primal, k: int) -> float:
        """|a . (difference of the terms of p_id at step k)|, Euclidean over i."""
        return (self.slope * e.first_two[k] + self.bend_rows_two * e.direction[k] + self.bend_reach * e.argument[k]
                + self.bend * e.argument[k] * e.direction[k])

    def of_third(self, here: _Here, e: _Primal, mixed: list[float], k: int) -> float:
        """|a . (difference of the terms of L_d at step k)|."""
        e_h, e_d, e_l = e.argument[k], e.direction[k], e.laplacian_argument[k]
        e_m = here.omega * mixed[k] + e.first[k]                                # of h_id
        product = self.bend_l * e_d + self.bend_reach * e_l + self.bend * e_l * e_d
        cross = 2 * (self.bend_rows * e_m + self.bend * (here.mixed_argument + e_m) * e_h)
        cubic = (self.third_squares * e_d + (2 * self.third_both + self.third_reach * e_h) * e_h
                 + (2 * self.third_rows + self.third * e_h) * e_h * e_d)
        return self.slope * e.laplacian[k] + product + cross + cubic


def _duals(here: _Here, steps: int) -> list[_Dual]:
    vector, found = here.gamma, []
    for _ in range(steps + 1):
        found.append(_Dual.of_vector(here, vector))
        vector = here.jacobian.T @ vector
    return found


def _mixed_errors(here: _Here, e: _Primal, p: list[float]) -> list[float]:
    """Bounds of sup |error of p_id|_F after k steps: the recursion in norms, with |J^j|_2 <= p_j."""
    slope, bend = _max(here.s1), _max(here.s2)
    rows, reach = _max(here.s2 * here.rows), _max(here.s2 * here.reach)
    sources: list[float] = []
    series = [here.mixed]
    for k in range(len(p) - 1):
        sources.append(slope * e.first[k] + rows * e.direction[k] + reach * e.argument[k]
                       + bend * e.argument[k] * e.direction[k])
        series.append(p[k + 1] * here.mixed + sum(p[k - j] * term for j, term in enumerate(sources)))
    return series


def _gradient(here: _Here, e: _Primal, duals: list[_Dual], mixed: list[float], count: int) -> Majorant:
    """Size and error of the whole gradient after `count` steps."""
    through_mixed = duals[count].plain * here.mixed + sum(
        duals[count - 1 - k].of_mixed(here, e, k) for k in range(count))
    through_third = duals[count].plain * here.third + sum(
        duals[count - 1 - k].of_third(here, e, mixed, k) for k in range(count))
    first = Majorant(float(here.first.norm()), e.first[count])
    first_two = Majorant(_two(here.first), e.first_two[count])
    laplacian = Majorant(float(here.laplacian.norm()), e.laplacian[count])
    parameter = Majorant(here.parameter, e.parameter[count])
    score = Majorant(here.score, e.score[count])
    d_score = (Majorant(here.gamma_norm * here.mixed, through_mixed)
               + (first_two * parameter).times(2 * here.quadratic))
    d_trace = (Majorant(here.gamma_norm * here.third, through_third)
               + (parameter * laplacian).times(2 * here.quadratic)
               + (first * Majorant(here.mixed, mixed[count])).times(4 * here.quadratic))
    layer, readout = score * d_score + d_trace, score * first_two + laplacian
    return Majorant(hypot(layer.size, readout.size), hypot(layer.error, readout.error))


def _two(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))


def _max(values: Tensor) -> float:
    return float(values.abs().max())
