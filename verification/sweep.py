"""Sweeps: one function over many points, on one process, all cores or a cluster, with the same results."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from verification.errors import UserError

T = TypeVar("T")


def sweep(function: Callable[..., T], points: Iterable[Sequence[Any]], *, jobs: int | None = None) -> list[T]:
    """Call `function(*point)` for each point; results in the order of the points.

    The engine is joblib: all cores by default, and whatever back end is configured around the call, so that

        with dask.distributed.Client(address), joblib.parallel_config(backend="dask"):
            sweep(function, points)

    runs the same sweep on a cluster. Results do not depend on where they were computed, as long as `function` takes
    its randomness from its arguments.

    Args:
        function: importable (a function of a module), so that other processes find it.
        points: arguments, one tuple a call.
        jobs: processes; None for all cores (or all workers of the configured cluster), 1 for none but this one.

    Raises:
        UserError: more than one job is asked for and joblib is not installed.
    """
    todo = list(points)
    if jobs == 1 or len(todo) < 2:
        return [function(*point) for point in todo]
    try:
        joblib = importlib.import_module("joblib")
    except ImportError:
        raise UserError("a sweep on several cores needs joblib: pip install 'deqproof[cluster]', or take jobs=1") \
            from None
    return joblib.Parallel(n_jobs=-1 if jobs is None else jobs)(joblib.delayed(function)(*point) for point in todo)
