"""Peers in JAX run in a process of their own, told to take their turns one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verification.bench.case import Contestant, Role, Settings
from verification.bench.problems import DenseProblem

NAMES = {"loss": ("optimistix", "jaxopt"), "gradient": ("optimistix", "jaxopt")}
# XLA's CPU pool deadlocks when as many batched LU solves run as it has threads (jax 0.10.2); more pool threads than
# that cure it, on any number of cores.
_POOL = "32"
_PATIENCE = 180.0


class Worker:
    """The process: holds the compiled functions, answers a line for each request."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        environment = {**os.environ, "NPROC": _POOL, "OMP_NUM_THREADS": str(settings.threads),
                       "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("jax_worker.py")), str(folder)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer; a process that says nothing for too long is ended."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None or self._process.poll() is not None:
            raise RuntimeError("the JAX process has ended")
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        watchdog = threading.Timer(_PATIENCE, self._process.kill)
        watchdog.start()
        try:
            line = stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise RuntimeError(f"the JAX process died or hung for {_PATIENCE:.0f} s")
        answer = json.loads(line)
        if "problem" in answer:
            raise RuntimeError(answer["problem"])
        return answer

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def jax_contestants(task: str, problem: DenseProblem, tolerance: float, settings: Settings
                    ) -> tuple[list[Contestant], dict[str, str], Callable[[], None]]:
    """Contestants for the task, why others are absent, and what ends the process."""
    if settings.device.type != "cpu":
        return [], dict.fromkeys(NAMES[task], "run on the CPU only"), lambda: None
    holder = tempfile.TemporaryDirectory()
    folder = Path(holder.name)
    arrays = [t.detach().numpy() for t in (*problem.parameters, problem.x)]
    np.savez(folder / "problem.npz", *arrays, tolerance=tolerance)
    worker = Worker(folder, settings)

    def close() -> None:
        worker.close()
        holder.cleanup()

    contestants, absent = [], {}
    try:
        ready = worker.ask(do="list")["available"]
    except RuntimeError as error:
        close()
        return [], dict.fromkeys(NAMES[task], str(error)), lambda: None
    for name in NAMES[task]:
        if not ready.get(name):
            absent[name] = "not installed"
            continue

        def result(name: str = name) -> Tensor:
            worker.ask(do="answer", name=name, task=task)
            return torch.from_numpy(np.load(folder / "answer.npy"))

        def clock(name: str = name) -> float:
            return float(worker.ask(do="time", name=name, task=task, clock=settings.clock)["seconds"])

        contestants.append(Contestant(name, Role.PEER, result, clock, note="jax, jit; compilation not counted"))
    return contestants, absent, close
