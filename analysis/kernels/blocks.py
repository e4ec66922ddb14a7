"""Symmetric matrices by blocks of the upper triangle, on threads (numpy gives the interpreter lock free)."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

BLOCK = 192  # three float64 arrays of this size fit a core's second-level cache


def triangle(count: int, block: int = BLOCK) -> list[tuple[slice, slice]]:
    """Row and column slices of the blocks on and above the diagonal."""
    parts = [slice(start, min(start + block, count)) for start in range(0, count, block)]
    return [(rows, columns) for n, rows in enumerate(parts) for columns in parts[n:]]


def for_each_block(count: int, work: Callable[[slice, slice], None], *, workers: int | None = None) -> None:
    """Call `work(rows, columns)` for every block of the triangle; the first exception is raised."""
    tasks = triangle(count)
    workers = min(len(tasks), workers or min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                                             else os.cpu_count() or 1))
    if workers <= 1:
        for rows, columns in tasks:
            work(rows, columns)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda task: work(*task), tasks):
            pass
