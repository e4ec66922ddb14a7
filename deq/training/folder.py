"""Folders of runs: numbered, found again, written by one process at a time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from deq.training.config import Config

_RUN = re.compile(r"(\d{5})-(.+)")


class TrainingStopped(RuntimeError):
    """A run that cannot go on: a loss or gradient that is not finite, or a folder that does not fit."""


class TrainingInterrupted(TrainingStopped):
    """A run that was asked to end (SIGTERM) and saved its state first."""


def provenance() -> dict[str, str]:
    """Commit (where git knows one), versions, date."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "-C", str(here), "describe", "--always", "--dirty"], capture_output=True,
                                text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "unknown"
    return {"commit": commit, "torch": torch.__version__, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is there as a whole or as it was before, also after a crash."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _slug(config: Config) -> str:
    return config.name.replace("/", "-") + ("-smoke" if config.smoke else "")


def find_run(out: Path, config: Config) -> Path | None:
    """The newest run folder of this configuration, or None."""
    found = [path for path in sorted(out.glob("*")) if (match := _RUN.fullmatch(path.name))
             and match[2] == _slug(config) and (path / "options.json").exists()]
    return found[-1] if found else None


def new_run(out: Path, config: Config) -> Path:
    """A new numbered run folder with options.json; two processes at once get two folders."""
    out.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(match[1]) for path in out.glob("*") if (match := _RUN.fullmatch(path.name))), default=0)
    while True:
        folder = out / f"{number:05d}-{_slug(config)}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            continue
        write_whole(folder / "options.json", json.dumps({**config.as_dict(), "provenance": provenance()}, indent=1))
        return folder


def check_same(folder: Path, config: Config) -> None:
    """Refuse to resume a run with other options; the number of steps and the bookkeeping may differ.

    Raises:
        TrainingStopped: they differ; names the first difference.
    """
    stored = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(config.as_dict()))
    free = {"steps", "log_every", "checkpoint_every", "evaluate_every", "keep", "events"}
    for section in ("data", "model", "run", "gradient", "objective", "optimizer"):
        for key in sorted(set(stored[section]) | set(wanted[section])):
            old, new = stored[section].get(key), wanted[section].get(key)
            if old != new and not (section == "run" and key in free):
                raise TrainingStopped(f"{folder} was run with {section}.{key} = {old!r}, now {new!r}; start a new run")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends.

    Raises:
        TrainingStopped: another process holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainingStopped(f"another process is writing to {folder}; wait for it, or end it before resuming"
                              ) from error
    try:
        yield
    finally:
        lock.release()
