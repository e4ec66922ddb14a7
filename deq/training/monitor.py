"""What a run says of itself: numbers about its equilibria, its memory, and where they are written."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deq import Solution
from deq.evaluation.batch_stop import released_counts
from deq.models import equilibrium_layers


def spectral_radius(cell: Callable[[Tensor, Tensor], Tensor], z: Tensor, x: Tensor, iterations: int = 12) -> float:
    """Largest growth rate of `df/dz` at z over the batch, by power iteration on its transpose: `[batch, ...]` tensors.

    An estimate from below of the spectral radius where one eigenvalue leads; below 1 the equilibrium attracts nearby.
    """
    z = z.detach().requires_grad_(True)
    with torch.enable_grad():
        value = cell(z, x.detach())
    # a fixed start with a part in every direction, so that watching a run draws no random numbers
    v = 1 + 0.1 * torch.arange(z[0].numel(), device=z.device, dtype=z.dtype).sin().view(z.shape[1:]).expand_as(z)
    norm = torch.zeros(len(z))
    for _ in range(iterations):
        v = v / v.flatten(1).norm(dim=1).clamp(min=1e-30).view(-1, *[1] * (z.ndim - 1))
        v = torch.autograd.grad(value, z, v, retain_graph=True)[0]
        norm = v.flatten(1).norm(dim=1)
    return float(norm.max())


class EquilibriumMonitor:
    """Watches every `deq.DEQ` layer of a module and sums up its last solves.

    Attributes:
        found: whether there is any.
    """

    def __init__(self, module: nn.Module) -> None:
        self._layers = equilibrium_layers(module)
        self._inputs: dict[str, Tensor] = {}
        for name, layer in self._layers.items():
            layer.register_forward_pre_hook(self._keep(name))
        self.found = bool(self._layers)

    def _keep(self, name: str) -> Any:
        def hook(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            self._inputs[name] = arguments[0].detach()
        return hook

    def _apply(self, name: str, z: Tensor) -> Tensor:
        return self._layers[name].cell(z, self._inputs[name])

    def read(self, with_spectral_radius: bool = True) -> dict[str, float]:
        """Iterations (mean, most), worst residual, samples not converged and spectral radius of the last solves.

        Beside ours, the papers' count of plain iteration under one absolute norm (see `deq.evaluation.batch_stop`).
        """
        solved: dict[str, Solution] = {n: layer.last for n, layer in self._layers.items() if layer.last is not None}
        if not solved:
            return {}
        iterations = torch.cat([solution.iterations.float() for solution in solved.values()])
        residual = torch.cat([solution.residual for solution in solved.values()])
        failed = sum(int((~solution.converged).sum()) for solution in solved.values())
        out = {"iterations": float(iterations.mean()), "iterations_most": float(iterations.max()),
               "residual": float(residual.max()), "not_converged": float(failed)}
        with torch.no_grad():
            counts = [released_counts(partial(self._apply, name), solution.z, self._layers[name].tol,
                                      self._layers[name].max_iter) for name, solution in solved.items()]
        out |= {key: sum(count[key] for count in counts) / len(counts) for key in counts[0]}
        if with_spectral_radius:
            out["spectral_radius"] = max(spectral_radius(self._layers[name].cell, solution.z[:8],
                                                         self._inputs[name][:8])
                                         for name, solution in solved.items())
        return out


def memory_bytes(device: torch.device) -> int:
    """Peak memory: of the allocator on CUDA, of the whole process on a CPU, 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        resource = importlib.import_module("resource")
    except ModuleNotFoundError:  # Windows has none, and no other way that needs no package
        return 0
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else 1024 * peak


class StatsWriter:
    """Appends lines to stats.jsonl and, where TensorBoard is installed and wanted, events.

    Args:
        folder: of the run.
        events: write event files.
        from_step: lines of later steps are dropped: a resumed run writes them anew.

    Raises:
        ModuleNotFoundError: events are wanted and tensorboard is missing; says how to get it or do without.
    """

    def __init__(self, folder: Path, events: bool, from_step: int = 0) -> None:
        self._path = folder / "stats.jsonl"
        kept = []
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # the last line of a killed run may be cut
                    continue
                if entry["step"] <= from_step:
                    kept.append(line)
        self._path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._events = None
        if events:
            try:
                module = importlib.import_module("torch.utils.tensorboard")
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError("event files need tensorboard: pip install 'deqproof[train]', or set "
                                          "run.events = false") from error
            self._events = module.SummaryWriter(str(folder / "events"), purge_step=from_step or None)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One line: `{"step": ..., "kind": "train" | "evaluation" | "finish", ...}`."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush the event file."""
        if self._events is not None:
            self._events.close()
