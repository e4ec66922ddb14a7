"""Peak memory and time of a training step, on CPU and CUDA.

Memory is counted in bytes of live tensor storage above what lived before the step, so parameters do not blur the
comparison. On CUDA the allocator keeps the count, on a CPU torch's profiler sees every allocation and release, scratch
space inside a kernel (a convolution's workspace, say) included.

Time is the median over repeated steps after warm-up, with the quartiles; CUDA is synchronised before each reading.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler talks on the error stream otherwise


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


def peak_memory(step: Callable[[], Any], device: str | torch.device = "cpu") -> int:
    """Most bytes of tensors alive during `step()`, above what was alive before; exact and independent of the system.

    On CUDA the allocator keeps the peak; on the CPU the profiler reports every allocation and release of torch.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        start = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - start
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorder:
        step()
    live = peak = 0
    events = recorder.profiler.kineto_results.events()  # type: ignore[union-attr]
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        live += size
        peak = max(peak, live)
    return peak


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
