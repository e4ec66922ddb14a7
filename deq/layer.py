"""The DEQ layer: a cell, a solver and a gradient rule, wired together as an `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from deq.cells import Bound, initial_state
from deq.density.trust import hooked, speaks_for
from deq.equilibrium import OnFailure, equilibrium_and_solution
from deq.gradients.rules import Exact, GradientRule
from deq.interop.pytree import flatten, unflatten
from deq.solution import Solution
from deq.solvers import FixedPointSolver


class DEQ(nn.Module):
    """z = cell(z, x, ...) at its equilibrium, differentiable in x and in the cell's parameters.

    z and x are tensors, or trees (tuple, list, dict, dataclass, nested) of tensors with the batch first. A cell may
    have a method `bind(x, ...)` that returns a map of z alone, or a `deq.Bound` map with its own per-sample tensors:
    what does not depend on z (normalised weights, injections) is then computed once a forward pass, and differentiated.

    Args:
        cell: module or function cell(z, x, ...) -> z; each sample of the batch on its own (no batch statistics).
        gradient: rule, `Exact(order=3)` by default.
        solver, tol, max_iter: as in `deq.solve`.
        reuse: start each solve at the previous equilibrium where its shape fits ([SM] Table 10). The stored state is
            part of `state_dict`, so that a resumed run starts where the interrupted one was.
        on_failure: "raise", "warn" or "ignore", as in `deq.equilibrium`.

    Attributes:
        last: the `Solution` of the last forward pass, or None; detached.

    Example:
        >>> import torch, deq
        >>> layer = deq.DEQ(deq.DenseCell(3, 8))
        >>> z = layer(torch.randn(5, 3))
        >>> z.shape, bool(layer.last.converged.all())
        (torch.Size([5, 8]), True)
    """

    def __init__(self, cell: Callable[..., Any], gradient: GradientRule | None = None,
                 solver: str | FixedPointSolver[Any] = "anderson", tol: float = 1e-6, max_iter: int = 128,
                 reuse: bool = False, on_failure: OnFailure = "raise") -> None:
        super().__init__()
        self.cell = cell
        self.gradient = Exact() if gradient is None else gradient
        self.solver, self.tol, self.max_iter = solver, tol, max_iter
        self.reuse = reuse
        self.on_failure: OnFailure = on_failure
        self.last: Solution | None = None
        self._previous: Any = None

    def forward(self, x: Any, *more: Any, z0: Any = None, shared: Mapping[str, Any] | None = None,
                **named: Any) -> Any:
        """The equilibrium for x.

        Args:
            x: input, a tensor [batch, ...] or a tree of such; the cell's second argument.
            more: further per-sample inputs of the cell (a mask, a condition, a time), trees of tensors [batch, ...];
                they leave the batch together with their sample.
            z0: start; else the previous equilibrium (with `reuse`), else the cell's initial state (zeros).
            shared: keyword arguments of the cell that all samples share (an adjacency matrix, a flag), passed as they
                are.
            named: further per-sample inputs, passed to the cell by name.

        Returns:
            z, in the structure of the start.
        """
        start = self.start(x) if z0 is None else z0
        f, inputs = self.map_at(x, *more, shared=shared, **named)
        z, solution = equilibrium_and_solution(
            f, start, inputs=inputs, gradient=self.gradient, solver=self.solver, tol=self.tol,
            max_iter=self.max_iter, on_failure=self.on_failure)
        self.keep(solution)
        return z

    def map_at(self, x: Any, *more: Any, shared: Mapping[str, Any] | None = None,
               **named: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The map whose equilibrium is the layer's value, and the per-sample inputs it is called with after z."""
        constants = dict(shared or {})
        cell = self.cell
        # A bound map stands for the forward that it was written beside: not for a subclass's, and not for hooks.
        if hasattr(cell, "bind") and speaks_for(cell, "bind") and not hooked(cell):
            bound = cell.bind(x, *more, **named, **constants)
            return (bound.function, tuple(bound.inputs)) if isinstance(bound, Bound) else (bound, ())
        if not named and not constants:
            return cell, (x, *more)

        def f(z: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            return cell(z, *arguments, **keywords, **constants)

        return f, ((x, *more), named)

    def keep(self, solution: Solution) -> None:
        """Take note of a solve: `last`, and the next start with `reuse`."""
        self.last = solution
        if self.reuse:
            self._previous = solution.z

    def start(self, x: Any) -> Any:
        """Where a solve for x starts: the previous equilibrium (with `reuse`), else the cell's initial state."""
        fresh = initial_state(self.cell, x)
        if not self.reuse or self._previous is None:
            return fresh
        new, structure = flatten(fresh)
        old, _ = flatten(self._previous)
        fits = len(new) == len(old) and all(
            a.shape == b.shape and a.dtype == b.dtype and a.device == b.device for a, b in zip(old, new, strict=True))
        # A sample that failed leaves no usable start.
        return unflatten([torch.where(a.isfinite(), a, b) for a, b in zip(old, new, strict=True)],
                         structure) if fits else fresh

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        leaves = flatten(self._previous)[0] if self.reuse and self._previous is not None else []
        for index, leaf in enumerate(leaves):
            destination[prefix + ("previous" if len(leaves) == 1 else f"previous.{index}")] = leaf

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
                              strict: bool, missing_keys: list[str], unexpected_keys: list[str],
                              error_msgs: list[str]) -> None:
        # Not a buffer: its shape is that of the last batch, which averages and broadcasts of buffers do not expect.
        state_dict = dict(state_dict)
        old_form = state_dict.pop(prefix + "_extra_state", None)  # of checkpoints before version 2 of this layer
        previous = state_dict.pop(prefix + "previous", (old_form or {}).get("previous"))
        leaves = [] if previous is None else [previous]
        while (key := f"{prefix}previous.{len(leaves)}") in state_dict:
            leaves.append(state_dict.pop(key))
        if self.reuse:
            self._previous = tuple(leaf.detach().clone() for leaf in leaves) or None
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                                      error_msgs)

    def extra_repr(self) -> str:
        """Solver and rule in the module's printed form."""
        return f"gradient={self.gradient!r}, solver={self.solver!r}, tol={self.tol:g}, max_iter={self.max_iter}"
