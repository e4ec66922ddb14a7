"""Peak memory and time of a training step, on CPU and CUDA.

Memory is counted in bytes of live tensor storage above what lived before the step, so parameters do not blur the
comparison. On CUDA the allocator keeps the count. On CPU every storage that an operation creates is followed until it
is freed: exact for tensors, blind to scratch space inside a kernel (a convolution's workspace, say).

Time is the median over repeated steps after warm-up, with the quartiles; CUDA is synchronised before each reading.
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from deq.interop.private import TorchDispatchMode, tree_leaves


@dataclass(frozen=True)
class StepCost:
    """What one step costs.

    Attributes:
        seconds: median time.
        seconds_low, seconds_high: quartiles.
        repeats: timed steps.
        cpu_seconds: median processor time of this process, which other work on the machine disturbs less.
        peak_bytes: most live bytes above the start of the step.
        device: where.
    """

    seconds: float
    seconds_low: float
    seconds_high: float
    repeats: int
    cpu_seconds: float
    peak_bytes: int
    device: str


class StorageTracker(TorchDispatchMode):
    """Follows every storage created inside the block and keeps the highest total, `peak`, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def _watch(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and watch what it returns, its inputs' storages (views, in-place) excepted."""
        kwargs = kwargs or {}
        before = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **kwargs)
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in before:
                self._watch(leaf)
        return out


def peak_memory(step: Callable[[], Any], device: str | torch.device = "cpu") -> int:
    """Most bytes alive during `step()`, above what was alive before."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        start = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - start
    with StorageTracker() as tracker:
        step()
    return tracker.peak


def measure_step(step: Callable[[], Any], device: str | torch.device = "cpu", *, repeats: int = 10,
                 warmup: int = 2) -> StepCost:
    """Time `step()` and find its peak memory (in a separate, untimed call: watching memory slows it down).

    Raises:
        ValueError: fewer than two repeats, which have no quartiles.
    """
    if repeats < 2:
        raise ValueError(f"need at least two repeats for quartiles, not {repeats}")
    device = torch.device(device)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for _ in range(warmup):
        step()
    times, used = [], []
    for _ in range(repeats):
        start, processor = clock(), time.process_time()
        step()
        times.append(clock() - start)
        used.append(time.process_time() - processor)
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return StepCost(middle, low, high, repeats, statistics.median(used), peak_memory(step, device), str(device))
