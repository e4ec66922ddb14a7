"""Spectral radius and 2-norm of J = df/dz without forming it: Krylov methods on Jacobian-vector products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigs, svds
from torch import Tensor
from torch.func import jvp, vjp

from analysis.phantom.equilibrium_point import Map

# Below this size the n products that build J cost less than a Krylov space, and ARPACK needs n > k + 1 anyway.
_DENSE = 24


@dataclass(frozen=True)
class NormEstimate:
    """An estimate with its own quality.

    Attributes:
        value: the estimate.
        residual: |J v - lambda v| of the unit eigenvector found, or |(J v - sigma u, J^T u - sigma v)| of the singular
            pair. For the norm it bounds the distance to some singular value (up to sqrt 2); for a non-normal J an
            eigenvalue may be further away than its residual.
        converged: whether the Krylov method met its tolerance.
        products: Jacobian products spent.
    """

    value: float
    residual: float
    converged: bool
    products: int


class _Jacobian:
    """J at (z, x) as a pair of counted matrix-vector products on flat arrays."""

    def __init__(self, f: Map, x: Tensor, z: Tensor):
        if z.dtype != torch.float64 or x.dtype != torch.float64:
            raise ValueError(f"z and x must be float64, not {z.dtype} and {x.dtype}")
        if not bool(torch.isfinite(z).all()) or not bool(torch.isfinite(x).all()):
            raise ValueError("z or x has NaN or infinite entries")
        self.n, self.products = z.numel(), 0
        shape, z, x = z.shape, z.detach(), x.detach()
        self._f, self._z = lambda u: f(u.reshape(shape), x).reshape(-1), z.reshape(-1)
        with torch.no_grad():
            value, self._pull = vjp(self._f, self._z)[:2]
        if value.numel() != self.n:
            raise ValueError(f"f must return z's shape {tuple(shape)}; it returned {value.numel()} numbers")

    def forward(self, vector: np.ndarray) -> np.ndarray:
        self.products += 1
        with torch.no_grad():
            return jvp(self._f, (self._z,), (torch.from_numpy(np.array(vector, dtype=float).ravel()),))[1].numpy()

    def backward(self, vector: np.ndarray) -> np.ndarray:
        self.products += 1
        with torch.no_grad():
            return self._pull(torch.from_numpy(np.array(vector, dtype=float).ravel()))[0].detach().numpy()

    def apply(self, vector: np.ndarray) -> np.ndarray:
        """J times a complex vector."""
        return self.forward(vector.real) + 1j * self.forward(vector.imag)

    def dense(self) -> np.ndarray:
        return np.stack([self.forward(row) for row in np.eye(self.n)], axis=1)

    def operator(self) -> LinearOperator:
        return LinearOperator((self.n, self.n), matvec=self.forward, rmatvec=self.backward, dtype=float)


def spectral_radius(f: Map, x: Tensor, z: Tensor, *, tol: float = 1e-8, max_iter: int = 1000,
                    seed: int = 0) -> NormEstimate:
    """Largest modulus of an eigenvalue of df/dz at (z, x), by Arnoldi (ARPACK); complex pairs included.

    Six eigenvalues are asked for, since Arnoldi can miss one whose modulus nearly ties with another's; the value is an
    estimate from below.

    Args:
        f: map of a single sample, f(z, x) -> tensor like z.
        x: input, float64.
        z: where to linearise, float64, any shape.
        tol: ARPACK's relative tolerance.
        max_iter: ARPACK restarts.
        seed: of the start vector.

    Returns:
        NormEstimate; `converged` False when ARPACK gave up (value: the best Ritz value, or NaN if there is none).

    Raises:
        ValueError: another dtype than float64, NaN, or f returning another shape.

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> round(float(analysis.spectral_radius(f, x, z).value), 4) == round(float(0.5 * (1 - z**2)), 4)
        True
    """
    jacobian = _Jacobian(f, x, z)
    if jacobian.n <= _DENSE:
        values, vectors = np.linalg.eig(jacobian.dense())
        best = int(np.argmax(np.abs(values)))
        return _eigen_estimate(jacobian, values[best], vectors[:, best], True)
    start = np.random.default_rng(seed).standard_normal(jacobian.n)
    try:
        values, vectors = eigs(jacobian.operator(), k=6, which="LM", v0=start, tol=tol, maxiter=max_iter,
                               ncv=min(jacobian.n, 48))
        converged = True
    except ArpackNoConvergence as failure:
        values, vectors, converged = failure.eigenvalues, failure.eigenvectors, False
    except ArpackError:
        # The Krylov space broke down (J v = 0 for the start vector, as for J = 0): only the dense matrix can tell.
        values, vectors = np.linalg.eig(jacobian.dense())
        converged = True
    if len(values) == 0:
        return NormEstimate(float("nan"), float("inf"), False, jacobian.products)
    best = int(np.argmax(np.abs(values)))
    return _eigen_estimate(jacobian, values[best], vectors[:, best], converged)


def operator_norm(f: Map, x: Tensor, z: Tensor, *, tol: float = 1e-10, max_iter: int = 2000,
                  seed: int = 0) -> NormEstimate:
    """|df/dz|_2 at (z, x), by Lanczos on J^T J (products J v and J^T u only).

    Args:
        f: map of a single sample, f(z, x) -> tensor like z.
        x: input, float64.
        z: where to linearise, float64, any shape.
        tol: ARPACK's relative tolerance.
        max_iter: ARPACK restarts.
        seed: of the start vector.

    Returns:
        NormEstimate. A Lanczos value never exceeds the norm (up to rounding): it is an estimate from below.

    Raises:
        ValueError: another dtype than float64, NaN, or f returning another shape.

    Example:
        >>> import torch, analysis
        >>> f = lambda z, x: torch.tanh(0.5 * z + x)
        >>> x = torch.tensor([0.3], dtype=torch.float64)
        >>> z = analysis.newton_equilibrium(f, x, torch.zeros(1, dtype=torch.float64))
        >>> round(float(analysis.operator_norm(f, x, z).value), 4) == round(float(0.5 * (1 - z**2)), 4)
        True
    """
    jacobian = _Jacobian(f, x, z)
    if jacobian.n <= _DENSE:
        left, values, right = np.linalg.svd(jacobian.dense())
        return _singular_estimate(jacobian, left[:, 0], float(values[0]), right[0], True)
    start = np.random.default_rng(seed).standard_normal(jacobian.n)
    try:
        left, values, right = svds(jacobian.operator(), k=1, v0=start, tol=tol, maxiter=max_iter)
    except ArpackNoConvergence:
        return NormEstimate(float("nan"), float("inf"), False, jacobian.products)
    except ArpackError:
        left, values, right = np.linalg.svd(jacobian.dense())
    return _singular_estimate(jacobian, left[:, 0], float(values[0]), right[0], True)


def _eigen_estimate(jacobian: _Jacobian, value: complex, vector: np.ndarray, converged: bool) -> NormEstimate:
    vector = vector / np.linalg.norm(vector)
    residual = float(np.linalg.norm(jacobian.apply(vector) - value * vector))
    return NormEstimate(float(abs(value)), residual, converged, jacobian.products)


def _singular_estimate(jacobian: _Jacobian, left: np.ndarray, value: float, right: np.ndarray,
                       converged: bool) -> NormEstimate:
    residual = float(np.hypot(np.linalg.norm(jacobian.forward(right) - value * left),
                              np.linalg.norm(jacobian.backward(left) - value * right)))
    return NormEstimate(value, residual, converged, jacobian.products)
