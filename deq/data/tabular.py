"""Tables of real numbers, split and whitened: the data of the deep kernel exponential families."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
RELEASED, PAPER = "released", "70/20/10"


@dataclass(frozen=True)
class Preprocessing:
    """How a table becomes data; defaults are those of the released sliced-score-matching code (MODELS: stated choices).

    Attributes:
        split: "released" (validation and test at most 1000 rows and 10 % each, from the end) or "70/20/10" (the paper).
        whiten_rows: "all" takes mean and rotation from every row, test included (a leak of the released code);
            "train" from the training rows alone.
        noise_scale: standard deviation of the Gaussian noise added once to every row after whitening.
        noise_seed: of that noise and of the dequantisation.
        shuffle_seed: of the row order.
        correlation_limit: columns are dropped until no two correlate by more than this in absolute value.
    """

    split: str = RELEASED
    whiten_rows: str = "all"
    noise_scale: float = 0.05
    noise_seed: int = 1234
    shuffle_seed: int = 2019
    correlation_limit: float = 0.98

    def __post_init__(self) -> None:
        if self.split not in (RELEASED, PAPER):
            raise ValueError(f"split must be {RELEASED!r} or {PAPER!r}, got {self.split!r}")
        if self.whiten_rows not in ("all", "train"):
            raise ValueError(f"whiten_rows must be 'all' or 'train', got {self.whiten_rows!r}")
        if not self.noise_scale >= 0:
            raise ValueError(f"noise_scale must not be negative, got {self.noise_scale}")


@dataclass(frozen=True)
class Tabular:
    """A split data set.

    Attributes:
        name: which.
        train: `[rows, d]`, float64.
        validation: the same.
        test: the same.
        notes: what a reader of a result must know (leaks, stand-ins), a sentence each.
        columns: names of the original columns that were kept.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def dimension(self) -> int:
        """Number of features d."""
        return self.train.shape[1]


def drop_correlated(table: Array, columns: tuple[str, ...], limit: float) -> tuple[Array, tuple[str, ...]]:
    """Remove, one at a time, the first column that correlates with another by more than `limit`."""
    while True:
        correlation = np.abs(np.corrcoef(table, rowvar=False))
        offending = np.flatnonzero((correlation > limit).sum(1) > 1)
        if not len(offending):
            return table, columns
        first = int(offending[0])
        table = np.delete(table, first, axis=1)
        columns = columns[:first] + columns[first + 1:]


def dequantise(table: Array, rng: np.random.RandomState) -> Array:
    """Add U(-1, 1) times the median gap between neighbouring values to each column (twice a quantisation step wide)."""
    gaps = np.array([np.median(np.diff(np.unique(column))) for column in table.T])
    return table + rng.uniform(-1, 1, table.shape) * gaps


def split_sizes(rows: int, split: str) -> tuple[int, int, int]:
    """Rows of train, validation and test."""
    if split == PAPER:
        test, validation = rows // 10, rows // 5
    else:
        test = min(1000, rows // 10)
        validation = min(1000, (rows - test) // 10)
    return rows - test - validation, validation, test


def prepare(name: str, table: Array, columns: tuple[str, ...], options: Preprocessing,
            notes: tuple[str, ...] = ()) -> Tabular:
    """Shuffle, split, PCA-whiten and add noise.

    Raises:
        ValueError: the table has non-finite entries, or too few rows to whiten.
    """
    if not np.isfinite(table).all():
        raise ValueError(f"{name}: the table has {np.count_nonzero(~np.isfinite(table))} non-finite entries")
    order = np.random.RandomState(options.shuffle_seed).permutation(len(table))
    table = table[order]
    sizes = split_sizes(len(table), options.split)
    basis = table if options.whiten_rows == "all" else table[:sizes[0]]
    if len(basis) <= table.shape[1]:
        raise ValueError(f"{name}: {len(basis)} rows do not determine the covariance of {table.shape[1]} columns")
    centre = basis.mean(0)
    # singular values of the rows, not eigenvalues of the covariance: the columns' scales differ by factors of 1e6
    _, singular, rotation = np.linalg.svd(basis - centre, full_matrices=False)
    white = (table - centre) @ rotation.T / (singular / np.sqrt(len(basis)))
    noise = np.random.RandomState(options.noise_seed).standard_normal(white.shape)
    parts = np.split(white + options.noise_scale * noise, np.cumsum(sizes)[:2])
    if options.whiten_rows == "all":
        notes = (*notes, "whitening uses mean and covariance of all rows, test rows included (as the released code)")
    train, validation, test = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    return Tabular(name, train, validation, test, notes, columns)
