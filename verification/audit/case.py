"""A subject made ready for measuring: its map on matrices, the samples looked at, the dtype, and the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from deq.interop.pytree import Layout, leaves, map_tensors, rows_of
from deq.subject import Subject, SubjectError
from verification.audit.keep import Keeper, Reached
from verification.audit.promote import Promote

#: Samples looked at where the batch can be taken apart and time allows.
SAMPLES = 8
#: Products with J^T, in rough count, that all checks together need.
PRODUCTS = 700
#: Relative difference between f and its evaluation in float64 that a bfloat16 or float16 inside f can make.
INSIDE = 2e-2


class NotAMap(Exception):
    """f did not return a state; the text is one line."""


class Clock:
    """Seconds that are left of a budget."""

    def __init__(self, budget: float, now: Callable[[], float] = time.perf_counter) -> None:
        self.budget, self.now = budget, now
        self._began = now()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self.now() - self._began

    @property
    def left(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self.budget - self.spent)


class Case:
    """A subject under audit.

    Args:
        subject: whose.
        keeper: puts it back.
        clock: of the budget.
        steps: K of the phantom gradients to measure.
        order: highest order of derivative to look at.

    Attributes:
        rows: indices of the samples that are measured.
        dtype: in which products and solves run; wider than the owner's where that works.
        coupled: samples influence each other: all of them are one system then.
        stateful: f does not repeat itself by itself: its state is put back before each call.
        protected: f changes what it gets in place: it gets copies.
        asked: the order was asked for, so that a wrong higher derivative is a failure.
        smallest: size that a state is taken to have at least, a tenth of what the start shows: equilibria may be 0.
        notes: what was reduced or worked around, in sentences.
        curves: data for pictures.
    """

    def __init__(self, subject: Subject, keeper: Keeper, clock: Clock, steps: Sequence[int], order: int) -> None:
        self.subject, self.keeper, self.clock = subject, keeper, clock
        self.layout: Layout = subject.layout
        self.steps, self.order = tuple(sorted(set(steps))), order
        self.rows = torch.arange(self.layout.batch)
        self.dtype = self.layout.dtype if self.layout.dtype.itemsize >= 4 else torch.float32
        self.promoted = False
        self.coupled = self.stateful = self.protected = False
        self.sliceable = False
        self.notes: list[str] = []
        self.curves: dict[str, Any] = {}
        self.generator = torch.Generator().manual_seed(20_240_511)
        self.effort = 1.0
        self.seconds_per_product = 0.0
        self.inside = 0.0
        self.smallest = 1e-30
        self.asked = True
        self.first_value: Tensor | None = None
        self.seconds_per_call = 0.0

    @property
    def eps(self) -> float:
        """Rounding unit of the owner's state, or what f makes of it inside."""
        units = [torch.finfo(kind.to_real() if kind.is_complex else kind).eps for kind in self.layout.dtypes]
        return max(self.inside, *units)

    def inputs(self, rows: Tensor | None) -> tuple[Any, ...]:
        """The inputs of f for these samples."""
        given = self.subject.inputs
        return given if rows is None else tuple(rows_of(item, rows, self.layout.batch) for item in given)

    def start(self, rows: Tensor | None = None) -> Tensor:
        """The owner's start as a matrix [b, n]."""
        flat = self.layout.pack(self.subject.z0).detach().clone()
        return flat if rows is None else flat[rows]

    @property
    def frugal(self) -> bool:
        """Whether a call of f on the whole batch costs so much that each counts."""
        return self.seconds_per_call > self.clock.budget / 300

    def few(self) -> Tensor | None:
        """Two samples in place of the batch, where f is dear and can be evaluated on them; else None."""
        if not self.frugal or self.layout.batch <= 2:
            return None
        rows = torch.tensor([0, self.layout.batch - 1])
        try:
            with torch.no_grad():
                self.call(self.start(rows), rows)
        except Exception:  # whatever f raises on a smaller batch, it wants the whole one
            return None
        return rows

    def call(self, z: Tensor, rows: Tensor | None = None, promote: bool = False,
             inputs: tuple[Any, ...] | None = None) -> Tensor:
        """F at the matrix z [b, n], as a matrix; in the owner's dtype, or in z's with `promote`.

        Raises:
            NotAMap: it returned something else than such a state.
        """
        tree = self.layout.unpack(z, native=not promote)
        given = self.inputs(rows) if inputs is None else inputs
        if self.stateful:
            self.keeper.restore()
        else:
            self.keeper.restore_random()
        if self.protected:
            tree, given = map_tensors(Tensor.clone, tree), map_tensors(Tensor.clone, given)
        with Promote(z.dtype) if promote else nullcontext():
            value = self.subject.f(tree, *given)
        try:
            flat = self.layout.pack(value, dtype=z.dtype)
        except ValueError as error:
            raise NotAMap(f"f returned another state than it got: {error}") from error
        if flat.shape != z.shape:
            raise NotAMap(f"f returned {len(flat)} samples for {len(z)}")
        return flat

    def f(self, z: Tensor) -> Tensor:
        """F on systems: [b, n] of the measured samples, or one row of them all where they are coupled."""
        flat = z.reshape(-1, self.layout.size)
        rows = None if len(self.rows) == self.layout.batch else self.rows
        return self.call(flat, rows, self.promoted).reshape(z.shape)

    def systems(self, flat: Tensor) -> Tensor:
        """Samples [b, n] as systems."""
        return flat.reshape(1, -1) if self.coupled else flat

    def samples(self, z: Tensor) -> Tensor:
        """Systems as samples [b, n]."""
        return z.reshape(-1, self.layout.size)

    def tree(self, z: Tensor) -> Any:
        """Systems as the owner's tree, in the dtype of measuring."""
        return self.layout.unpack(self.samples(z), native=not self.promoted)

    def random(self, like: Tensor) -> Tensor:
        """Normal numbers of the audit's own generator."""
        return torch.randn(like.shape, generator=self.generator, dtype=torch.float64).to(like)

    def loss(self, tree: Any, rows: Tensor | None, promote: bool) -> Tensor:
        """The owner's loss of these samples: [b], or a number.

        Raises:
            SubjectError: it raised, or returned neither.
        """
        count = self.layout.batch if rows is None else len(rows)
        if self.subject.loss is None:
            parts = [leaf.abs().square().flatten(1).sum(1) / 2 if leaf.dim() > 1 else leaf.abs().square() / 2
                     for leaf in leaves(tree)]
            return sum(parts[1:], parts[0])
        self.keeper.restore_random()
        try:
            with Promote(self.dtype) if promote else nullcontext():
                value = self.subject.loss(tree, *self.inputs(rows))
        except Exception as error:
            raise SubjectError(f"loss(z, *inputs) raised {type(error).__name__}: {' '.join(str(error).split())}"
                               ) from error
        if not isinstance(value, Tensor):
            raise SubjectError(f"loss(z, *inputs) must return a tensor, [batch] or a number; it returned "
                               f"{type(value).__name__}")
        if value.numel() == 1 and (value.dim() == 0 or count > 1):
            return value.reshape(())
        if value.shape != (count,):
            raise SubjectError(f"loss(z, *inputs) must return [batch] = ({count},) or a number; it returned shape "
                               f"{tuple(value.shape)}. Take the mean over what is no sample")
        if not value.dtype.is_floating_point:
            raise SubjectError(f"loss(z, *inputs) must be real; it returned {value.dtype}")
        return value

    def look_at_start(self) -> None:
        """Scale of the state at the start; the loss there.

        Raises:
            SubjectError: the loss is none.
        """
        z = self.start()
        with torch.no_grad():
            value = self.call(z) if self.first_value is None else self.first_value
        sizes = [float(torch.linalg.vector_norm(item.double(), dim=1).max()) for item in (z, value)]
        self.smallest = 0.1 * max(sizes) or 1.0
        self.loss(self.layout.unpack(value), None, False)

    # -- preparation ---------------------------------------------------------------------------------------------

    def prepare(self, worst: Tensor | None = None) -> None:
        """Choose samples, dtype and effort; `worst` [batch] ranks samples that must be among them."""
        self._choose_dtype()
        self.sliceable = not self.coupled and self._can_slice()
        batch = self.layout.batch
        if self.sliceable and batch > SAMPLES:
            self.rows = self._chosen(SAMPLES, worst)
        seconds = self._time()
        allowed = 0.6 * self.clock.left / PRODUCTS
        if seconds > allowed and self.sliceable and len(self.rows) > 1:
            count = max(1, min(len(self.rows) - 1, int(len(self.rows) * allowed / seconds)))
            self.rows = self._chosen(count, worst)
            seconds = self._time()
        if seconds > allowed and self.promoted and self.layout.dtype == torch.float32:
            self.promoted, self.dtype = False, torch.float32
            self.notes.append("measured in float32, since float64 would not fit the budget")
            seconds = self._time()
        self.seconds_per_product = seconds
        self.effort = min(1.0, max(0.15, allowed / max(seconds, 1e-9)))
        if len(self.rows) < batch:
            self.notes.append(f"{len(self.rows)} of {batch} samples were measured, "
                              f"number{'s' * (len(self.rows) > 1)} {', '.join(map(str, self.rows.tolist()))}"
                              + (", the one with the worst residual among them" if worst is not None else ""))
        if self.effort < 1:
            self.notes.append("fewer products than usual were spent, to stay within the budget")

    def _chosen(self, count: int, worst: Tensor | None) -> Tensor:
        batch = self.layout.batch
        spread = torch.linspace(0, batch - 1, count).round().long()
        if worst is not None:
            top = worst.nan_to_num(torch.inf).argmax().cpu()
            spread[(spread - top).abs().argmin()] = top
        return spread.unique()

    def _can_slice(self) -> bool:
        """Whether f and the loss of fewer samples are those of the whole batch, restricted."""
        batch = self.layout.batch
        if batch == 1:
            return False
        rows = torch.tensor([0, batch - 1]) if batch > 2 else torch.tensor([1])
        whole = self.start()
        try:
            with torch.no_grad():
                value = (self.call(whole) if self.first_value is None else self.first_value)[rows]
                part = self.call(whole[rows], rows)
                if not _close(part, value, 64 * self.eps):
                    return False
                if self.subject.loss is None:
                    return True
                full = self.loss(self.layout.unpack(value), rows, False)
                return full.dim() == 1
        except Exception:  # whatever f raises on a smaller batch, it wants the whole one
            return False

    def _choose_dtype(self) -> None:
        """Take float64 where f computes the same function in it."""
        if self.layout.dtype == torch.float64 and not self._has_narrow_parts():
            return
        rows = self.few()
        z = self.start(rows)
        with torch.no_grad():
            native = self.call(z, rows).double()
        try:
            with torch.enable_grad():
                point = z.double().requires_grad_(True)
                value = self.call(point, rows, promote=True)
            if value.requires_grad:  # a checkpoint evaluates again in backward, where nothing is widened
                torch.autograd.grad(value, point, torch.ones_like(value), retain_graph=True, allow_unused=True)
            wide = value.detach()
        except Exception:  # code that cannot be widened: own kernels, functions of its own
            wide = None
        if wide is not None and _close(wide, native, 200 * self.eps):
            self.dtype, self.promoted = torch.float64, True
        elif wide is not None and _close(wide, native, INSIDE):
            self.dtype, self.promoted = torch.float64, True
            gap = torch.linalg.vector_norm(wide - native) / torch.linalg.vector_norm(wide)
            self.inside = float(gap)
            self.notes.append("f computes in a lower precision inside than its state has: it differs by "
                              f"{self.inside:.1e} from the same function in float64, in which it was measured")
        else:
            self.notes.append(f"measured in {str(self.dtype).removeprefix('torch.')}, since f could not be evaluated "
                              "in float64")

    def _has_narrow_parts(self) -> bool:
        return any(leaf.dtype.is_floating_point and leaf.dtype.itemsize < 8 for leaf in leaves(self.subject.inputs)
                   if isinstance(leaf, Tensor))

    def _time(self) -> float:
        """Seconds of a product with J^T on the chosen samples."""
        rows = None if len(self.rows) == self.layout.batch else self.rows
        z = self.start(rows).to(self.dtype).requires_grad_(True)
        seconds: list[float] = []
        while len(seconds) < 2 or (len(seconds) < 6 and sum(seconds[1:]) < 0.3):  # the first call warms up
            began = self.clock.now()
            with torch.enable_grad():
                value = self.call(z, rows, self.promoted)
            if value.requires_grad:
                torch.autograd.grad(value, z, torch.ones_like(value), allow_unused=True)
            seconds.append(self.clock.now() - began)
        return min(seconds)


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    a, b = a.double(), b.double()
    scale = torch.linalg.vector_norm(b) / max(1, b.numel()) ** 0.5
    gap = torch.linalg.vector_norm(a - b) / max(1, b.numel()) ** 0.5
    return bool(gap <= tolerance * scale + 1e-300) and bool(a.isfinite().all())


