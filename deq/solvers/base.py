"""What a solver is: frozen configuration, a record of tensors as state, and one step. The driver owns the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

__all__ = ["FixedPointSolver", "Point", "Problem", "State", "Step", "choose", "describe_value"]


def describe_value(value: object) -> str:
    """Short text for an error message about an unexpected value."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {value.dtype}, on {value.device}"
    return f"{value!r} of type {type(value).__name__}"


def choose(mask: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    """Rows of ``chosen`` where the mask [batch] holds, else of ``other``; both [batch, n]."""
    if mask.is_cuda:
        return torch.where(mask.unsqueeze(1), chosen, other)
    # Looking at the few rows is cheap where there is no synchronisation to pay.
    rows = mask.nonzero().squeeze(1)
    return other.index_copy(0, rows, chosen[rows]) if len(rows) else other


class Problem:
    """The map f on flattened iterates [batch, n] of the samples still in the batch.

    Checks what f returns, counts evaluations, and drops samples that have finished: with ``inputs`` they leave f, as
    far as f allows that, else f goes on seeing them where they finished, and only the solver is spared them.
    """

    def __init__(self, f: Callable[..., Tensor], z0: Tensor, inputs: Sequence[Tensor]) -> None:
        self._f = f
        self._inputs = self._all_inputs = tuple(inputs)
        self._shape = tuple(z0.shape[1:])
        self._rows: Tensor | None = None
        self._full = z0
        self._compact = bool(self._inputs)
        self.evaluations = 0

    def select(self, rows: Tensor, results: Tensor) -> None:
        """Keep only these of the present samples; ``results`` [whole batch, n] holds those that have finished."""
        self._rows = rows if self._rows is None else self._rows[rows]
        self._full = results.reshape(len(results), *self._shape)
        if self._compact:
            self._inputs = tuple(tensor[rows] for tensor in self._inputs)
        else:
            self._full = self._full.clone()

    def _apply(self, z: Tensor) -> Tensor:
        if self._rows is None:
            return self._call(z, self._all_inputs)
        if self._compact:
            try:
                return self._call(z, self._inputs)
            except Exception:  # f holds tensors of the whole batch (a mask, a condition), so it must see all rows
                self._compact = False
        return self._call(self._full.index_copy(0, self._rows, z), self._all_inputs)[self._rows]

    def _call(self, z: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        return self._check(self._f(z, *inputs), z)

    def rows_matter(self, z: Tensor, value: Tensor, limit: Tensor) -> bool:
        """Whether f gives samples other values in another company, or in other rows, than within the whole batch.

        False where no sample has left the batch, so that it was of no matter.

        Args:
            z: [whole batch, n].
            value: f there, evaluated on the whole batch.
            limit: what residuals are held against, [whole batch].
        """
        if self._rows is None or not self._compact:
            return False
        some = torch.arange(1, len(z), 2, device=z.device).flip(0)  # company and places change
        try:
            alone = self._call(z[some].reshape(-1, *self._shape), tuple(t[some] for t in self._all_inputs))
        except Exception:  # it would have come up in the solve, had this number of samples been left there
            return True
        gap = torch.linalg.vector_norm(alone.reshape(len(some), -1) - value[some], dim=1)
        size = torch.linalg.vector_norm(value[some], dim=1)
        return bool((gap > 0.1 * limit[some] + 1e3 * torch.finfo(z.dtype).eps * size).any())

    @staticmethod
    def _check(value: Any, z: Tensor) -> Tensor:
        if not isinstance(value, Tensor):
            raise TypeError(f"f must return a tensor, but returned {describe_value(value)}")
        if value.shape != z.shape:
            raise ValueError(f"f must return the shape of z, {tuple(z.shape)}, but returned {describe_value(value)}; "
                             "check its layers' widths and that it keeps the batch dimension first")
        if value.dtype != z.dtype:
            raise TypeError(f"f must return the dtype of z, {z.dtype}, but returned {describe_value(value)}; "
                            "convert z0 or the parameters of f so that they agree")
        if value.device != z.device:
            raise ValueError(f"f must return a tensor on the device of z, {z.device}, but returned "
                             f"{describe_value(value)}; move z0 or the parameters of f")
        return value

    def accept(self, value: Any, z: Tensor) -> Tensor:
        """A value [batch, ...] that f returned at the flat z before, as `evaluate` would give it; counted as one."""
        self.evaluations += 1
        return self._check(value, z.reshape(len(z), *self._shape)).reshape(z.shape)

    def evaluate(self, z: Tensor) -> Tensor:
        """Value of f at the iterates, [batch, n] to [batch, n]."""
        self.evaluations += 1
        tracked = not z.is_inference()
        version = z._version if tracked else 0
        point = z.reshape(len(z), *self._shape)
        try:
            value = self._apply(point).reshape(z.shape)
        except Exception as error:
            if self.evaluations == 1:
                error.add_note(f"f failed at its first evaluation, at z of shape {tuple(point.shape)}, {z.dtype}, on "
                               f"{z.device}; z0, the inputs and the parameters of f must agree in dtype and device.")
            raise
        if tracked and z._version != version:
            raise ValueError("f changed z in place; use operations that return a new tensor (relu instead of relu_)")
        return value

    def residual_product(self, z: Tensor) -> Callable[[Tensor], Tensor]:
        """The linear map v -> (I - df/dz) v at z, both [batch, n]."""
        point = z.reshape(len(z), *self._shape)

        def product(v: Tensor) -> Tensor:
            self.evaluations += 1
            try:
                tangent = torch.func.jvp(self._apply, (point,), (v.reshape(point.shape),))[1]
            except (RuntimeError, NotImplementedError) as error:
                error.add_note("solver='newton' differentiates f in forward mode (torch.func.jvp). Where f does not "
                               "support that, use solver='anderson' or 'broyden'.")
                raise
            return v - tangent.reshape(v.shape)

        return product


@dataclass(frozen=True)
class Point:
    """An evaluated iterate.

    Attributes:
        z: iterate, [batch, n].
        value: f(z), [batch, n].
        residual: f(z) - z, [batch, n].
        norm: 2-norm of ``residual``, [batch].
        limit: atol + rtol |f(z)|, what ``norm`` has to get below, [batch].
        improved: whether every sample has a smaller residual than ever before.
        slow: samples whose residual fell by less than the factor `SLOW` a step over the last two, bool [batch], or
            None for none.
    """

    z: Tensor
    value: Tensor
    residual: Tensor
    norm: Tensor
    limit: Tensor
    improved: bool
    slow: Tensor | None = None


@dataclass(frozen=True)
class State:
    """Base of solver states: fields are tensors whose first dimension is the batch, other states, and counters."""

    def select(self, rows: Tensor) -> Self:
        """The state of these samples."""
        values = (getattr(self, field.name) for field in fields(self))
        return type(self)(*(value[rows] if isinstance(value, Tensor) else
                            value.select(rows) if isinstance(value, State) else value for value in values))


StateType = TypeVar("StateType", bound=State)


@dataclass(frozen=True)
class Step(Generic[StateType]):
    """What a solver proposes.

    Attributes:
        z: next iterate, [batch, n]; a new tensor, never one that was changed in place.
        state: state for the next step.
        value: f at ``z`` if the solver has evaluated it already.
        failed: samples for which no useful step was found, bool [batch], or None for none.
    """

    z: Tensor
    state: StateType
    value: Tensor | None = None
    failed: Tensor | None = None


class FixedPointSolver(ABC, Generic[StateType]):
    """Base of the solvers. Subclasses are frozen dataclasses: the fields are configuration.

    Example:
        >>> import deq
        >>> isinstance(deq.Anderson(), deq.FixedPointSolver)
        True
    """

    name: ClassVar[str]

    @abstractmethod
    def init(self, point: Point) -> StateType:
        """State before the first step."""

    @abstractmethod
    def step(self, problem: Problem, point: Point, state: StateType) -> Step[StateType]:
        """Propose the next iterate. Rows of finished samples have residual 0; what they get is ignored."""
