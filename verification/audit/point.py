"""The owner's answer, the equilibrium nearest to it, and the exact and the phantom gradients there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deq.linear.linearization import Linearization
from deq.solvers import Picard, solve
from deq.subject import SubjectError
from verification.audit.case import Case
from verification.audit.trace import traced


@dataclass
class Owner:
    """What the owner's forward gave.

    Attributes:
        tree: z with its graph, whole batch; None where it raised.
        flat: the same as a matrix, detached.
        problem: what it raised, on a line.
        evaluations: calls of f that were seen.
        residuals: residual of each, relative, worst sample.
        own: whether it is the owner's (else ours, since they have none).
    """

    tree: Any
    flat: Tensor | None
    problem: str = ""
    evaluations: int = 0
    residuals: list[float] = field(default_factory=list)
    own: bool = True


def run_owner(case: Case) -> Owner:
    """Call the owner's forward with grad on.

    Raises:
        SubjectError: it returned something else than a state.
    """
    forward = case.subject.forward
    if forward is None:
        return Owner(None, None, own=False)

    def residual(z: Any, value: Any) -> float:
        with torch.no_grad():
            a, b = case.layout.pack(z).double(), case.layout.pack(value).double()
            gap = torch.linalg.vector_norm(b - a, dim=1) / torch.linalg.vector_norm(b, dim=1).clamp_min(1e-30)
            return float(gap.max())

    case.keeper.restore_random()
    if case.stateful:
        case.keeper.restore()
    with traced(case.subject.f, residual) as calls, torch.enable_grad():
        try:
            tree = forward()
        except Exception as error:
            words = " ".join(str(error).split())[:300]
            return Owner(None, None, f"{type(error).__name__}: {words}", calls.count, calls.found)
    try:
        flat = case.layout.pack(tree)
    except ValueError as error:
        raise SubjectError(f"forward() must return z as f does: {error}") from error
    if len(flat) != case.layout.batch:
        raise SubjectError(f"forward() returned {len(flat)} samples, z0 has {case.layout.batch}")
    return Owner(tree, flat.detach(), "", calls.count, calls.found)


@dataclass
class Found:
    """An equilibrium, or the best that was found.

    Attributes:
        z: systems [r, m] in the dtype of measuring.
        converged: by system, bool [r].
        residual: relative, [r].
        iterations: evaluations by our solver, worst system.
    """

    z: Tensor
    converged: Tensor
    residual: Tensor
    iterations: int = 0


def target(case: Case) -> float:
    """Relative residual that counts as an equilibrium in the dtype of measuring."""
    return 1e-10 if case.dtype == torch.float64 else 2e-5 if case.eps > 1e-3 else 2e-6


def relative(case: Case, z: Tensor) -> Tensor:
    """|f(z) - z| / |f(z)| by system; an |f(z)| below the start's scale counts as a tenth of that."""
    with torch.no_grad():
        value = case.f(z)
        size = torch.linalg.vector_norm(value, dim=1).clamp_min(case.smallest)
        return torch.linalg.vector_norm(value - z, dim=1) / size


def polish(case: Case, start: Tensor) -> Found:
    """The equilibrium near `start` (systems): accelerated iteration, then Newton where that fails or strays."""
    goal = target(case)
    limit = max(40, int(300 * case.effort))
    solution = solve(case.f, start, atol=goal * case.smallest, rtol=goal, max_iter=limit)
    z, residual = solution.z, relative(case, solution.z)
    good = (residual <= 10 * goal) & z.isfinite().all(1)
    size = torch.linalg.vector_norm(z, dim=1)
    strayed = torch.linalg.vector_norm(z - start, dim=1) > 0.1 * size
    if bool((~good | strayed).any()):
        other, left = newton(case, start, goal)
        ready = (left <= 10 * goal) & other.isfinite().all(1)
        near = torch.linalg.vector_norm(other - start, dim=1) < 0.9 * torch.linalg.vector_norm(z - start, dim=1)
        take = ready & (~good | (strayed & near))
        z = torch.where(take[:, None], other, z)
        residual, good = torch.where(take, left, residual), good | take
    if not bool(good.all()):
        # What attracts without acceleration: several wells, a map with kinks.
        other = solve(case.f, start, atol=goal * case.smallest, rtol=goal, max_iter=2 * limit,
                      solver=Picard(damping=0.5)).z
        left = relative(case, other)
        take = ~good & (left <= 10 * goal) & other.isfinite().all(1)
        z, residual, good = torch.where(take[:, None], other, z), torch.where(take, left, residual), good | take
    # Weights in the owner's dtype are known to its rounding only: what they resolve no better counts as reached.
    good = good | (residual <= 2 * case.eps)
    return Found(z, good, residual, int(solution.iterations.max()))


