"""Runs a benchmark: check first, then time all contestants in turns, then tell what was found."""

from __future__ import annotations

import gc
import statistics
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deq.evaluation.measure import peak_memory
from verification.bench.case import Absent, Benchmark, Contestant, Role, Round, Settings
from verification.bench.floor import Machine

Say = Callable[[str], None]


def run_benchmark(benchmark: Benchmark, settings: Settings, machine: Machine, say: Say = lambda line: None
                  ) -> dict[str, Any]:
    """Measure every size; the result is the benchmark's record.

    Contestants whose answer misses the tolerance are timed all the same and marked wrong: what the wrong ones cost is
    part of the picture. One that raises is shown with its error.
    """
    torch.set_num_threads(settings.threads)
    rows, rounds = [], []
    for size in benchmark.sizes:
        if size < settings.smallest or (settings.largest is not None and size > settings.largest):
            continue
        say(f"{benchmark.name}: {benchmark.size} = {size}")
        try:
            current = benchmark.build(size, settings)
        except Absent as reason:
            rounds.append({"size": size, "absent": {"all": str(reason)}})
            continue
        try:
            rows += _measure(current, size, settings, benchmark.baseline)
            rounds.append({"size": size, "floor": machine.floor(current.work), "operations": current.work.operations,
                           "bytes": current.work.bytes, "counted": current.work.says, "absent": dict(current.absent),
                           "tolerance": current.tolerance, **current.facts})
        finally:
            current.close()
    return {"name": benchmark.name, "title": benchmark.title, "size": benchmark.size, "about": benchmark.about,
            "baseline": benchmark.baseline, "rows": rows, "rounds": rounds, "wanted": _wanted(benchmark, rows),
            "threads": settings.threads, "clock": settings.clock, "dtype": str(settings.dtype).removeprefix("torch."),
            "device": str(settings.device)}


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Relative 2-norm."""
    found = found.detach().double().cpu().flatten()
    truth = truth.detach().double().cpu().flatten()
    if found.shape != truth.shape:
        raise ValueError(f"the answer has {len(found)} numbers where the truth has {len(truth)}")
    return float((found - truth).norm() / truth.norm())


def _measure(current: Round, size: int, settings: Settings, baseline: str) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    running: list[Contestant] = []
    for contestant in current.contestants:
        row: dict[str, Any] = {"size": size, "name": contestant.name, "role": contestant.role, "note": contestant.note,
                               "seconds": [], "error": None, "right": None, "problem": None, "peak_bytes": None}
        rows[contestant.name] = row
        try:
            row["error"] = relative_error(contestant.run(), current.truth)
            row["right"] = row["error"] <= current.tolerance
            row["approximate"] = contestant.approximate
            if current.memory and contestant.clock is None:
                row["peak_bytes"] = peak_memory(contestant.run, settings.device)
            running.append(contestant)
        except Exception as error:  # a peer that cannot do the work is a finding
            row["problem"] = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
            if contestant.role is Role.OURS:
                row["problem"] += "\n" + traceback.format_exc()
    left = {contestant.name: settings.repeats for contestant in running}
    for contestant in running:
        for _ in range(settings.warmups):
            seconds = contestant.seconds(settings.clock)
        left[contestant.name] = max(3, min(settings.repeats, int(settings.seconds / max(seconds, 1e-9))))
    gc.collect()
    gc.disable()  # a collection in somebody's turn would be charged to him
    try:
        while any(left.values()):
            for contestant in running:
                if left[contestant.name]:
                    left[contestant.name] -= 1
                    rows[contestant.name]["seconds"].append(contestant.seconds(settings.clock))
    finally:
        gc.enable()
    for row in rows.values():
        row.update(summary(row["seconds"]))
    base = rows.get(baseline, {}).get("median")
    for row in rows.values():
        row["ratio"] = row["median"] / base if base and row["median"] is not None else None
    return list(rows.values())


def summary(seconds: list[float]) -> dict[str, float | None]:
    """Median and quartiles."""
    if not seconds:
        return {"median": None, "low": None, "high": None}
    if len(seconds) == 1:
        return {"median": seconds[0], "low": seconds[0], "high": seconds[0]}
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def _wanted(benchmark: Benchmark, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each aimed ratio, what came out at each size."""
    found = []
    medians = {(row["size"], row["name"]): row["median"] for row in rows}
    for name, most, against in benchmark.wanted:
        for size in dict.fromkeys(row["size"] for row in rows):
            ours, theirs = medians.get((size, name)), medians.get((size, against))
            if ours and theirs:
                found.append({"size": size, "name": name, "against": against, "most": most, "ratio": ours / theirs,
                              "met": ours <= most * theirs})
    return found
