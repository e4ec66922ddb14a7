"""Small experiments, one a known fault: each returns the relative error of torch against an independent truth."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jacfwd, jvp, vmap
from torch.nn import functional as F

#: A relative error above this is a fault: central differences of the fourth order are right to 1e-8 or better here,
#: and every known fault is above 1e-2.
LARGEST_ERROR = 1e-5

_THREADS = 2


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _second_along(function: Callable[[Tensor], Tensor], u: Tensor, v: Tensor) -> float:
    """Error of forward-over-forward of a number-valued function along v, against differences of function values."""
    found = jvp(lambda a: jvp(function, (a,), (v,))[1], (u,), (v,))[1]
    h = 1e-2
    near, far, twice = (function(u + k * h * v) + function(u - k * h * v) for k in (1, 2, 4))
    centre = 2 * function(u)
    # Two Richardson steps on (f(u + hv) - 2 f(u) + f(u - hv)) / h^2: the error is of order h^6.
    rough = [(value - centre) / (k * h) ** 2 for value, k in ((near, 1), (far, 2), (twice, 4))]
    better = [(4 * rough[0] - rough[1]) / 3, (4 * rough[1] - rough[2]) / 3]
    truth = (16 * better[0] - better[1]) / 15
    return float((found - truth).abs() / truth.abs())


def _probe_of(operation: Callable[[Tensor], Tensor], count: int) -> float:
    weights = torch.sin(torch.arange(1.0, 1.0 + operation(_random(count)).numel(), dtype=torch.float64))
    return _second_along(lambda u: ((operation(u).flatten() + 0.3 * operation(u).flatten() ** 2) * weights).sum(),
                         0.7 * _random(count), 0.2 * _random(count, seed=1))


def layer_norm() -> float:
    """Second derivative along a direction, forward over forward."""
    return _probe_of(lambda u: F.layer_norm(u, (6,)), 6)


def batch_norm() -> float:
    """Second derivative along a direction, forward over forward."""
    return _probe_of(lambda u: F.batch_norm(u.reshape(3, 2), None, None, training=True), 6)


def instance_norm() -> float:
    """Second derivative along a direction, forward over forward."""
    return _probe_of(lambda u: F.instance_norm(u.reshape(1, 2, 3)), 6)


def _regular(u: Tensor) -> Tensor:
    square = u[:4].reshape(2, 2)
    return square @ square.mT + 3 * torch.eye(2, dtype=u.dtype)


def linalg_solve() -> float:
    """Second derivative along a direction, forward over forward."""
    return _probe_of(lambda u: torch.linalg.solve(_regular(u), u[4:]), 6)


def logdet() -> float:
    """Second derivative along a direction, forward over forward."""
    return _probe_of(lambda u: torch.logdet(_regular(u)).reshape(1), 6)


def vmap_solve() -> float:
    """First derivatives of A(u)^{-1} u, A = I + u w^T: u / (1 + w.u) in closed form."""
    w, batch = 0.3 * _random(6), _random(4, 6, seed=1)

    def solved(u: Tensor) -> Tensor:
        return torch.linalg.solve(torch.eye(6, dtype=u.dtype) + torch.outer(u, w), u)

    found = vmap(jacfwd(solved))(batch)
    scale = 1 + batch @ w
    truth = torch.eye(6, dtype=w.dtype) / scale[:, None, None] - torch.einsum("bi,j->bij", batch, w) / (
        scale**2)[:, None, None]
    return float((found - truth).abs().max() / truth.abs().max())


def attention() -> float:
    """Second derivative along a direction of attention, reverse over reverse; an error is a fault too."""
    u, v = (_random(1, 1, 8, 4, seed=seed).flatten() for seed in (0, 1))

    def function(t: Tensor) -> Tensor:
        q = t.reshape(1, 1, 8, 4)
        return F.scaled_dot_product_attention(q, 0.5 * q, q).square().sum()

    point = u.clone().requires_grad_()
    (first,) = torch.autograd.grad(function(point), point, create_graph=True)
    (second,) = torch.autograd.grad(first @ v, point)
    h = 1e-3
    truth = (grad(function)(u + h * v) - grad(function)(u - h * v)) / (2 * h)
    return float((second - truth).abs().max() / truth.abs().max()) * 1e-1  # differences of the second order


def silu_backward() -> float:
    """d/du of silu'(u) by forward mode, against its closed form."""
    u = _random(5)

    def total(t: Tensor) -> Tensor:
        return F.silu(t).sum()

    found = jvp(grad(total), (u,), (torch.ones_like(u),))[1]
    s = torch.sigmoid(u)
    truth = s * (1 - s) * (2 + u * (1 - 2 * s))
    return float((found - truth).abs().max())


def convolution_vmap() -> float:
    """Per-sample gradients of a convolution's kernel, against one sample at a time."""
    images, kernel = _random(3, 2, 5, 5), _random(2, 2, 3, 3, seed=1)

    def loss(weight: Tensor, image: Tensor) -> Tensor:
        return torch.tanh(F.conv2d(image[None], weight, padding=1)).square().sum()

    found = vmap(grad(loss), (None, 0))(kernel, images)
    truth = torch.stack([grad(loss)(kernel, image) for image in images])
    return float((found - truth).abs().max() / truth.abs().max())


def batched_lu() -> float:
    """LU of batches of 200 and 300 rows; the products of the factors must be the matrices."""
    torch.set_num_threads(_THREADS)
    worst = 0.0
    for n, batch in ((200, 4), (300, 8)):
        matrices = torch.eye(n, dtype=torch.float64) + 0.4 * _random(batch, n, n) / n**0.5
        for _ in range(3):
            lu, pivots, _ = torch.linalg.lu_factor_ex(matrices)
            if bool(((pivots < 1) | (pivots > n)).any()):
                return inf
            p, lower, upper = torch.lu_unpack(lu, pivots)
            worst = max(worst, float((p @ lower @ upper - matrices).abs().nan_to_num(inf, inf).max()))
    return worst


def batched_cholesky() -> float:
    """The same for Cholesky, QR and symmetric eigenvectors."""
    torch.set_num_threads(_THREADS)
    n = 200
    random = _random(4, n, n) / n**0.5
    positive = random @ random.mT + torch.eye(n, dtype=torch.float64)
    lower = torch.linalg.cholesky(positive)
    q, r = torch.linalg.qr(random)
    values, vectors = torch.linalg.eigh(positive)
    errors = (lower @ lower.mT - positive, q @ r - random, vectors @ (values[..., None] * vectors.mT) - positive)
    return max(float(error.abs().nan_to_num(inf, inf).max()) for error in errors)


def measure(name: str) -> dict[str, Any]:
    """Run one probe: its error, or the error that it raised, as plain data."""
    probe: Callable[[], float] = globals()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return {"name": name, "error": probe()}
        except (RuntimeError, NotImplementedError) as error:
            return {"name": name, "raised": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        except Exception as error:  # a probe that breaks is a fault of ours, and is told as such
            return {"name": name, "broken": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
