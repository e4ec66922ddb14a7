"""The DEQ layer: a cell, a solver and a gradient rule, wired together as an `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deq.cells import initial_state
from deq.equilibrium import OnFailure, equilibrium_and_solution
from deq.gradients.rules import Exact, GradientRule
from deq.solution import Solution
from deq.solvers import FixedPointSolver


class DEQ(nn.Module):
    """z = cell(z, x) at its equilibrium, differentiable in x and in the cell's parameters.

    Args:
        cell: module or function cell(z, x) -> z; each sample of the batch on its own (no batch statistics).
        gradient: rule, `Exact(order=3)` by default.
        solver, tol, max_iter: as in `deq.solve`.
        reuse: start each solve at the previous equilibrium where its shape fits ([SM] Table 10). The stored state is
            part of `state_dict`, so that a resumed run starts where the interrupted one was.
        on_failure: "raise", "warn" or "ignore", as in `deq.equilibrium`.

    Attributes:
        last: the `Solution` of the last forward pass, or None; detached.
    """

    def __init__(self, cell: Callable[[Tensor, Tensor], Tensor], gradient: GradientRule | None = None,
                 solver: str | FixedPointSolver[Any] = "anderson", tol: float = 1e-6, max_iter: int = 128,
                 reuse: bool = False, on_failure: OnFailure = "raise") -> None:
        super().__init__()
        self.cell = cell
        self.gradient = Exact() if gradient is None else gradient
        self.solver, self.tol, self.max_iter = solver, tol, max_iter
        self.reuse = reuse
        self.on_failure: OnFailure = on_failure
        self.last: Solution | None = None
        self._previous: Tensor | None = None

    def forward(self, x: Tensor, z0: Tensor | None = None) -> Tensor:
        """The equilibrium for x [batch, ...].

        Args:
            x: input; the cell's second argument.
            z0: start; else the previous equilibrium (with `reuse`), else the cell's initial state (zeros).
        """
        start = self.start(x) if z0 is None else z0
        z, solution = equilibrium_and_solution(
            self.cell, start, inputs=(x,), gradient=self.gradient, solver=self.solver, tol=self.tol,
            max_iter=self.max_iter, on_failure=self.on_failure)
        self.keep(solution)
        return z

    def keep(self, solution: Solution) -> None:
        """Take note of a solve: `last`, and the next start with `reuse`."""
        self.last = solution
        if self.reuse:
            self._previous = solution.z

    def start(self, x: Tensor) -> Tensor:
        """Where a solve for x starts: the previous equilibrium (with `reuse`), else the cell's initial state."""
        fresh = initial_state(self.cell, x.detach())
        old = self._previous if self.reuse else None
        fits = old is not None and old.shape == fresh.shape and old.dtype == fresh.dtype and old.device == fresh.device
        # A sample that failed leaves no usable start.
        return torch.where(old.isfinite(), old, fresh) if old is not None and fits else fresh

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.reuse and self._previous is not None:
            destination[prefix + "previous"] = self._previous

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
                              strict: bool, missing_keys: list[str], unexpected_keys: list[str],
                              error_msgs: list[str]) -> None:
        # Not a buffer: its shape is that of the last batch, which averages and broadcasts of buffers do not expect.
        state_dict = dict(state_dict)
        old_form = state_dict.pop(prefix + "_extra_state", None)  # of checkpoints before version 2 of this layer
        previous = state_dict.pop(prefix + "previous", (old_form or {}).get("previous"))
        if self.reuse:
            self._previous = None if previous is None else previous.detach().clone()
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                                      error_msgs)

    def extra_repr(self) -> str:
        """Solver and rule in the module's printed form."""
        return f"gradient={self.gradient!r}, solver={self.solver!r}, tol={self.tol:g}, max_iter={self.max_iter}"
