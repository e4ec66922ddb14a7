"""Filling the kernel matrices of a DEQ block by block: fresh memory is what costs, so there is as little as can be."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.kernels.blocks import for_each_block
from analysis.kernels.homogeneous import AngleMap, angle_map
from analysis.kernels.kernel_map import KernelMap

Array = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
_MOST_STEPS = 200
_WORTH = 64  # below this many samples the angle map costs more than it saves


class FixedPointNotReached(ArithmeticError):
    """An off-diagonal entry of the kernel did not converge."""


@dataclass(frozen=True)
class Fill:
    """What is to be filled.

    Attributes:
        kernel_map: of the activation at the equilibrium deviations.
        x: distinct samples, [p, n].
        norms: their squared norms, [n].
        variance: of the pre-activations, [n].
        a2: sigma_a^2.
        b2: sigma_b^2.
        tolerance: relative, of the fixed point.
        inputs_trained: whether the tangent kernel counts B.
    """

    kernel_map: KernelMap
    x: Array
    norms: Array
    variance: Array
    a2: float
    b2: float
    tolerance: float
    inputs_trained: bool


@dataclass
class Filled:
    """The matrices, [n, n], and what was seen on the way: residual relative to sd_i sd_j, extremes, steps."""

    ck: Array
    ntk: Array
    slope: Array
    residual: float = 0.0
    steepest: float = 0.0
    sine: float = 1.0
    steps: int = 1


def fill(task: Fill) -> Filled:
    """All entries of both kernels and of the slopes.

    Raises:
        FixedPointNotReached: an entry did not converge.
    """
    count = len(task.norms)
    out = Filled(np.empty((count, count)), np.empty((count, count)), np.empty((count, count)))
    known, a2, b2 = task.kernel_map, task.a2, task.b2
    angles = _angles(task)
    safe = np.maximum(task.variance, 1e-200)
    lock = threading.Lock()
    local = threading.local()
    with np.errstate(divide="ignore"):
        inverse = np.where(task.norms > 0, 1 / np.sqrt(np.where(task.norms > 0, task.norms, 1.0)), 0.0)

    def by_angle(gram: Array, rows: slice, columns: slice) -> tuple[Array, Array, Array, int, float, float]:
        buffers = _buffers(local, gram.shape)
        cosine = buffers[0]
        np.multiply(gram, inverse[rows, None], out=cosine)
        cosine *= inverse[None, columns]
        np.clip(cosine, -1.0, 1.0, out=cosine)
        off = np.abs(cosine) if rows != columns else np.abs(cosine - np.eye(len(cosine)) * cosine)
        largest = float(off.max(initial=0.0))
        np.arccos(cosine, out=cosine)
        value, slope = angles.at(cosine, buffers[1:])  # type: ignore[union-attr]
        value *= known.sd[rows, None]
        value *= known.sd[None, columns]
        return value, slope, buffers[0], 1, 2 * _EPS, largest

    def by_newton(gram: Array, rows: slice, columns: slice) -> tuple[Array, Array, Array, int, float, float]:
        value, slope, s, taken, residual = solve_block(known, rows, columns, gram, safe, a2, b2, task.tolerance)
        size = np.abs(s)
        size /= np.sqrt(safe[rows, None])
        size /= np.sqrt(safe[None, columns])
        if rows == columns:
            np.fill_diagonal(size, 0.0)
        return value, slope, s, taken, residual, float(size.max(initial=0.0))

    def work(rows: slice, columns: slice) -> None:
        gram = task.x[:, rows].T @ task.x[:, columns]
        value, slope, spare, taken, residual, largest = (by_angle if angles else by_newton)(gram, rows, columns)
        if rows == columns:
            np.fill_diagonal(value, known.second[rows])
            np.fill_diagonal(slope, known.derivative_square[rows])
            np.fill_diagonal(gram, task.norms[rows])
        _mirror(out.ck, rows, columns, value)
        _mirror(out.slope, rows, columns, slope)
        if task.inputs_trained:
            gram *= slope
            gram *= b2
            value += gram
        if a2 > 0:
            np.multiply(slope, -a2, out=spare)
            spare += 1
            value /= spare
        _mirror(out.ntk, rows, columns, value)
        with lock:
            out.steps, out.residual = max(out.steps, taken), max(out.residual, residual)
            out.steepest = max(out.steepest, float(slope.max()), -float(slope.min()))
            out.sine = min(out.sine, float(np.sqrt(max(1 - largest**2, _EPS))))

    for_each_block(count, work)
    silent = (task.variance == 0) & (float(known.activation.value(np.zeros(1))[0]) == known.shift)
    if silent.any():  # phi(0) = 0 at equilibrium: the kernels are 0 and not 1e-100
        for matrix in (out.ck, out.ntk):
            matrix[silent] = matrix[:, silent] = 0.0
        safe = np.where(silent, np.inf, safe)
    own = np.abs(a2 * known.second + b2 * task.norms - task.variance) / safe
    out.residual = max(out.residual, float(own.max()))
    return out


def _angles(task: Fill) -> AngleMap | None:
    """The angle map of a two-sloped activation; None for others and for small matrices."""
    form = task.kernel_map.form
    if len(task.norms) < _WORTH or task.b2 == 0 or task.kernel_map.shift or not form:
        return None
    if form[0] not in ("relu", "two_slopes"):
        return None
    positive, negative = form[1:] or (1.0, 0.0)
    return angle_map(positive, negative, task.a2)


def _buffers(local: threading.local, shape: tuple[int, ...]) -> list[Array]:
    """Six arrays of a block's shape that a thread keeps."""
    if getattr(local, "shape", None) != shape:
        local.shape, local.arrays = shape, [np.empty(shape) for _ in range(6)]
    arrays: list[Array] = local.arrays
    return arrays


