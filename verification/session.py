"""Runs all claims, in this process or several, and keeps what is finished whatever happens."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from typing import Any

import torch
from tqdm import tqdm

from verification.context import Context
from verification.progress import Progress
from verification.registry import Topic, load_topics
from verification.result import ClaimResult, result_of
from verification.runner import Records, run_claim
from verification.store import Store
from verification.verdict import Verdict

#: What a worker says: ("start", topic, claim), ("done", topic, claim, result, records), ("end", topic).
Message = tuple[Any, ...]


@dataclass
class Session:
    """One run over some topics.

    Attributes:
        topics: what to run, in the order of the report.
        context: settings of the run.
        store: where results go, as they come.
        about: provenance, for `run.json`.
        jobs: number of processes; topics stay whole, and results do not depend on it.
        package: the claims package, which worker processes import anew.
        results: finished claims by id.
        interrupted: the run was ended early; what was finished is kept.
        placed: the store's folder holds this run's results; not so where it was ended before the first.
    """

    topics: Sequence[Topic]
    context: Context
    store: Store
    about: dict[str, Any]
    jobs: int = 1
    package: str = "verification.claims"
    results: dict[str, ClaimResult] = field(default_factory=dict)
    interrupted: bool = False
    placed: bool = True
    _owners: dict[str, str] = field(default_factory=dict, repr=False)
    _begun: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def ordered(self) -> list[ClaimResult]:
        """Finished claims in registry order."""
        return [self.results[claim.id] for topic in self.topics for claim in topic.claims if claim.id in self.results]

    @property
    def seconds(self) -> float:
        """Wall time since the session was made."""
        return time.perf_counter() - self._begun

    def run(self, progress: Progress) -> None:
        """Run everything; on `KeyboardInterrupt`, stop, mark the run as partial and return."""
        self.store.begin()
        self.results.clear()
        self._owners.clear()
        self._save("running")
        torch.set_num_threads(1)
        titles = {claim.id: claim.title for topic in self.topics for claim in topic.claims}
        messages = self._in_processes() if self.jobs > 1 and len(self.topics) > 1 else self._here()
        try:
            for message in messages:
                if message[0] == "start":
                    progress.start(titles[message[2]])
                elif message[0] == "done":
                    progress.finish(self._keep(message[3], message[4]))
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            messages.close()
        self._save("partial" if self.interrupted else "complete")
        self.placed = self.store.finish(complete=not self.interrupted)

    def _keep(self, result: ClaimResult, records: Records) -> ClaimResult:
        clash = [name for name in records if self._owners.setdefault(name, result.id) != result.id
                 and self.store.load_record(name) != records[name]]
        for name, values in records.items():
            if name not in clash:
                self.store.save_record(name, values)
        if clash:
            reason = f"record {clash[0]!r} was already written, with other numbers, by claim {self._owners[clash[0]]}"
            result = _as_error(result, reason)
        self.results[result.id] = result
        self._save("running")
        return result

    def _save(self, state: str) -> None:
        self.store.save_claims(self.ordered)
        self.store.save_run(state, {**self.about, "seconds": round(self.seconds, 1),
                                    "claims": sum(len(topic.claims) for topic in self.topics)}, list(self._owners))

    def _here(self) -> Generator[Message]:
        for topic in self.topics:
            yield from _run_topic(topic, self.context)

    def _in_processes(self) -> Generator[Message]:
        spawn = multiprocessing.get_context("spawn")
        tasks: Queue[tuple[str, list[str]] | None] = spawn.Queue()
        answers: Queue[Message] = spawn.Queue()
        # The longest first, so that no process is left alone with a long topic at the end.
        for topic in sorted(self.topics, key=lambda topic: -topic.weight):
            tasks.put((topic.name, [claim.id for claim in topic.claims]))
        count = min(self.jobs, len(self.topics))
        for _ in range(count):
            tasks.put(None)
        workers = [spawn.Process(target=_work, args=(self.package, self.context, tasks, answers), daemon=True)
                   for _ in range(count)]
        for worker in workers:
            worker.start()
        try:
            yield from self._listen(workers, answers)
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.join(5)
            for queue in (tasks, answers):
                queue.cancel_join_thread()
                queue.close()

    def _listen(self, workers: Sequence[SpawnProcess], answers: Queue[Message]) -> Generator[Message]:
        """Pass messages on until every topic ended; claims that a dead process leaves behind become errors."""
        open_claims = {claim.id: (topic.name, claim) for topic in self.topics for claim in topic.claims}
        reader = answers._reader  # type: ignore[attr-defined]
        while open_claims:
            alive = [worker.sentinel for worker in workers if worker.is_alive()]  # before poll: the dead have flushed
            if not reader.poll():
                if not alive:
                    break
                wait([reader, *alive])
                continue
            message = answers.get()
            if message[0] == "done":
                open_claims.pop(message[2])
            yield message
        codes = sorted({worker.exitcode for worker in workers if worker.exitcode})
        for topic, claim in open_claims.values():
            reason = f"the worker process died (exit codes {codes}) before this claim was finished; out of memory?"
            yield "done", topic, claim.id, result_of(claim, topic, Verdict.ERROR, 0.0, error=reason), {}


def _as_error(result: ClaimResult, reason: str) -> ClaimResult:
    return ClaimResult(**{**vars(result), "verdict": Verdict.ERROR, "error": reason})


def _run_topic(topic: Topic, context: Context) -> Generator[Message]:
    for claim in topic.claims:
        yield "start", topic.name, claim.id
        result, records = run_claim(claim, topic.name, context)
        yield "done", topic.name, claim.id, result, records


def _work(package: str, context: Context, tasks: Queue[Any], answers: Queue[Message]) -> None:
    """A worker: takes topics until there is none. One thread; ends with its parent; leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    tqdm.set_lock(threading.RLock())  # its default is a named semaphore, which a worker that is stopped would leak
    torch.set_num_threads(1)
    topics = {topic.name: topic for topic in load_topics(package)}
    while (task := tasks.get()) is not None:
        name, ids = task
        topic = topics[name]
        chosen = Topic(topic.name, topic.title, [claim for claim in topic.claims if claim.id in ids])
        for message in _run_topic(chosen, context):
            answers.put(message)
    answers.close()
    answers.join_thread()


def _die_with_parent(finish: Callable[[int], None] = os._exit) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        finish(1)

    threading.Thread(target=watch, daemon=True).start()
