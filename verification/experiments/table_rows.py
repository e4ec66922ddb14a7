"""Rows of a table trained several times, compared: one model's loss beside each of the others'."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from verification.evidence import Outcome
from verification.paper_tables import comparable, load_cells, numbers_of

#: Explicit depths of a table, and what each is compared with.
EXPLICIT = ("sm", "sm-8", "sm-16")
EQUILIBRIUM = "deq-sm"


@dataclass(frozen=True)
class Gap:
    """Difference of the means of two rows, first minus second.

    Attributes:
        mean: of the difference.
        half_width: of Welch's interval, which allows unequal variances.
    """

    mean: float
    half_width: float

    @property
    def below(self) -> Outcome:
        """Whether the first is lower: the interval lies below zero, above it, or has it inside."""
        if self.mean + self.half_width < 0:
            return Outcome.HOLDS
        return Outcome.FAILS if self.mean - self.half_width > 0 else Outcome.UNKNOWN


def welch(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Gap:
    """The gap of two samples of runs, with its interval at `level`.

    Raises:
        ValueError: fewer than two values in one of them.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"an interval needs two runs a row at least, got {len(first)} and {len(second)}")
    mean = float(np.mean(first) - np.mean(second))
    if not (np.ptp(first) or np.ptp(second)):
        return Gap(mean, 0.0)
    with warnings.catch_warnings():
        # A row whose seeds agree in every digit is no error: the other's spread is the interval's.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        ends = stats.ttest_ind(first, second, equal_var=False).confidence_interval(level)
    return Gap(mean, float(ends.high - ends.low) / 2)


def row_cells(path: Path, row: str) -> list[dict[str, Any]]:
    """Finished runs of a row that can be compared, one a seed."""
    return comparable([cell for cell in load_cells(path) if cell["row"] == row and "numbers" in cell])


def exact_loss(cell: dict[str, Any]) -> float:
    """The loss under exact derivatives, which for an explicit model is its loss."""
    return numbers_of(cell)["test_sm_loss_exact"]


def own_loss(cell: dict[str, Any]) -> float:
    """The loss by the model's own derivatives."""
    return float(cell["numbers"]["test_sm_loss"])