def find_parameters(case: Case, value: Tensor, point: Tensor) -> dict[str, Tensor]:
    """The tensors in which gradients are compared, by name: those given, or the leaves that the graph reaches."""
    given = case.subject.named_parameters()
    if given is not None:
        known = _names_of(case.subject) if isinstance(case.subject.parameters, tuple) else {}
        return {known.get(id(tensor), name): tensor for name, tensor in given.items() if tensor.requires_grad}
    found = [leaf for leaf in _graph_leaves(value) if leaf is not point]
    names = _names_of(case.subject)
    out: dict[str, Tensor] = {}
    for index, leaf in enumerate(found):
        out[names.get(id(leaf), f"leaf {index} {list(leaf.shape)}")] = leaf
    return out


def _graph_leaves(value: Tensor) -> list[Tensor]:
    """Leaves that require grad in the graph of a value, in the order in which a walk from it meets them."""
    found: dict[int, Tensor] = {}
    seen, stack = set(), [value.grad_fn] if value.grad_fn is not None else []
    while stack:
        node: Any = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor):
            found.setdefault(id(leaf), leaf)
        stack.extend(parent for parent, _ in node.next_functions)
    return list(found.values())


def _names_of(subject: Subject) -> dict[int, str]:
    """Names of parameters: of the modules that the subject reaches, and of inputs."""
    names: dict[int, str] = {}
    for index, item in enumerate(subject.inputs):
        names |= {id(leaf): f"inputs[{index}]" for leaf in leaves(item)}
    reached = Reached(subject.f, subject.forward)
    labelled = [module for module in reached.modules if id(module) in reached.labels]
    several = len(labelled) > 1
    for module in (*labelled, *reached.modules):
        label = reached.labels.get(id(module), "") if several else ""
        for name, parameter in module.named_parameters():
            names.setdefault(id(parameter), f"{label}.{name}" if label else name)
    return names


