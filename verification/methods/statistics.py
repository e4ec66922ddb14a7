"""Tests with their false-alarm rate fixed beforehand: Holm over a table, McNemar on shared images, equivalence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from verification.evidence import Outcome

#: Chance of one false alarm in a whole table.
LEVEL = 0.05


def holm(chances: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of several null hypotheses Holm's step-down procedure rejects; false alarms in all at most `level`.

    Usage: `holm([0.001, 0.04, 0.5])` gives `[True, False, False]`.
    """
    order = sorted(range(len(chances)), key=lambda index: (math.isnan(chances[index]), chances[index]))
    rejected = [False] * len(chances)
    for rank, index in enumerate(order):
        if not chances[index] <= level / (len(chances) - rank):
            break
        rejected[index] = True
    return rejected


@dataclass(frozen=True)
class PairedAccuracy:
    """Two classifiers on the same images.

    Attributes:
        difference: accuracy of the first minus that of the second.
        half_width: of the paired interval at the level asked for.
        first_only, second_only: images that one alone got right.
        chance: McNemar's exact chance of so uneven a split, were both equally accurate.
    """

    difference: float
    half_width: float
    first_only: int
    second_only: int
    chance: float


def paired_accuracy(first: ArrayLike, second: ArrayLike, level: float = 1 - LEVEL) -> PairedAccuracy:
    """Compare hits on the same images: `[count]` or `[seeds, count]`, booleans.

    With several seeds an image counts with its mean over them: seeds share the images, so they are no new ones. The
    chance is then that of the first seed alone.

    Raises:
        ValueError: shapes that differ.
    """
    a, b = np.atleast_2d(np.asarray(first, dtype=float)), np.atleast_2d(np.asarray(second, dtype=float))
    if a.shape != b.shape:
        raise ValueError(f"hits of shapes {a.shape} and {b.shape} are not paired")
    gaps = (a - b).mean(0)
    alone = int(((a[0] - b[0]) > 0).sum()), int(((b[0] - a[0]) > 0).sum())
    chance = float(stats.binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0
    half = float(stats.norm.ppf(0.5 + level / 2) * gaps.std(ddof=1) / np.sqrt(gaps.size))
    return PairedAccuracy(float(gaps.mean()), half, *alone, chance)


def equivalence(difference: float, half_width: float, margin: float) -> Outcome:
    """Holds: the interval lies within the margin. Fails: it leaves out zero and is not within. Else it cannot tell.

    A NaN cannot tell.
    """
    low, high = difference - half_width, difference + half_width
    if -margin <= low and high <= margin:
        return Outcome.HOLDS
    return Outcome.FAILS if low > 0 or high < 0 else Outcome.UNKNOWN


def power(half_width: float, margin: float, level: float = 1 - LEVEL) -> float:
    """Chance that `equivalence` holds for two that are equal, for an estimate as precise as this half width says."""
    error = half_width / float(stats.norm.ppf(0.5 + level / 2))
    room = margin - half_width
    return 0.0 if not room > 0 else float(2 * stats.norm.cdf(room / error) - 1)
