"""Existence, uniqueness and enclosure of an equilibrium, and of its first two derivatives in the input.

Krawczyk's test: with an approximate inverse M of I - J, K(X) = z0 - M (z0 - f(z0)) + (I - M (I - J(X))) (X - z0). If
K(X) lies in the interior of the box X, then X holds exactly one equilibrium, it lies in K(X), and I - J is regular
throughout X (Krawczyk 1969; Rump 2010, Acta Numerica 19, section 13). No contraction is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat, ctx
from numpy.typing import ArrayLike

from analysis.rigorous.balls import (
    NotCertified,
    column,
    frobenius,
    identity,
    inverse,
    magnitudes,
    midpoints,
    norm_inf,
    radii,
    shape,
    solve,
    widened,
)
from analysis.rigorous.certainty import Certainty, all_inside, is_finite, less
from analysis.rigorous.jets import Jet, Pairs, hessian_pairs, input_jet, variable
from analysis.rigorous.maps import JetMap


@dataclass(frozen=True)
class Equilibrium:
    """A proved equilibrium.

    Attributes:
        f: the map on jets.
        x: the input, exact [d, 1].
        z: an enclosure of the equilibrium [n, 1].
        box: a box that holds no other equilibrium [n, 1].
        approximate_inverse: the M that proved it.
        contraction_of_krawczyk: upper bound of |I - M (I - J)|_inf over the box.
    """

    f: JetMap
    x: arb_mat
    z: arb_mat
    box: arb_mat
    approximate_inverse: arb_mat
    contraction_of_krawczyk: arb

    @property
    def size(self) -> int:
        """The width n."""
        return int(self.z.nrows())

    @property
    def input_size(self) -> int:
        """The input width d."""
        return int(self.x.nrows())


@dataclass(frozen=True)
class EnclosedDerivatives:
    """Enclosures of derivatives of the equilibrium, or of a phantom one.

    Attributes:
        first: D z [n, d].
        second: combinations of D^2 z [n, p].
        pairs: which ones, as in `analysis.rigorous.jets`.
    """

    first: arb_mat
    second: arb_mat
    pairs: Pairs


def map_jet(f: JetMap, z: arb_mat | None, x: arb_mat | None, sizes: tuple[int, int], *, lipschitz: bool) -> Jet:
    """The map at (z, x) with its derivatives along all entries of z, then all of x: [J, B] side by side."""
    n, d = sizes
    return f(variable(z, n, 0, n + d, lipschitz=lipschitz), variable(x, d, n, n + d, lipschitz=lipschitz))


def jacobians(f: JetMap, z: arb_mat | None, x: arb_mat, n: int, *, lipschitz: bool = False) -> tuple[arb_mat, arb_mat]:
    """J = df/dz [n, n] and B = df/dx [n, d] over the boxes z and x; z None means anywhere."""
    d = x.nrows()
    first = map_jet(f, z, x, (n, d), lipschitz=lipschitz).first
    rows = first.tolist()
    return (arb_mat(n, n, [entry for row in rows for entry in row[:n]]),
            arb_mat(n, d, [entry for row in rows for entry in row[n:]]))


def state_slopes(f: JetMap, z: arb_mat | None, x: arb_mat, n: int) -> arb_mat:
    """All difference quotients of z -> f(z, x) over a box (z None: anywhere), as a matrix [n, n]."""
    return state_jet(f, z, x, n).first


def state_jet(f: JetMap, z: arb_mat | None, x: arb_mat, n: int, *, norm: bool = False) -> Jet:
    """The jet behind `state_slopes`, with a bound of the slopes' spectral norm if asked for."""
    still = variable(x, x.nrows(), -1, n, lipschitz=True, norm=norm)
    return f(variable(z, n, 0, n, lipschitz=True, norm=norm), still)


def value(f: JetMap, z: arb_mat, x: arb_mat) -> arb_mat:
    """The map f(z, x) over boxes, without derivatives."""
    result = f(variable(z, z.nrows(), -1, 1, lipschitz=True), variable(x, x.nrows(), -1, 1, lipschitz=True)).value
    if result is None:
        raise ValueError("the map lost its value")
    return result


