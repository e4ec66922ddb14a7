"""What the machine can do, measured in the same run: matrix throughput and memory bandwidth."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from verification.bench.case import Settings, Work


@dataclass(frozen=True)
class Machine:
    """Measured rates.

    Attributes:
        operations: additions and multiplications a second in a square matrix product.
        bandwidth: bytes a second of a copy that fits no cache (read and written).
    """

    operations: float
    bandwidth: float

    def floor(self, work: Work) -> float:
        """Seconds below which the work cannot be done at these rates: the larger of the two bounds."""
        return max(work.operations / self.operations, work.bytes / self.bandwidth)


def measure_machine(settings: Settings, *, size: int = 1024, megabytes: int = 256, repeats: int = 5) -> Machine:
    """Best of a few repeats: a floor must not be raised by other programs on the machine."""
    a = torch.randn(size, size, dtype=settings.dtype, device=settings.device)
    elements = megabytes * 2**20 // a.element_size() // 2
    source = torch.ones(elements, dtype=settings.dtype, device=settings.device)
    target = torch.empty_like(source)
    out = torch.empty_like(a)
    product = min(_seconds(lambda: torch.mm(a, a, out=out), settings.device) for _ in range(repeats + 1))
    copy = min(_seconds(lambda: target.copy_(source), settings.device) for _ in range(repeats + 1))
    return Machine(2.0 * size**3 / product, 2.0 * source.nbytes / copy)


def _seconds(action, device: torch.device) -> float:  # type: ignore[no-untyped-def]
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
