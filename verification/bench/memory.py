"""Peak memory of tensors during a call, from the allocator's own record."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler talks on the error stream otherwise


def peak_bytes(action: Callable[[], Any], device: torch.device | None = None) -> int:
    """Largest sum of live tensor bytes that `action` adds to what was there, exact and independent of the system.

    On the CPU the profiler reports every allocation and release of torch; on CUDA the allocator keeps the peak.
    """
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorder:
        action()
    live = peak = 0
    events = recorder.profiler.kineto_results.events()  # type: ignore[union-attr]
    moments = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    for _, size in moments:
        live += size
        peak = max(peak, live)
    return peak
