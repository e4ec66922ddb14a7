"""Runs the probes apart from this process: some faults kill or hang the process that meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from deq.interop.doctor.faults import FAULTS, Fault
from deq.interop.doctor.probes import LARGEST_ERROR


class State(StrEnum):
    """What a probe found."""

    RIGHT = "right"        # this torch does not have the fault
    WRONG = "wrong"        # a wrong number, without a word
    RAISES = "raises"      # torch refuses with an error
    HANGS = "hangs"        # no answer within the time limit
    CRASHES = "crashes"    # the process that asked was killed
    UNKNOWN = "unknown"    # the probe itself broke


@dataclass(frozen=True)
class Finding:
    """One fault on this machine.

    Attributes:
        fault: the known fault.
        state: what the probe found.
        detail: the error, or what was raised.
    """

    fault: Fault
    state: State
    detail: str = ""


def diagnose(faults: Sequence[Fault] = FAULTS, seconds: float = 60.0) -> list[Finding]:
    """Probe this machine's torch for each fault, in the order given.

    Args:
        faults: to look for.
        seconds: time limit of each probe; one that passes it is `HANGS`, and the others go on in a new process.

    Raises:
        ValueError: the limit is not positive.
    """
    if not seconds > 0:
        raise ValueError(f"the time limit must be positive, not {seconds}")
    left, found = list(faults), list[Finding]()
    while left:
        part = list(_ask(left, seconds))
        found, left = found + part, left[len(part):]
    return found


def _ask(faults: Sequence[Fault], seconds: float) -> Iterator[Finding]:
    """Findings of one process, until it is done, dead or silent; at least one."""
    root = str(Path(__file__).parents[3])
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    process = subprocess.Popen([sys.executable, "-m", "deq.interop.doctor", *(fault.name for fault in faults)],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               env={**os.environ, "PYTHONPATH": search})
    lines: Queue[str | None] = Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    try:
        for fault in faults:
            answer = _answer(lines, seconds)
            if isinstance(answer, State):
                yield Finding(fault, answer, _end_of(process, answer, seconds))
                return
            yield _finding(fault, answer)
    finally:
        process.kill()
        process.wait()
        reader.join()
        if process.stdout is not None:
            process.stdout.close()


def _read(process: subprocess.Popen[str], lines: Queue[str | None]) -> None:
    if process.stdout is not None:
        for line in process.stdout:
            lines.put(line)
    lines.put(None)


def _answer(lines: Queue[str | None], seconds: float) -> dict[str, Any] | State:
    """The answer of the next probe. Importing torch does not count: the clock starts when the probe begins."""
    limit = 10 * seconds
    while True:
        try:
            line = lines.get(timeout=limit)
        except Empty:
            return State.HANGS
        if line is None:
            return State.CRASHES
        try:
            answer = json.loads(line)
        except ValueError:
            continue  # a library's own words
        if isinstance(answer, dict) and "begins" in answer:
            limit = seconds
        elif isinstance(answer, dict) and "name" in answer:
            return answer


def _end_of(process: subprocess.Popen[str], state: State, seconds: float) -> str:
    if state is State.HANGS:
        return f"no answer in {seconds:g} s"
    return f"the process ended with status {process.wait()}"


def _finding(fault: Fault, answer: dict[str, Any]) -> Finding:
    if "broken" in answer:
        return Finding(fault, State.UNKNOWN, answer["broken"])
    if "raised" in answer:
        return Finding(fault, State.RAISES, answer["raised"])
    error = float(answer["error"])
    right = error <= LARGEST_ERROR  # NaN is wrong
    return Finding(fault, State.RIGHT if right else State.WRONG, f"relative error {error:.2g}")