def enclose_equilibrium(f: JetMap, x: ArrayLike | arb_mat, size: int, start: ArrayLike | None = None, *,
                        max_steps: int = 60) -> Equilibrium:
    """Find an equilibrium and prove that it exists and is alone in a box; at the working precision of the caller.

    Args:
        f: the map on jets, such as a `Layer`.
        x: the input [d], floats or exact balls.
        size: n.
        start: an approximate equilibrium [n]; zeros if None.
        max_steps: of the damped Newton search.

    Raises:
        NotCertified: the search did not converge, I - J may be singular there, or Krawczyk's test failed.
        ValueError: x or start has another shape or is not finite.
    """
    point = x if isinstance(x, arb_mat) else column(x, "input x")
    guess = column(np.zeros(size) if start is None else start, "start")
    if guess.nrows() != size:
        raise ValueError(f"start has {guess.nrows()} entries, the equilibrium {size}")
    centre = _newton(f, point, guess, max_steps)
    nearby = widened(centre, arb_mat(size, 1, [arb(2) ** (-ctx.prec // 2)] * size))  # sees both sides of a kink
    slopes = state_slopes(f, nearby, point, size)
    preconditioner = midpoints(inverse(identity(size) - midpoints(slopes), "I - J at the approximate equilibrium"))
    return _krawczyk(f, point, centre, preconditioner)


def enclose_derivatives(equilibrium: Equilibrium, pairs: Pairs | None = None) -> EnclosedDerivatives:
    """Proposition 1 of [SM] in ball arithmetic: D z = S B and D^2 z = S H(D z), for the given pairs (all if None).

    Raises:
        NotSmooth: f has a kink within the enclosure of the equilibrium.
    """
    chosen = hessian_pairs(equilibrium.input_size) if pairs is None else pairs
    jacobian, inputs = jacobians(equilibrium.f, equilibrium.z, equilibrium.x, equilibrium.size)
    regular = identity(equilibrium.size) - jacobian
    first = solve(regular, inputs, "I - J over the enclosure")
    bent = second_form(equilibrium, first, chosen)
    return EnclosedDerivatives(first, solve(regular, bent, "I - J over the enclosure"), chosen)


def isolation_radius(equilibrium: Equilibrium) -> float:
    """The half-width of a large box about the equilibrium that holds no other, or 0: a power of two, by bisection.

    |I - M (I - J)|_inf < 1 over the box makes every slope matrix I - J regular there, so that z - f(z) is one to one.
    The bound is held below 0.99, for a cruder arithmetic to confirm.
    """
    size, unit = equilibrium.size, identity(equilibrium.size)

    def alone(exponent: int) -> bool:
        box = widened(equilibrium.z, arb_mat(size, 1, [arb(2) ** exponent] * size))
        slopes = state_slopes(equilibrium.f, box, equilibrium.x, size)
        return less(norm_inf(unit - equilibrium.approximate_inverse * (unit - slopes)), "0.99").certain

    low, high = -60, 20
    if not alone(low):
        return 0.0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if alone(middle) else (low, middle)
    return 2.0 ** low


def second_form(equilibrium: Equilibrium, first: arb_mat, pairs: Pairs,
                second: arb_mat | None = None) -> arb_mat:
    """The second derivatives of x -> f(z(x), x), for a z with z = z*, D z = `first`, D^2 z = `second` (0 if None).

    That is J `second` + H(`first`), with H of Proposition 2.
    """
    bend = arb_mat(equilibrium.size, len(pairs), [0] * (equilibrium.size * len(pairs))) if second is None else second
    moved = equilibrium.f(Jet(equilibrium.z, first, bend, pairs), input_jet(equilibrium.x, pairs))
    if moved.second is None:
        raise ValueError("the map lost its second derivatives")
    return moved.second


def _newton(f: JetMap, x: arb_mat, start: arb_mat, max_steps: int) -> arb_mat:
    """Midpoints of a damped Newton iteration: a search, nothing is claimed of the result."""
    n, centre = start.nrows(), start
    residual = midpoints(centre - value(f, centre, x))
    size = float(frobenius(residual).mid())
    floor = 2.0 ** (8 - ctx.prec)
    for _ in range(max_steps):
        if size <= floor * (1 + float(frobenius(centre).mid())):
            return centre
        slopes = state_slopes(f, centre, x, n)
        step = midpoints(solve(identity(n) - midpoints(slopes), residual, "I - J on the way to the equilibrium"))
        damping = arb(1)
        while True:
            trial = midpoints(centre - damping * step)
            trial_residual = midpoints(trial - value(f, trial, x))
            trial_size = float(frobenius(trial_residual).mid())
            if trial_size < size:
                break
            damping /= 2
            if float(damping.mid()) < 1e-6:
                if size <= 2.0 ** (ctx.prec // -2):  # rounding stops the descent: Krawczyk's test decides
                    return centre
                raise NotCertified(f"no equilibrium found: Newton's iteration stalls at residual {size:.3g}")
        centre, residual, size = trial, trial_residual, trial_size
    raise NotCertified(f"no equilibrium found in {max_steps} Newton steps: residual {size:.3g}; give a better start")


def _krawczyk(f: JetMap, x: arb_mat, centre: arb_mat, preconditioner: arb_mat) -> Equilibrium:
    n = centre.nrows()
    correction = preconditioner * (centre - value(f, centre, x))
    unit = identity(n)
    radius = magnitudes(correction)
    floor = arb(2) ** (10 - ctx.prec)
    radius = arb_mat(n, 1, [2 * r + floor * (1 + abs(c)) for r, c in
                            zip(radius.entries(), centre.entries(), strict=True)])
    for _ in range(12):
        box = widened(centre, radius)
        defect = unit - preconditioner * (unit - state_slopes(f, box, x, n))
        image = centre - correction + defect * (box - centre)
        if not is_finite(image):
            break
        if all_inside(box, image) is Certainty.CERTAINLY:
            tight = arb_mat(n, 1, [a.intersection(b) for a, b in zip(box.entries(), image.entries(), strict=True)])
            return Equilibrium(f, x, tight, box, preconditioner, norm_inf(defect))
        radius = radius * 8
    raise NotCertified("Krawczyk's test could not prove an equilibrium: I - J is too near to singular, or a kink lies "
                       "within the box; raise the precision or start nearer")


def describe(values: arb_mat) -> str:
    """Shape and largest radius, for a message."""
    return f"{shape(values)} with radius at most {max(float(r) for r in radii(values).entries()):.2g}"
