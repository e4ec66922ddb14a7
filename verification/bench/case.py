"""What a benchmark is: sizes, a builder of contestants for each, a truth that they are held against, and a floor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import torch
from torch import Tensor


class Role(StrEnum):
    """What a contestant is to the reader of the table."""

    OURS = "ours"
    BASELINE = "baseline"
    PEER = "peer"


class Absent(Exception):
    """A peer, a device or data that is not at hand; listed in the table, not an error."""


@dataclass(frozen=True)
class Settings:
    """How a run measures.

    Attributes:
        repeats: timed calls of each contestant, after the warm-up.
        warmups: calls before.
        seconds: a contestant whose repeats would take longer makes fewer, at least three.
        dtype: of the problem.
        device: where it runs.
        threads: of torch and of the worker processes.
        largest: sizes above are left out; None for all.
        smallest: sizes below are left out.
        clock: "wall", or "cpu" for the processor time of all threads, which other programs on the machine disturb less.
    """

    repeats: int = 11
    warmups: int = 2
    seconds: float = 20.0
    dtype: torch.dtype = torch.float64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 2
    largest: float | None = None
    smallest: float = 0
    clock: Literal["wall", "cpu"] = "wall"


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    Attributes:
        name: as in the table.
        role: ours, a baseline or a peer.
        run: does the work once and returns its result as a flat tensor.
        clock: runs it once and returns seconds, where that is measured elsewhere (a worker process); None to time
            `run` here.
        approximate: known not to be exact; its error is shown and is no failure of the check.
        note: a few words.
    """

    name: str
    role: Role
    run: Callable[[], Tensor]
    clock: Callable[[], float] | None = None
    approximate: bool = False
    note: str = ""

    def seconds(self, clock: Literal["wall", "cpu"] = "wall") -> float:
        """Time of one call."""
        if self.clock is not None:
            return self.clock()
        now = time.perf_counter if clock == "wall" else time.process_time
        start = now()
        result = self.run()
        if result.is_cuda:
            torch.cuda.synchronize()
        return now() - start


@dataclass(frozen=True)
class Work:
    """The least that any method has to do: what the floor is computed from.

    Attributes:
        operations: additions and multiplications in matrix products and factorisations.
        bytes: read and written once each.
        says: how they were counted.
    """

    operations: float
    bytes: float
    says: str = ""


@dataclass(frozen=True)
class Round:
    """A benchmark at one size: all that take part, and what they are checked with.

    Attributes:
        contestants: in the order of the table; they take turns.
        truth: right answer, flat, from something independent of all contestants.
        tolerance: relative 2-norm that separates right from wrong.
        work: for the floor.
        absent: names of those who cannot take part, with the reason.
        memory: whether the peak memory of those that run here is measured too.
        close: to be called at the end (worker processes).
        facts: numbers to keep beside the times (spectral radius, iterations).
    """

    contestants: Sequence[Contestant]
    truth: Tensor
    tolerance: float
    work: Work
    absent: Mapping[str, str] = field(default_factory=dict)
    memory: bool = False
    close: Callable[[], None] = lambda: None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """One line of `deqproof bench --list`.

    Attributes:
        name: on the command line.
        title: a line.
        size: what the sizes count, with its symbol.
        sizes: in increasing order.
        build: the round for a size.
        baseline: the contestant that ratios are taken against.
        about: what is measured, how the truth was got; a paragraph of the report.
        wanted: (contestant, most, against): ratios that the project aims at.
    """

    name: str
    title: str
    size: str
    sizes: Sequence[int]
    build: Callable[[int, Settings], Round]
    baseline: str
    about: str
    wanted: Sequence[tuple[str, float, str]] = ()
