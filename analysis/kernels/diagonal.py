r"""Variances at equilibrium: s = sigma_a^2 E phi(sqrt(s) xi)^2 + drive, one scalar equation per sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.activations import Activation
from analysis.errors import NoSolution
from analysis.kernels.gaussian_rules import moments, second_moment_and_slope

Array = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)


def _gap(activation: Activation, a2: float, drive: Array, variance: Array) -> tuple[Array, Array]:
    """The gap s - a2 h(s) - drive and its derivative."""
    value, slope = second_moment_and_slope(activation, np.maximum(variance, 1e-200))
    return variance - a2 * value - drive, 1 - a2 * slope


def solve_diagonal(activation: Activation, a2: float, drive: Array) -> Array:
    """The least fixed point of every sample's variance, which iteration from 0 approaches, [n].

    Args:
        activation: phi, centred by the caller if it is to be.
        a2: sigma_a^2.
        drive: sigma_b^2 |x_i|^2, [n].

    Raises:
        NoSolution: the gap keeps its sign up to a hundred million times the drive.
        GrowsTooFast: phi's moments do not exist at the variances that are met.
    """
    if a2 == 0:
        return drive.copy()
    points, inverse = np.unique(drive, return_inverse=True)
    low = points.copy()                      # gap(drive) = -a2 h <= 0
    at_zero = float(np.square(activation.value(np.zeros(1)))[0])
    scale = max(float(points.max()), a2 * at_zero, 1e-12)
    high = np.maximum(points, 1e-30) + 0.25 * scale
    open_ = np.ones(len(points), dtype=bool)
    for _ in range(200):
        gap, _slope = _gap(activation, a2, points[open_], high[open_])
        index = np.flatnonzero(open_)
        low[index[gap <= 0]] = high[index[gap <= 0]]
        high[index[gap <= 0]] += 0.25 * np.maximum(high[index[gap <= 0]], scale)
        open_[index[gap > 0]] = False
        if not open_.any():
            break
        if float(high.max()) > 1e8 * scale:
            raise NoSolution(
                f"sigma_a2 = {a2:g} is too large for {activation.name}: the variance of the pre-activations has no "
                f"fixed point up to {1e8 * scale:.3g} (sigma_a^2 E phi^2 outgrows it); take a smaller sigma_a2")
    s = 0.5 * (low + high)
    for _ in range(200):
        gap, slope = _gap(activation, a2, points, s)
        low, high = np.where(gap <= 0, s, low), np.where(gap >= 0, s, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            trial = s - gap / slope
        new = np.where((trial >= low) & (trial <= high), trial, 0.5 * (low + high))
        moved = np.abs(new - s)
        s = new
        if np.all((moved <= 2 * _EPS * s) | (high - low <= 2 * _EPS * high)):
            break
    return s[inverse]


def centring_shift(activation: Activation, a2: float, drive: float) -> float:
    """E phi(tau xi) at [RMT]'s tau, the least root of tau^2 = sigma_a^2 Var phi(tau xi) + sigma_b^2 tau_0^2.

    Args:
        activation: phi.
        a2: sigma_a^2.
        drive: sigma_b^2 tau_0^2.

    Raises:
        NoSolution: there is no root up to a hundred million times the drive.
    """

    def gap(s: float) -> float:
        found = moments(activation, np.array([np.sqrt(s)]), with_slope=False)
        return s - a2 * float(found.second[0] - found.mean[0] ** 2) - drive

    low = max(drive, 1e-300)
    high = 1.25 * low
    while a2 > 0 and gap(high) < 0:
        low, high = high, 1.25 * high
        if high > 1e8 * max(drive, 1e-12):
            raise NoSolution(f"sigma_a2 = {a2:g} is too large for centred {activation.name}: "
                                        "the tau equation has no root; take a smaller sigma_a2")
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if gap(middle) < 0 else (low, middle)
    return float(moments(activation, np.array([np.sqrt(0.5 * (low + high))]), with_slope=False).mean[0])
