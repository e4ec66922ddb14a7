"""Where a result comes from: commit, versions, machine, settings. All of it goes to `run.json`."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from verification.context import Context

PACKAGES = ("deqproof", "torch", "numpy", "scipy", "sympy", "mpmath", "python-flint", "matplotlib")


def provenance(context: Context, command: str, jobs: int) -> dict[str, Any]:
    """Collect what someone needs to repeat a run."""
    return {
        "commit": commit(Path(__file__).parent),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "scale": str(context.scale),
        "seed": context.seed,
        "data": str(context.data) if context.data else None,
        "jobs": jobs,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def commit(folder: Path) -> str | None:
    """The git commit of the checkout that holds `folder`, with "+changes" where it is not clean; None without git."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """What the processor calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the generic name below is all there is
    return platform.processor() or sys.platform
