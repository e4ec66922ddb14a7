"""The standard Gaussians of [SM] table 3, whose score and log-likelihood are known."""

from __future__ import annotations

import math

import torch

from deq.data.tabular import Tabular

SIZES = {"released": (4860, 540, 600), "paper": (4860, 600, 540)}


def load_gaussian(dimension: int, *, seed: int = 0, split: str = "released") -> Tabular:
    """Samples of N(0, I_d), float64; 4860 / 540 / 600 rows as released, 4860 / 600 / 540 as printed.

    Raises:
        ValueError: `dimension` is not positive, or the split is unknown.
    """
    if dimension < 1:
        raise ValueError(f"dimension must be positive, got {dimension}")
    if split not in SIZES:
        raise ValueError(f"split must be one of {sorted(SIZES)}, got {split!r}")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(sum(SIZES[split]), dimension, generator=generator, dtype=torch.float64)
    return Tabular(f"gaussian-{dimension}", *rows.split(SIZES[split]))


def expected_log_likelihood(dimension: int) -> float:
    """`E log p(x)` of N(0, I_d) under itself: minus its entropy, `-(d/2)(log 2 pi + 1)`."""
    return -0.5 * dimension * (math.log(2 * math.pi) + 1)
