r"""Upper bounds of the phantom gradient's error after K steps, first and second order.

[SM] gives the limit only. With E_k = Dz - Dz^(k) = R^k Dz (R = J for damping 1, else (1 - damping) I + damping J) and

    T[a, v] = f_zx[a, v] + f_zz[a, Dz v],     G_k[u, v] = T[E_k u, v] + T[E_k v, u] - f_zz[E_k u, E_k v],

the second-order recursion telescopes into an identity (damping enters as a factor of the sum):

    D^2 z - D^2 z^(K) = R^K D^2 z + damping sum_{k<K} R^{K-1-k} G_k.

Three levels of bounds follow, each weaker and simpler than the one before:

- sharp: |R^K Dz| itself, and the triangle inequality on the identity;
- powers: products of the norms |R^j|_2, |Dz|, |D^2 z|, |T|, |f_zz|;
- law: |R^j|_2 <= kappa q^j, giving kappa q^K |Dz| and
  kappa q^K |D^2 z| + 2 kappa^2 K q^(K-1) |T| |Dz| + kappa^3 |f_zz| |Dz|^2 q^(K-1) (1-q^K)/(1-q):
  a factor K slower than the first order. kappa = 1 and q = |R|_2 where that is below 1; else from a power of R.

Norms: R by its operator 2-norm, Dz and D^2 z by their Frobenius norms, T and f_zz by the 2-norm of the unfolding that
takes one z-leg to the other two legs (so |T[E., .]|_F <= |T| |E|_F), and |Dz|^2 reads |Dz|_F |Dz|_2. A bound of the
Frobenius norm of the error bounds every other 2-norm of it: the operator norm of an [n, d] error, the supremum of
|error[u, v]|_2 over unit u and v, any unfolding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacrev

from analysis.phantom.derivatives import derivatives_at
from analysis.phantom.equilibrium_point import EPS, EquilibriumPoint, Map, equilibrium_point
from deq.density.products import directional


@dataclass(frozen=True)
class PhantomErrorBound:
    """Bounds of |Dz - Dz^(K)| and |D^2 z - D^2 z^(K)|, in Frobenius norm (hence in every 2-norm).

    Attributes:
        steps: K.
        first: sharp bound of the first-order error.
        second: sharp bound of the second-order error.
        first_powers: |R^K|_2 |Dz|.
        second_powers: the same level for the second order.
        first_law: kappa q^K |Dz|.
        second_law: the K q^K law.
        first_operator: sharp bound of the operator 2-norm of the first-order error.
        q: rate of the law.
        kappa: constant of the law; 1 where q is the 2-norm.
        spectral_radius: of R; the asymptotic rate.
        rounding: allowance for float64 rounding, contained in all of the above: an error measured in float64 differs
            from the exact one by less than about this much.

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> bound = analysis.phantom_error_bound(f, x, z, steps=2)
        >>> bound.steps, bound.q < 0.5
        (2, True)
    """

    steps: int
    first: float
    second: float
    first_powers: float
    second_powers: float
    first_law: float
    second_law: float
    first_operator: float
    q: float
    kappa: float
    spectral_radius: float
    rounding: float


def phantom_error_bound(f: Map, x: Tensor, z_star: Tensor, steps: int, damping: float = 1.0, *,
                        residual_tol: float = 1e-5) -> PhantomErrorBound:
    """Bound the error of first and second derivatives of the phantom iterate z^(K), K = steps.

    Valid for any spectral radius; the law decays only where the spectral radius of R is below 1.
    Costs derivatives of f in R^d, the n x n powers, and |f_zz|, computed by columns in O(n^2) memory.

    Args:
        f: map of a single sample, f(z, x) -> tensor like z, float64, twice continuously differentiable near (z*, x).
        x: input, d numbers.
        z_star: equilibrium, n numbers.
        steps: K >= 1.
        damping: positive and finite, as in `phantom_derivatives`.
        residual_tol: see `equilibrium_point`.

    Raises:
        TypeError: steps is not an integer, or an argument of another kind.
        ValueError: steps < 1, damping not positive, wrong dtype or shape, NaN.
        NotAFixedPointError: z_star does not solve the equation.
        SingularEquilibriumError: I - J is singular.

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> error = analysis.implicit_derivatives(f, x, z).first - analysis.phantom_derivatives(f, x, z, 2).first
        >>> abs(float(error)) <= analysis.phantom_error_bound(f, x, z, steps=2).first
        True
    """
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"steps must be an integer, not {steps!r}")
    if steps < 1:
        raise ValueError(f"steps = {steps}: a phantom gradient needs steps >= 1")
    if not 0.0 < damping < float("inf"):
        raise ValueError(f"damping must be positive and finite, not {damping}")
    point = equilibrium_point(f, x, z_star, residual_tol=residual_tol)
    return bounds_at(point, steps, damping)[-1]


def bounds_at(point: EquilibriumPoint, steps: int, damping: float = 1.0) -> list[PhantomErrorBound]:
    """The bounds for K = 1, ..., steps in one pass, at a point that was checked before."""
    n = point.z.numel()
    exact = derivatives_at(point, 2)
    first, second = exact.first, exact.second
    error_map = (1 - damping) * torch.eye(n, dtype=torch.float64) + damping * point.jacobian
    mixed, bend = mixed_norm(point, first), bend_norm(point)
    size_first, size_second = _norm(first), _norm(second)
    size_operator = float(torch.linalg.matrix_norm(first, 2))
    radius = float(torch.linalg.eigvals(error_map).abs().max())
    q, kappa = rate_and_constant(error_map, steps)
    bracket = point.curve_derivative((first,), 2)

    # Rounding of D_1 and D_2 on both sides: eps, times the condition of the solve (squared for D_2, which uses D_1),
    # times n for the sums in matrix products and norms, and K for the recursion; 8 covers both sides and their
    # difference. `grow` does the same for the bounds themselves (they grow with K where R does not contract).
    unit = 8 * (n + steps) * EPS
    grow = 1 + unit * point.condition
    slack_first = unit * point.condition * size_first
    slack_second = unit * (point.condition * (size_second + _norm(bracket))
                           + point.condition**2 * (mixed + bend * size_operator) * size_first)

    out = []
    error, tail, powers = first, second, [torch.eye(n, dtype=torch.float64)]
    gaps: list[Tensor] = []       # R^{k-1-j} G_j for j < k, each moved on by R every step
    gap_norms: list[float] = []   # |G_j| bounded by norms, for the powers level
    for k in range(1, steps + 1):
        # E_{k-1} = R^{k-1} Dz gives G_{k-1} = H(Dz) - H(D_{k-1}), with D_{k-1} = Dz - E_{k-1}.
        size = float(torch.linalg.matrix_norm(powers[-1], 2))
        gap_norms.append(2 * mixed * size * size_first + bend * size**2 * size_first * size_operator)
        gaps = [torch.tensordot(error_map, gap, dims=1) for gap in gaps]
        gaps.append(damping * (bracket - point.curve_derivative((first - error,), 2)))
        error, tail = error_map @ error, torch.tensordot(error_map, tail, dims=1)
        powers.append(error_map @ powers[-1])
        sizes = [float(torch.linalg.matrix_norm(power, 2)) for power in powers]
        geometric = sum(q**j for j in range(k))
        out.append(PhantomErrorBound(
            steps=k,
            first=grow * _norm(error) + slack_first,
            second=grow * (_norm(tail) + sum(map(_norm, gaps))) + slack_second,
            first_powers=grow * sizes[k] * size_first + slack_first,
            second_powers=slack_second + grow * (
                sizes[k] * size_second + damping * sum(sizes[k - 1 - j] * gap_norms[j] for j in range(k))),
            first_law=grow * kappa * q**k * size_first + slack_first,
            second_law=slack_second + grow * (kappa * q**k * size_second + damping * q ** (k - 1) * size_first * (
                2 * kappa**2 * k * mixed + kappa**3 * bend * size_operator * geometric)),
            first_operator=grow * float(torch.linalg.matrix_norm(error, 2)) + slack_first,
            q=q, kappa=kappa, spectral_radius=radius, rounding=max(slack_first, slack_second)))
    return out


def rate_and_constant(matrix: Tensor, steps: int) -> tuple[float, float]:
    """Find q and kappa with |matrix^j|_2 <= kappa q^j for every j >= 0.

    q is the 2-norm (kappa = 1) where that is below 1. Else, where the spectral radius is below 1, some power p
    contracts: q = |R^p|_2^(1/p) and kappa = max over r < p of |R^r|_2 / q^r (write j = a p + r), with the p of least
    kappa q^steps. Else the 2-norm again, with q >= 1: valid, not decaying.
    """
    plain = float(torch.linalg.matrix_norm(matrix, 2))
    if plain < 1 or float(torch.linalg.eigvals(matrix).abs().max()) >= 1:
        return plain, 1.0
    best: tuple[float, float] | None = None
    power, norms = matrix, [1.0]
    for p in range(1, 4097):
        norms.append(float(torch.linalg.matrix_norm(power, 2)))
        if norms[p] == 0.0:
            q = best[0] if best is not None else 0.5  # nilpotent: any rate will do
            return q, max(size / q**r for r, size in enumerate(norms))
        q = norms[p] ** (1 / p)
        if q < 1:
            kappa = max(size / q**r for r, size in enumerate(norms[:p]))
            if best is None or kappa * q**steps < best[1] * best[0]**steps:
                best = (q, kappa)
        if p >= 64 and best is not None:
            break
        power = power @ matrix
    return best if best is not None else (plain, 1.0)


def mixed_norm(point: EquilibriumPoint, first: Tensor) -> float:
    """Norm of T[a, v] = f_zx[a, v] + f_zz[a, Dz v] as a map from a to the [n, d] legs, by its d slices."""
    return _unfolding_norm(point, list(zip(first.T, torch.eye(point.x.numel(), dtype=torch.float64), strict=True)))


def bend_norm(point: EquilibriumPoint) -> float:
    """Norm of f_zz [n, n, n] as a map from one z-leg to the other two legs, by its n slices."""
    zero = torch.zeros_like(point.x)
    return _unfolding_norm(point, [(row, zero) for row in torch.eye(point.z.numel(), dtype=torch.float64)])


def _unfolding_norm(point: EquilibriumPoint, directions: list[tuple[Tensor, Tensor]]) -> float:
    """Square root of the largest eigenvalue of sum_v A_v^T A_v, A_v the derivative of df/dz along direction v."""
    gram = torch.zeros_like(point.jacobian)
    with torch.no_grad():
        for along_z, along_x in directions:
            slice_ = jacrev(_directional)(point.z, point, along_z, along_x).detach()
            gram += slice_.T @ slice_
    return float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0.0)) ** 0.5


def _directional(z: Tensor, point: EquilibriumPoint, along_z: Tensor, along_x: Tensor) -> Tensor:
    return directional(point.f, (z, point.x), (along_z, along_x))


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor))
