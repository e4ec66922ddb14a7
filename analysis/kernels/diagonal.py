r"""Variances at equilibrium: s = sigma_a^2 E phi(sqrt(s) xi)^2 + drive, one scalar equation per sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.activations import Activation
from analysis.errors import NoSolution
from analysis.gaussian.fixed_points import Curve, polish, scan
from analysis.gaussian.moments import form_of, moments_at

Array = NDArray[np.float64]

_SPAN = 1e8


def second_moment(activation: Activation, shift: float = 0.0) -> Curve:
    """h(s) = E (phi(sqrt(s) xi) - shift)^2 and its derivative, as a function of s."""
    def curve(s: Array) -> tuple[Array, Array]:
        sd = np.sqrt(s)
        at = moments_at(activation, sd, form=form_of(activation, float(sd.max())), steepness=False)
        return at.second(shift), at.second_slope(shift)

    return curve


def solve_diagonal(activation: Activation, a2: float, drive: Array, *, shift: float = 0.0) -> Array:
    """The least fixed point of every sample's variance, which iteration from 0 approaches, [n].

    Args:
        activation: phi, not centred.
        a2: sigma_a^2.
        drive: sigma_b^2 |x_i|^2, [n].
        shift: the constant taken from phi.

    Raises:
        NoSolution: the gap keeps its sign up to a hundred million times the drive.
        GrowsTooFast: phi's moments do not exist at the variances that are met.
    """
    if a2 == 0:
        return drive.copy()
    points, inverse = np.unique(drive, return_inverse=True)
    at_zero = float(activation.value(np.zeros(1))[0] - shift) ** 2
    result = np.zeros(len(points))
    # Without drive and with phi(0) = 0 the least fixed point is 0 itself.
    driven = np.flatnonzero(points + a2 * at_zero > 0)
    if not driven.size:
        return result[inverse]
    wanted = points[driven]
    curve = second_moment(activation, shift)
    start = float(wanted.min() if wanted.min() > 0 else a2 * at_zero)
    if wanted.min() == 0:  # s >= a2 inf h: start where the level is still below 0
        for _ in range(60):
            if start <= a2 * float(curve(np.array([start]))[0][0]):
                break
            start *= 0.5
    scale = max(float(wanted.max()), a2 * at_zero)
    seen = scan(curve, a2, start, _SPAN * scale, enough=float(wanted.max()))
    low, high, there = seen.first_bracket(wanted)
    if not there.all():
        if seen.stopped is not None:
            raise seen.stopped
        raise NoSolution(
            f"sigma_a2 = {a2:g} is too large for {activation.name}: the variance of the pre-activations has no "
            f"fixed point up to {_SPAN * scale:.3g} (sigma_a^2 E phi^2 outgrows it); take a smaller sigma_a2")
    result[driven] = polish(curve, a2, wanted, low, high)
    return result[inverse]


def centring_shift(activation: Activation, a2: float, drive: float) -> float:
    """E phi(tau xi) at [RMT]'s tau, the least root of tau^2 = sigma_a^2 Var phi(tau xi) + sigma_b^2 tau_0^2.

    Args:
        activation: phi.
        a2: sigma_a^2.
        drive: sigma_b^2 tau_0^2.

    Raises:
        NoSolution: there is no root up to a hundred million times the drive.
    """
    def curve(s: Array) -> tuple[Array, Array]:
        sd = np.sqrt(s)
        at = moments_at(activation, sd, form=form_of(activation, float(sd.max())), steepness=False)
        return at.variance, 0.5 * at.square_curvature

    s = np.array([drive])
    if a2 > 0 and drive > 0:
        seen = scan(curve, a2, drive, _SPAN * drive, enough=drive)
        low, high, there = seen.first_bracket(s)
        if not there[0]:
            if seen.stopped is not None:
                raise seen.stopped
            raise NoSolution(f"sigma_a2 = {a2:g} is too large for centred {activation.name}: "
                             "the tau equation has no root; take a smaller sigma_a2")
        s = polish(curve, a2, s, low, high)
    return float(moments_at(activation, np.sqrt(s)).mean[0])
