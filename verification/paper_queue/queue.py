"""All runs of the papers' tables, one after another or several side by side, resumable at any moment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import joblib
from filelock import FileLock, Timeout

from deq.data import DataError
from verification.errors import UserError
from verification.paper_queue.cost import Costs, key
from verification.paper_queue.runs import PaperRun
from verification.paper_queue.work import Place, progress_of, stored, work
from verification.provenance import processor


@dataclass(frozen=True)
class Item:
    """A run in the queue.

    Attributes:
        run: what.
        seconds: measured cost of the whole run, on one core.
        share: of it that is done: 1 for a stored one, that of the newest checkpoint else.
        obstacle: why it cannot be run here (data that are missing), or empty.
    """

    run: PaperRun
    seconds: float
    share: float
    obstacle: str = ""


def plan(runs: Sequence[PaperRun], place: Place, costs: Costs) -> list[Item]:
    """Runs with their costs, by stage and then by cost.

    A kind of run of which one has gone from start to end costs what that one did; the others are measured by a few
    steps, once on a machine.
    """
    items = []
    whole = {key(run, place.smoke): cell["processor_seconds"] for run in runs
             if (cell := stored(run, place)) and "processor_seconds" in cell and place.device == "cpu"
             and cell["provenance"].get("processor") == processor()}
    for run in runs:
        share = 1.0 if stored(run, place) else progress_of(run, place)
        try:
            known = whole.get(key(run, place.smoke))
            items.append(Item(run, costs.of(run).total(run, place.smoke) if known is None else known, share))
        except DataError as error:
            items.append(Item(run, 0.0, share, str(error)))
    return sorted(items, key=lambda item: (item.run.stage, item.seconds, item.run.seed))


@contextmanager
def only_queue(folder: Path) -> Iterator[None]:
    """One queue a folder.

    Raises:
        UserError: another one works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / ".queue.lock"), folder / ".queue.pid"
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        who = owner.read_text(encoding="utf-8").strip() if owner.exists() else "unknown"
        raise UserError(f"another queue (process {who}) works in {folder}; wait for it, end it, or give --runs another "
                        f"folder") from error
    try:
        owner.write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def run_all(items: Sequence[Item], place: Place, jobs: int, tell: Callable[[str], None]) -> int:
    """Work on all that is not stored; how many stopped by a failure.

    Each line tells how a run went, how many are whole, the share of all work and the hours that remain.
    """
    for obstacle in dict.fromkeys(item.obstacle for item in items if item.obstacle):
        tell(f"{sum(item.obstacle == obstacle for item in items)} runs left out: {obstacle}")
    items = [item for item in items if not item.obstacle]
    wanted = [item for item in items if item.share < 1]
    whole, total = len(items) - len(wanted), sum(item.seconds for item in items)
    spent = sum(item.seconds * item.share for item in items)
    began, failures = time.monotonic(), 0
    tell(f"{whole} of {len(items)} runs whole, {spent / total:.0%} of the work done" if total else "nothing to do")
    first = spent
    jobs_of = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", backend="loky")
    for item, line in jobs_of(joblib.delayed(_one)(item, place) for item in wanted):
        whole += 1
        failures += ": stopped" in line
        spent += item.seconds * (1 - item.share)
        pace = (time.monotonic() - began) / max(spent - first, 1e-9)
        tell(f"{line} | {whole} of {len(items)} runs, {spent / total:.0%}, {pace * (total - spent) / 3600:.1f} h left")
    return failures


def _one(item: Item, place: Place) -> tuple[Item, str]:
    return item, work(item.run, place)
