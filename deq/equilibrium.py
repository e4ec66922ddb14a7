"""The equilibrium of a map as a differentiable function of all that the map closes over."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from deq.gradients.order_guard import guard
from deq.gradients.preconditioner import build_preconditioner
from deq.gradients.recorded import attach
from deq.gradients.rules import Exact, GradientRule
from deq.interop.closure import ClosedMap, Map, close, explain_failure, require_closed
from deq.interop.compilation import original
from deq.interop.precision import autocast_active, in_full_precision, refuse_autocast, without_autocast
from deq.interop.pytree import leaves, map_tensors
from deq.interop.transforms import derivatives_possible, detached, has_tangent, transforms_active, without_tangents
from deq.solution import Solution
from deq.solvers import FixedPointSolver
from deq.solvers.driver import solve_from
from deq.states import TreeMap, is_plain
from deq.status import NotConverged
from deq.watching.events import Solved, announce, listening

OnFailure = Literal["raise", "warn", "ignore"]


def equilibrium(f: Callable[..., Any], z0: Any, *, inputs: Sequence[Any] = (),
                gradient: GradientRule | None = None, solver: str | FixedPointSolver[Any] = "anderson",
                tol: float = 1e-6, atol: float | None = None, rtol: float | None = None, max_iter: int = 128,
                on_failure: OnFailure = "raise", scale: Any = None) -> Any:
    """Solve z = f(z, *inputs) and return z carrying the derivatives of everything that f closes over.

    Works under `torch.autograd.grad(create_graph=True)` and the `torch.func` transforms (grad, vjp, jvp, jacrev,
    jacfwd, hessian, vmap, nested at will). Memory does not depend on the number of solver iterations.
    An active `torch.autocast` is switched off inside, and in a first backward pass of `Exact`: f runs in the dtype of
    z0 and of its own tensors.

    Args:
        f: the map, [batch, ...] -> [batch, ...]; deterministic, made of torch operations, samples independent. It may
            close over any tensors. Where torch.compile made it, the solver runs the compiled code, and derivatives are
            taken of the original: compiled code has none of second order.
        z0: start, [batch, ...], or a tree (tuple, list, dict, dataclass, nested) of such; float32, float64, complex, or
            bfloat16 and float16, for which f runs in that dtype while state, residual and adjoint are kept in float32.
            Its derivatives are not followed (the equilibrium does not depend on it).
        inputs: tensors, or trees of tensors, passed to f beside z whose first dimension is the batch; samples that have
            converged then leave the batch and stop costing.
        gradient: the rule, `Exact(order=3)` by default; see `deq.gradients.rules`.
        solver: as in `deq.solve`.
        tol: as in `deq.solve`. Derivatives inherit an error of about tol / (1 - contraction factor): take a small one
            with exact derivatives.
        atol: as in `deq.solve`.
        rtol: as in `deq.solve`.
        max_iter: as in `deq.solve`.
        on_failure: what to do when a sample does not converge: "raise" `NotConverged` (carries the `Solution`), "warn",
            or "ignore".
        scale: as in `deq.solve`.

    Returns:
        z, the equilibrium, in the structure and dtypes of z0.

    Raises:
        NotConverged: some sample did not converge, with on_failure="raise".
        LinearSolveError: I - df/dz is singular, or an adjoint or tangent solve missed its tolerance.
        DerivativeOrderError: at differentiation time, for an order above the rule's.
        RuntimeError: a higher derivative, or an exact rule in a `torch.func` transform, under an active autocast.
        ValueError, TypeError: unusable arguments.

    Example:
        >>> import torch, deq
        >>> x = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
        >>> z = deq.equilibrium(lambda z: 0.5 * torch.sin(z) + x, torch.zeros_like(x), tol=1e-12)
        >>> (slope,) = torch.autograd.grad(z.sum(), x)
        >>> slope.flatten().tolist()  # 1 / (1 - cos(0) / 2)
        [2.0, 2.0]
    """
    z, _ = equilibrium_and_solution(f, z0, inputs=inputs, gradient=gradient, solver=solver, tol=tol, atol=atol,
                                    rtol=rtol, max_iter=max_iter, on_failure=on_failure, scale=scale)
    return z


def equilibrium_and_solution(f: Callable[..., Any], z0: Any, *, inputs: Sequence[Any] = (),
                             gradient: GradientRule | None = None, on_failure: OnFailure = "raise", scale: Any = None,
                             **solver_options: Any) -> tuple[Any, Solution]:
    """`equilibrium`, and the `Solution` it was attached to (under vmap: of the merged batch). Arguments as there."""
    if torch.compiler.is_compiling():  # data-dependent loops: the graph breaks here, and the equilibrium runs eagerly
        return torch.compiler.disable(equilibrium_and_solution)(
            f, z0, inputs=inputs, gradient=gradient, on_failure=on_failure, scale=scale, **solver_options)
    rule = Exact() if gradient is None else gradient
    if not isinstance(rule, GradientRule):
        raise TypeError(f"gradient must be Phantom(...), Neumann(...) or Exact(...), got {gradient!r}")
    if on_failure not in ("raise", "warn", "ignore"):
        raise ValueError(f"on_failure must be 'raise', 'warn' or 'ignore', got {on_failure!r}")

    given: tuple[Any, ...] = tuple(inputs)
    if any(isinstance(leaf, Tensor) and autocast_active(leaf) for leaf in leaves(z0)):
        # Layers before this one rounded to half precision, which f's own tensors do not have.
        z0, given = map_tensors(in_full_precision, z0), map_tensors(in_full_precision, given)
    if not is_plain(z0, given, scale):
        return _of_tree(TreeMap(f, z0, given, scale), rule, on_failure, solver_options)
    start = z0.detach()
    if not transforms_active():
        with without_autocast(start):
            z, solution = _recorded(f, start, given, rule, on_failure, solver_options)
        if listening():
            most = int(solution.iterations.max()) if len(solution.iterations) else None
            announce(Solved(f, given, solution.z, rule, most))
        return z, solution
    if isinstance(rule, Exact):
        refuse_autocast(start, "an exact equilibrium under a torch.func transform")
    with without_autocast(start):
        return _transformed(f, start, given, rule, on_failure, solver_options)


def _of_tree(tree: TreeMap, rule: GradientRule, on_failure: OnFailure,
             options: dict[str, Any]) -> tuple[Any, Solution]:
    """The equilibrium of a packed map, unpacked."""
    try:
        w, solution = equilibrium_and_solution(tree, tree.start, inputs=tree.inputs, gradient=rule,
                                               on_failure=on_failure, rounding=tree.rounding, **options)
    except NotConverged as error:
        raise NotConverged(tree.solution(error.solution)) from None
    return tree.tree(w), tree.solution(solution)


def _recorded(f: Map, start: Tensor, inputs: tuple[Tensor, ...], rule: GradientRule, on_failure: OnFailure,
              options: dict[str, Any]) -> tuple[Tensor, Solution]:
    """Outside of transforms: derivatives of recorded evaluations of f."""
    function = original((lambda z: f(z, *inputs)) if inputs else f)
    differentiable = derivatives_possible()
    try:
        # The very first evaluation is a recorded one: what f caches in it carries a graph.
        with torch.set_grad_enabled(differentiable):
            first = function(start)
    except (RuntimeError, TypeError) as error:
        explain_failure(function, start, error)
        raise
    solution = _solve(f, start, first, inputs, on_failure, options)
    if not differentiable or not (first.requires_grad or has_tangent(first)):
        return solution.z, solution
    return attach(rule, function, start, first, solution), solution


@without_tangents
def _solve(f: Map, start: Tensor, first: Tensor, inputs: tuple[Tensor, ...], on_failure: OnFailure,
           options: dict[str, Any]) -> Solution:
    first = first.detach() if isinstance(first, Tensor) else first
    solution = solve_from(f, start, first, inputs=inputs, **options)
    _report(solution, on_failure)
    return solution


def _report(solution: Solution, on_failure: OnFailure) -> None:
    """What `on_failure` asks for."""
    if on_failure == "raise":
        solution.raise_if_failed()
    elif on_failure == "warn" and not bool(solution.converged.all()):
        warnings.warn(solution.explain(), RuntimeWarning, stacklevel=4)


def _transformed(f: Map, start: Tensor, inputs: tuple[Tensor, ...], rule: GradientRule, on_failure: OnFailure,
                 options: dict[str, Any]) -> tuple[Tensor, Solution]:
    """Under torch.func transforms: f with all that it closes over as arguments."""
    map_of_z: Map = (lambda z: f(z, *inputs)) if inputs else f
    closed, value = close(map_of_z, start)
    z, solution = solve_detached(f, closed, start, value, inputs, on_failure, options)
    apply = build_preconditioner(rule, closed, z)
    image = None
    for _ in range(rule.steps):
        value = closed(z, *closed.captured)
        image = value if image is None else image
        z = z + apply(value - z)
    if rule.max_order is not None:
        assert image is not None
        z = guard(z, (image,), repr(rule), rule.max_order)
    return z, solution


def solve_detached(f: Map, closed: ClosedMap, z0: Tensor, value: Tensor, inputs: Sequence[Tensor],
                   on_failure: OnFailure, options: dict[str, Any]) -> tuple[Tensor, Solution]:
    """The detached fixed point, and its Solution (on plain tensors whatever transforms are running); value is f(z0)."""
    found: list[Solution] = []
    plain = not transforms_active()  # else `run` sees other tensors than those in `inputs` and `value`
    first = value.detach() if plain else None

    def run(function: Map, z: Tensor, *captured: Tensor) -> tuple[Tensor]:
        if plain:
            solution = solve_from(f, z, first, inputs=inputs, **options)
        else:
            require_closed(function, z, captured)
            solution = solve_from(lambda z: function(z, *captured), z, first, **options)
        _report(solution, on_failure)
        found.append(solution)
        return (solution.z,)

    (z,) = detached(run, closed, z0, closed.captured)
    return z, found[-1]
