"""When a course of readings is a reason to warn: rules as data, each with its number, its course and its remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deq.watching.measure import Reading

__all__ = ["RULES", "Rule", "Warned", "gathers_speed", "judge"]


@dataclass(frozen=True)
class Warned:
    """A warning.

    Attributes:
        step: of training.
        rule: its name.
        text: the number, its course and the remedy.
    """

    step: int
    rule: str
    text: str


@dataclass(frozen=True)
class Rule:
    """One reason to warn.

    Attributes:
        name: of the number.
        value: reads it.
        above: the level from which it is a fault; it must be passed at two readings running, one may be a batch.
        ahead: or None; the level that a number which gathers speed must be about to reach (see `gathers_speed`).
        remedy: what to do.
    """

    name: str
    value: Callable[[Reading], float]
    above: float
    ahead: float | None
    remedy: str


RULES = (
    Rule("residual", lambda r: r.residual, 3e-2, None,
         "the solver no longer reaches an equilibrium: raise max_iter or take a sturdier solver, and refuse what does "
         "not converge"),
    Rule("spectral radius", lambda r: r.radius, 1.0, None,
         "plain iteration runs away from the equilibrium: bound the weights (deq.operator_normalize) or penalise J "
         "(deq.jacobian_penalty)"),
    Rule("bias of the truncated gradient", lambda r: r.bias, 0.6, 0.3,
         "training follows its own error from here: take more steps or deq.Exact, and hold the loss against exact "
         "derivatives"),
)
#: Readings from which a course is fitted, the share of the level that must be reached already, and the standard errors
#: by which the curvature must exceed 0.
WINDOW, REACHED, CERTAIN = 10, 1 / 3, 4.0


def judge(readings: Sequence[Reading]) -> list[Warned]:
    """Warnings for the newest of the readings."""
    if not readings:
        return []
    newest, out = readings[-1], []
    for rule in RULES:
        values = [rule.value(reading) for reading in readings]
        now = values[-1]
        reason = ""
        if not now <= rule.above and len(values) > 1 and not values[-2] <= rule.above:  # NaN counts as above
            reason = f"is {now:.3g}, above {rule.above:g}"
        elif rule.ahead is not None and now >= REACHED * rule.ahead:
            steps = [reading.step for reading in readings]
            at = gathers_speed(steps, values, rule.ahead)
            if at is not None:
                reason = f"is {now:.3g} and grows faster and faster; {rule.ahead:g} is ahead at step {at}"
        if reason:
            course = ", ".join(f"{value:.3g}" for value in values[-6:])
            out.append(Warned(newest.step, rule.name, f"step {newest.step}: the {rule.name} {reason} (last readings: "
                              f"{course}); {rule.remedy}"))
    return out


def gathers_speed(steps: Sequence[int], values: Sequence[float], level: float) -> int | None:
    """The step at which a number will pass `level`, if its logarithm bends upwards for certain; else None.

    A parabola is fitted to the last logarithms. Numbers that grow and settle, as those of a healthy training, bend
    downwards; one that feeds on itself bends upwards. It must get to the level within twice the time that was fitted.

    Example:
        >>> gathers_speed(range(10), [0.1 * 1.02 ** (k * k / 2) for k in range(10)], 0.3) is not None
        True
        >>> gathers_speed(range(10), [0.1 * (2 - 0.8 ** k) for k in range(10)], 0.3) is None
        True
    """
    if len(values) < WINDOW:
        return None
    x = np.asarray(steps[-WINDOW:], dtype=float)
    y = np.asarray(values[-WINDOW:], dtype=float)
    if not (np.isfinite(y).all() and (y > 0).all()) or x[0] == x[-1]:
        return None
    span = x[-1] - x[0]
    t, y = (x - x[-1]) / span, np.log(y)
    design = np.stack([np.ones_like(t), t, t * t], 1)
    fit, *_ = np.linalg.lstsq(design, y, rcond=None)
    left = y - design @ fit
    error = np.sqrt(left @ left / (len(t) - 3) * np.linalg.inv(design.T @ design)[2, 2])
    bend, slope = float(fit[2]), float(fit[1])
    if bend <= CERTAIN * error or bend <= 0.02 or slope <= 0:
        return None
    ahead = np.linspace(0, 2, 81)
    passed = np.nonzero(fit[0] + slope * ahead + bend * ahead**2 >= np.log(level))[0]
    return int(round(x[-1] + span * float(ahead[passed[0]]))) if len(passed) else None