def newton(case: Case, start: Tensor, goal: float) -> tuple[Tensor, Tensor]:
    """Newton's method with Krylov solves, steps halved while the residual grows: z and its relative residual."""
    z, left = start.clone(), relative(case, start)
    rounds = 10 if case.effort > 0.5 else 5
    for _ in range(rounds):
        pending = (left > goal) & left.isfinite()
        if not bool(pending.any()):
            break
        line = Linearization(case.f, z)
        if not line.differentiable:
            break
        step = line.solve((line.value - line.z).detach() * pending[:, None], rtol=1e-4,
                          max_iter=max(20, int(80 * case.effort))).value
        moved = False
        for _ in range(5):
            trial = z + step
            new = relative(case, trial)
            better = pending & (new < left) & trial.isfinite().all(1)
            z = torch.where(better[:, None], trial, z)
            left = torch.where(better, new, left)
            moved = moved or bool(better.any())
            step = torch.where(better[:, None], torch.zeros_like(step), step / 2)
            pending = pending & ~better
            if not bool(pending.any()):
                break
        if not moved:
            break
    return z, left


def residual_curve(case: Case) -> list[float]:
    """Relative residual of the worst sample at each point that our solver looks at, from the owner's start."""
    found: list[float] = []

    def seen(z: Tensor) -> Tensor:
        value = case.f(z)
        size = torch.linalg.vector_norm(value, dim=1).clamp_min(1e-30)
        found.append(float((torch.linalg.vector_norm(value - z, dim=1) / size).max()))
        return value

    start = case.systems(case.start()[case.rows].to(case.dtype))
    solve(seen, start, atol=target(case) * case.smallest, rtol=target(case), max_iter=100)
    return found


Gradient = dict[str, Tensor | None]


@dataclass
class Gradients:
    """Gradients of the owner's loss at a point.

    Attributes:
        exact: by parameter; None where nothing reaches it.
        phantom: by K.
        adjoint: u with (I - J^T) u = c, [r, m].
        cotangent: c.
        biases: by K, |(J^T)^K u| / |u|, worst system.
        reached: whether each adjoint solve met its tolerance, bool [r].
        residual: of the adjoint solves, relative to |c|, [r].
    """

    exact: Gradient
    phantom: dict[int, Gradient]
    adjoint: Tensor
    cotangent: Tensor
    biases: dict[int, float]
    reached: Tensor
    residual: Tensor


def linear_tolerance(case: Case) -> float:
    """Relative tolerance of Krylov solves in the dtype of measuring."""
    return 1e-10 if case.dtype == torch.float64 else 1e-5


def gradients(case: Case, line: Linearization, parameters: dict[str, Tensor], steps: tuple[int, ...] = ()) -> Gradients:
    """Exact gradient by an adjoint solve, and phantom ones by partial sums of its Neumann series."""
    rows = None if len(case.rows) == case.layout.batch else case.rows
    with torch.enable_grad():
        leaf = line.z
        total = case.loss(case.tree(leaf), rows, case.promoted).sum()
    c = torch.autograd.grad(total, leaf, retain_graph=True, allow_unused=True)[0] if total.requires_grad else None
    c = torch.zeros_like(line.z) if c is None else c.detach()
    solution = line.adjoint(c, rtol=linear_tolerance(case), max_iter=max(60, int(240 * case.effort)))
    tensors = list(parameters.values())

    def pull(v: Tensor) -> Gradient:
        parts: list[Any] = [None] * len(tensors)
        if line.value.requires_grad and tensors:
            parts = list(torch.autograd.grad(line.value, tensors, v, retain_graph=True, allow_unused=True))
        if total.requires_grad and tensors:
            direct = torch.autograd.grad(total, tensors, retain_graph=True, allow_unused=True)
            parts = [a if b is None else b if a is None else a + b for a, b in zip(parts, direct, strict=True)]
        return dict(zip(parameters, parts, strict=True))

    u = solution.value
    length = torch.linalg.vector_norm(u, dim=1).clamp_min(1e-30)
    phantom: dict[int, Gradient] = {}
    biases: dict[int, float] = {}
    term, partial, rest = c, torch.zeros_like(c), u
    for k in range(1, max(steps, default=0) + 1):
        partial = partial + term
        term, rest = line.transposed(term), line.transposed(rest)
        biases[k] = float((torch.linalg.vector_norm(rest, dim=1) / length).max())
        if k in steps:
            phantom[k] = pull(partial)
        if not bool(partial.isfinite().all()):
            break
    size = torch.linalg.vector_norm(c, dim=1)
    return Gradients(pull(u), phantom, u, c, biases, solution.converged, solution.residual / size.clamp_min(1e-30))


def flat_norm(gradient: Gradient) -> float:
    """2-norm over all parameters."""
    return sum(float(part.double().abs().square().sum()) for part in gradient.values() if part is not None) ** 0.5


def compare(found: Gradient, truth: Gradient) -> tuple[float, float]:
    """Relative error and cosine of one gradient against another, all parameters together."""
    dot = gap = size = length = 0.0
    for name, b in truth.items():
        a = found.get(name)
        x = torch.zeros(()).double() if a is None else torch.view_as_real(a).double() if a.is_complex() else a.double()
        y = torch.zeros(()).double() if b is None else torch.view_as_real(b).double() if b.is_complex() else b.double()
        dot += float((x * y).sum())
        gap += float((x - y).square().sum())
        size += float(y.square().sum())
        length += float(x.square().sum())
    if size == 0:
        return (0.0, 1.0) if length == 0 else (float("inf"), 0.0)
    return (gap / size) ** 0.5, dot / (size * length) ** 0.5 if length else 0.0


def finite(gradient: Gradient) -> bool:
    """No NaN, no infinity."""
    return all(bool(part.isfinite().all()) for part in gradient.values() if part is not None)