def _mirror(target: Array, rows: slice, columns: slice, block: Array) -> None:
    target[rows, columns] = block
    if rows != columns:
        target[columns, rows] = block.T


def _start(kernel_map: KernelMap, rows: slice, columns: slice, drive: Array, limit: Array, a2: float) -> Array:
    """Where Newton begins: the tangent at independence, and near a line that at equal points."""
    mean, size = kernel_map.mean - kernel_map.shift, kernel_map.size
    s = drive + a2 * mean[rows, None] * mean[None, columns]
    if a2 > 0 and np.isfinite(kernel_map.slope_product):
        s /= 1 - a2 * kernel_map.slope_product
        near = np.flatnonzero(s > 0.9 * limit)
        if near.size:
            i, j = np.unravel_index(near, s.shape)
            top = limit[i, j]
            gap = top - a2 * size[rows][i] * size[columns][j] - drive[i, j]
            steep = kernel_map.slope[rows][i] * kernel_map.slope[columns][j]
            s[i, j] = top - gap / np.maximum(1 - a2 * steep, 1e-3)
    return np.clip(s, -limit, limit, out=s)


def solve_block(kernel_map: KernelMap, rows: slice, columns: slice, gram: Array, variance: Array, a2: float, b2: float,
                tolerance: float) -> tuple[Array, Array, Array, int, float]:
    """Newton on every off-diagonal entry of a block; entries on the matrix diagonal are left to the caller.

    The residual that comes back is relative to the deviations, sd_i sd_j, of each entry.
    """
    limit = np.sqrt(variance[rows, None]) * np.sqrt(variance[None, columns])
    on_diagonal = None
    if rows == columns:
        on_diagonal = np.eye(gram.shape[0], dtype=bool)
    drive = b2 * gram
    if on_diagonal is not None:
        drive[on_diagonal] = 0.0
    s = _start(kernel_map, rows, columns, drive, limit, a2)
    noise = 0.5 * a2 * kernel_map.value_errors(rows, columns)
    best = last = np.inf
    for step in range(1, _MOST_STEPS + 1):
        value, derivative = kernel_map.block(rows, columns, s, verify=step == 1)
        gap = value * a2
        gap += drive
        gap -= s
        if on_diagonal is not None:
            gap[on_diagonal] = 0.0
        excess = np.abs(gap)
        residual = float((excess / limit).max(initial=0.0))
        excess -= noise
        excess /= limit
        worst = float(excess.max(initial=0.0))
        # to rounding if a step or two gives it (they square the residual), else to the tolerance
        if worst <= 8 * _EPS or (worst <= tolerance and residual > 0.3 * last):
            return value, derivative, s, step, residual
        newton = step <= 12 or residual < best
        best, last = min(best, residual), residual
        if newton and a2 > 0:
            derivative *= -a2
            derivative += 1
            gap /= np.maximum(derivative, 1e-3, out=derivative)
        s += gap
        np.clip(s, -limit, limit, out=s)
    raise FixedPointNotReached(f"a kernel entry still moves by {residual:.3g} of its size after {_MOST_STEPS} steps; "
                               "the DEQ is at the edge of well-posedness: take a smaller sigma_a2")
