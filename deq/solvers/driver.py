"""The loop around every solver: evaluation, convergence test, failure detection, and dropping of finished samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from deq.interop.precision import full_precision
from deq.linear.norms import row_norms
from deq.linear.series import SLOW
from deq.names import unknown
from deq.solution import Solution
from deq.solvers.anderson import Anderson
from deq.solvers.base import FixedPointSolver, Point, Problem, State, choose, describe_value
from deq.solvers.broyden import Broyden
from deq.solvers.newton import Newton
from deq.solvers.picard import Picard
from deq.states import TreeMap, is_plain
from deq.status import SolveStatus

__all__ = ["SOLVERS", "as_solver", "solve", "solve_from"]

SOLVERS: dict[str, type[FixedPointSolver[Any]]] = {kind.name: kind for kind in (Picard, Anderson, Broyden, Newton)}

# Every WINDOW iterations the best residual and the iterate are noted down; later ones are compared with them.
WINDOW = 32
# Compaction copies the state of the solver, so it has to get rid of at least a quarter of the rows.
COMPACT_BELOW = 0.75
# A residual below this many units of rounding of |f(z)| that no longer falls is the rounding error of f itself.
FLOOR = 1000.0
# The same for an f that computes in bfloat16 or float16 while z is kept in float32: its values are rounded once or a
# few times. Steps are dear there and digits few, so a shorter window has to do.
COARSE_FLOOR, COARSE_WINDOW = 4.0, 8
# Growth over the best residual that no contraction in a reasonable norm shows, sustained for a window.
GROWTH = 1e5


def as_solver(solver: str | FixedPointSolver[Any]) -> FixedPointSolver[Any]:
    """The solver that a name stands for, with its defaults; a solver object is returned as it is.

    Raises:
        ValueError: the name is unknown.
        TypeError: neither a name nor a solver.
    """
    if isinstance(solver, FixedPointSolver):
        return solver
    if isinstance(solver, type) and issubclass(solver, FixedPointSolver):
        raise TypeError(f"solver is {solver.__name__}, a class: create it, {solver.__name__}()")
    if not isinstance(solver, str):
        raise TypeError(f"solver is {describe_value(solver)}; give a name ({', '.join(SOLVERS)}) or a solver object")
    if solver not in SOLVERS:
        raise ValueError(unknown("solver", solver, SOLVERS))
    return SOLVERS[solver]()


def _check_arguments(z0: Tensor, inputs: Sequence[Tensor], atol: float, rtol: float, max_iter: int) -> None:
    if not isinstance(z0, Tensor):
        raise TypeError(f"z0 must be a tensor, but is {describe_value(z0)}")
    if z0.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"z0 has dtype {z0.dtype}, but a fixed point needs float32 or float64; convert it, "
                        "for example with z0.double()")
    if z0.dim() == 0:
        raise ValueError("z0 has no batch dimension; its first dimension counts the samples (z0.unsqueeze(0) for one)")
    for name, value in (("atol", atol), ("rtol", rtol)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be a finite number that is not negative")
    if atol == 0 and rtol == 0:
        raise ValueError("tol must be positive, but atol and rtol are both 0: no residual in floating point is sure to "
                         "reach that; take a few units of rounding, such as 1e-14 in float64 or 1e-6 in float32")
    if isinstance(max_iter, bool) or not isinstance(max_iter, int) or max_iter < 1:
        raise ValueError(f"max_iter is {max_iter!r}; it must be a whole number of at least 1")
    for index, tensor in enumerate(inputs):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"inputs[{index}] must be a tensor, but is {describe_value(tensor)}; "
                            "let f close over what is not a tensor of samples")
        if tensor.dim() == 0 or len(tensor) != len(z0):
            raise ValueError(f"inputs[{index}] is {describe_value(tensor)}, but its first dimension must be the "
                             f"batch of z0, {len(z0)}; let f close over what is shared by all samples")


class _Run:
    """One call of ``solve``: the samples still in the batch, and the results of those that have finished."""

    def __init__(self, problem: Problem, solver: FixedPointSolver[Any], z: Tensor, atol: float, rtol: float,
                 rounding: float | None = None) -> None:
        self.problem, self.solver, self.atol, self.rtol = problem, solver, atol, rtol
        self.rounding = rounding
        #: Residuals up to this share of |f(z)| that no longer fall are rounding; what to call that.
        self.floor = FLOOR * torch.finfo(z.dtype).eps if rounding is None else COARSE_FLOOR * rounding
        self.rest = SolveStatus.STAGNATED if rounding is None else SolveStatus.AT_ROUNDING
        self.window = WINDOW if rounding is None else COARSE_WINDOW
        batch = len(z)
        self.result = z.clone()
        self.codes, self.iterations, self.evaluations = z.new_zeros((3, batch), dtype=torch.int64).unbind()
        # From here on: rows of the samples in the batch, which may shrink.
        self.rows = torch.arange(batch, device=z.device)
        self.active = torch.ones(batch, dtype=torch.bool, device=z.device)
        self.changed = False
        # Finished samples that are still in the batch, and where they rest.
        self.done: Tensor | None = None
        self.resting_place = z
        self.best_z, self.best_norm = z, z.new_full((batch,), torch.inf)
        self.window_z = z
        self.window_best = self.window_norm = self.first_norm = self.first_size = self.best_norm
        self.last_norm = self.norm_before = self.best_norm
        # Squares that vanish matter only where the tolerance is as small as their roots.
        self.careful = atol < (torch.finfo(z.dtype).tiny / torch.finfo(z.dtype).eps) ** 0.5

    def norms(self, rows: Tensor) -> Tensor:
        """2-norms of rows, [batch]."""
        return row_norms(rows) if self.careful else torch.linalg.vector_norm(rows, dim=1)

    def finish(self, mask: Tensor, status: SolveStatus, z: Tensor, iteration: int) -> None:
        """Write down the result of these samples and count them as finished."""
        row = self.rows[mask]
        if not len(row):
            return
        self.result[row] = z[mask]
        self.codes[row] = status.code
        self.iterations[row] = iteration
        self.evaluations[row] = self.problem.evaluations
        self.active = self.active & ~mask
        self.changed = True

    def stop_tested(self, point: Point, iteration: int) -> None:
        """Finish the samples that have converged or are not finite."""
        bad = self.active & ~(point.norm + point.limit).isfinite()
        met = self.active & (point.norm <= point.limit) & ~bad
        if iteration:
            # A relative tolerance is also met when z runs away at a constant residual, as for f(z) = z + 1, and in the
            # end the residual is lost in the rounding of z. So where the tolerance has outgrown the first residual, a
            # hundredth of that one is asked for: with |z* - z0| <= |f(z0) - z0| / (1 - q), that concerns a
            # contraction only if 10 (1 - q) < rtol.
            met &= (point.norm < 0.01 * self.first_norm) | (point.limit <= 10 * self.first_norm)
            met &= point.norm < self.first_norm
            size = self.norms(point.value)
            lost = met & (4 * torch.finfo(size.dtype).eps * size > self.first_norm) & (size > 1e4 * self.first_size)
            if bool(lost.any()):
                self.finish(lost, SolveStatus.DIVERGED, self.best_z, iteration)
                met &= ~lost
        self.finish(met, SolveStatus.CONVERGED, point.z, iteration)
        if not bool(bad.any()):
            return
        if iteration == 0:
            self.finish(bad, SolveStatus.NON_FINITE_INPUT, point.z, iteration)
            return
        grew = bad & (self.last_norm > 100 * self.best_norm) & (self.last_norm > self.first_norm)
        self.finish(grew, SolveStatus.DIVERGED, self.best_z, iteration)
        self.finish(bad & ~grew, SolveStatus.NON_FINITE, self.best_z, iteration)

    def stop_hopeless(self, point: Point, iteration: int) -> None:
        """Finish the samples whose iterates repeat, blow up or rest at the rounding error; checked now and then."""
        since = iteration % self.window
        eps = torch.finfo(point.z.dtype).eps
        no_gain = self.active & (self.best_norm >= 0.999 * self.window_best)
        if since in (2, 3, 4):
            distance = self.norms(point.z - self.window_z)
            size = self.norms(point.z)
            scale = torch.minimum(point.norm, self.window_norm)
            repeats = no_gain & (distance <= 1e-5 * scale + 4 * eps * size) & (point.norm > self.floor * size)
            if bool(repeats.any()):
                self.finish(repeats, SolveStatus.CYCLING, self.best_z, iteration)
        if since == 0:
            if iteration:
                size = self.norms(self.best_z)
                resting = no_gain & (self.best_norm <= self.floor * size)
                growing = no_gain & (point.norm > GROWTH * self.best_norm) & ~resting
                if bool((resting | growing).any()):
                    self.finish(resting, self.rest, self.best_z, iteration)
                    self.finish(growing, SolveStatus.DIVERGED, self.best_z, iteration)
            self.window_best, self.window_z, self.window_norm = self.best_norm, point.z, point.norm

    def stop_failed(self, failed: Tensor, point: Point, iteration: int) -> None:
        """Finish the samples for which the solver found no step."""
        size = self.norms(point.value)
        resting = point.norm <= self.floor * size
        self.finish(failed & self.active & resting, self.rest, self.best_z, iteration)
        self.finish(failed & self.active, SolveStatus.LINEAR_SOLVE_FAILED, self.best_z, iteration)

    def stop_all(self, point: Point, iteration: int) -> None:
        """The limit is reached."""
        if self.rounding is not None:
            near = self.active & (self.best_norm <= self.floor * self.norms(self.best_z))
            self.finish(near, self.rest, self.best_z, iteration)
        grew = self.active & (self.best_norm >= 0.999 * self.first_norm)
        grew |= self.active & (point.norm > 10 * self.first_norm)
        self.finish(grew, SolveStatus.DIVERGED, self.best_z, iteration)
        self.finish(self.active, SolveStatus.MAX_ITERATIONS, self.best_z, iteration)

    def drop_finished(self, point: Point, state: State) -> tuple[Point, State]:
        """Take finished samples out of the batch if that pays, else let them rest where they are with residual 0."""
        self.changed = False
        kept = self.active.nonzero().squeeze(1)
        if len(kept) < COMPACT_BELOW * len(self.active):
            self.problem.select(kept, self.result)
            for name in ("rows", "active", "best_z", "best_norm", "window_best", "window_z", "window_norm",
                         "first_norm", "first_size", "last_norm"):
                setattr(self, name, getattr(self, name)[kept])
            self.done = None
            slow = None if point.slow is None else point.slow[kept]
            return Point(point.z[kept], point.value[kept], point.residual[kept], point.norm[kept], point.limit[kept],
                         False, slow), state.select(kept)
        self.done = (~self.active).nonzero().squeeze(1)
        self.resting_place = point.z[self.done].nan_to_num(0.0, 0.0, 0.0)
        z = point.z.index_copy(0, self.done, self.resting_place)
        residual, norm = (tensor.index_fill(0, self.done, 0.0) for tensor in (point.residual, point.norm))
        return Point(z, point.value, residual, norm, point.limit, False, point.slow), state

    def measure(self, z: Tensor, value: Tensor) -> tuple[Point, bool, Tensor]:
        """Residual and tolerance of every sample; whether some active sample has to stop; which ones are better."""
        residual = value - z
        norm = self.norms(residual)
        limit = self.norms(value).mul_(self.rtol).add_(self.atol)
        # NaN and infinity compare false, so they end up among those that stop.
        stopping = self.active > (norm > limit)
        better = norm < self.best_norm
        if self.done is not None:
            residual.index_fill_(0, self.done, 0.0)
            norm.index_fill_(0, self.done, 0.0)
            better.index_fill_(0, self.done, True)
        # Over two steps, since a single one says little of a map that is far from normal; at once where it is far off.
        slow = norm > torch.minimum(2 * SLOW * self.last_norm, SLOW**2 * self.norm_before)
        # The one host synchronisation of an iteration.
        any_stopping, all_better, any_slow = torch.stack((stopping.any(), better.all(), slow.any())).tolist()
        return Point(z, value, residual, norm, limit, all_better, slow if any_slow else None), any_stopping, better

    def loop(self, z: Tensor, max_iter: int, value: Tensor | None = None) -> None:
        """Iterate until every sample has finished; value is f(z) where it is known."""
        state: Any = None
        for iteration in range(max_iter + 1):
            point, any_stopping, better = self.measure(z, self.problem.evaluate(z) if value is None else value)
            if iteration == 0 and any_stopping and not self.careful and not bool(point.norm.isfinite().all()):
                self.careful = True  # squares that are too large are no failure of f
                point, any_stopping, better = self.measure(z, point.value)
            if iteration == 0:
                self.first_norm = point.norm
                self.first_size = self.norms(point.value)
                state = self.solver.init(point)
            if any_stopping:
                self.stop_tested(point, iteration)
            if point.improved:
                self.best_z, self.best_norm = point.z, point.norm
            else:
                self.best_z = choose(better, point.z, self.best_z)
                self.best_norm = torch.where(better, point.norm, self.best_norm)
            if iteration % self.window in (0, 2, 3, 4):
                self.stop_hopeless(point, iteration)
            if iteration == max_iter:
                self.stop_all(point, iteration)
            if self.changed:
                if not bool(self.active.any()):
                    return
                point, state = self.drop_finished(point, state)
            self.norm_before, self.last_norm = self.last_norm, point.norm
            step = self.solver.step(self.problem, point, state)
            if step.failed is not None and bool((step.failed & self.active).any()):
                self.stop_failed(step.failed, point, iteration)
                if not bool(self.active.any()):
                    return
            state, value = step.state, step.value
            if self.careful and not bool(step.z.isfinite().all()):  # inner products left the range: a plain step
                step, value = replace(step, z=choose(step.z.isfinite().all(1), step.z, point.value)), None
            z = step.z if self.done is None else step.z.index_copy(0, self.done, self.resting_place)


def solve(f: Callable[..., Any], z0: Any, *, inputs: Sequence[Any] = (),
          solver: str | FixedPointSolver[Any] = "anderson", tol: float = 1e-6, atol: float | None = None,
          rtol: float | None = None, max_iter: int = 128, scale: Any = None) -> Solution:
    """Solve z = f(z, *inputs) for every sample of a batch on its own, without derivatives.

    A sample has converged when |f(z) - z| <= atol + rtol |f(z)| in the 2-norm over its trailing dimensions. It is not
    updated any more from then on. If ``inputs`` are given, samples that have finished leave the batch, so that f is
    evaluated on fewer rows. Memory does not depend on the number of iterations. An active `torch.autocast` is switched
    off inside: f runs in the dtype of z0 and of its own tensors.

    Args:
        f: map from [batch, ...] to [batch, ...]; the samples must not influence each other.
        z0: where to start, [batch, ...], or a tree of such (tuple, list, dict, dataclass, nested); the last solution of
            a similar problem is a warm start. float32, float64, complex; bfloat16 and float16 are iterated in float32.
        inputs: tensors, or trees of tensors, with the batch as first dimension that f gets after z.
        solver: "picard", "anderson", "broyden", "newton", or a solver object.
        tol: value of atol and of rtol where these are not given.
        atol: absolute tolerance.
        rtol: relative tolerance.
        max_iter: limit on the number of steps.
        scale: a number, or a tree of numbers like z0: the units in which the entries of each leaf count in the residual
            norm of a sample, which is that of all its leaves together.

    Returns:
        The solution; look at ``converged`` or call ``raise_if_failed``, a failure is not raised here.

    Raises:
        ValueError: unknown solver, tolerance or limit out of range, inputs that do not fit the batch, or f returns
            another shape or device.
        TypeError: z0 holds no floating or complex tensors, or f returns another dtype.

    Example:
        >>> import torch, deq
        >>> solution = deq.solve(lambda z: torch.cos(z), torch.zeros(2, 1), tol=1e-5)
        >>> solution.converged.tolist(), round(float(solution.z[0]), 4)
        ([True, True], 0.7391)
    """
    inputs = tuple(inputs)
    if not is_plain(z0, inputs, scale):
        tree = TreeMap(f, z0, inputs, scale)
        return tree.solution(solve_from(tree, tree.start, None, inputs=tree.inputs, solver=solver, tol=tol, atol=atol,
                                        rtol=rtol, max_iter=max_iter, rounding=tree.rounding))
    return solve_from(f, z0, None, inputs=inputs, solver=solver, tol=tol, atol=atol, rtol=rtol, max_iter=max_iter)


@torch.no_grad()
@full_precision
def solve_from(f: Callable[..., Tensor], z0: Tensor, value: Tensor | None, *, inputs: Sequence[Tensor] = (),
               solver: str | FixedPointSolver[Any] = "anderson", tol: float = 1e-6, atol: float | None = None,
               rtol: float | None = None, max_iter: int = 128, rounding: float | None = None) -> Solution:
    """`solve` for a caller that has evaluated f already: value is f(z0, *inputs), or None. Arguments as there.

    rounding: unit of rounding of f's own dtype, where that is coarser than z0's.
    """
    chosen = as_solver(solver)
    if not tol > 0:
        raise ValueError(f"tol is {tol}; it must be positive")
    atol, rtol = float(tol if atol is None else atol), float(tol if rtol is None else rtol)
    inputs = tuple(inputs)
    _check_arguments(z0, inputs, atol, rtol, max_iter)
    z0, inputs = z0.detach(), tuple(tensor.detach() for tensor in inputs)
    problem = Problem(f, z0, inputs)
    run = _Run(problem, chosen, z0.reshape(len(z0), z0[:1].numel() if len(z0) else 0), atol, rtol, rounding)
    if len(z0):
        run.loop(run.result, max_iter, None if value is None else problem.accept(value, run.result))
    solution, fresh = _checked(run, Problem(f, z0, inputs), z0.shape)
    if inputs and not bool(solution.converged.all()) and problem.rows_matter(run.result, fresh, solution.tolerance):
        # f holds a tensor with a row a sample, or samples look at each other: none may leave it.
        return solve_from(lambda z: f(z, *inputs), z0, None, solver=chosen, atol=atol, rtol=rtol, max_iter=max_iter,
                          rounding=rounding)
    return solution


def _checked(run: _Run, problem: Problem, shape: torch.Size) -> tuple[Solution, Tensor]:
    """The solution with residuals evaluated afresh on the whole batch (a solver's word is not taken), and f there."""
    value = problem.evaluate(run.result) if len(run.result) else run.result
    residual, size = run.norms(value - run.result), run.norms(value)
    limit = run.atol + run.rtol * size
    if run.rounding is not None:
        limit = torch.maximum(limit, run.floor * size)
    # Dropping rows changes the order of summation inside f: one rounding error of the value.
    met = residual <= limit + torch.finfo(size.dtype).eps * size
    converged = (run.codes == SolveStatus.CONVERGED.code) | (run.codes == SolveStatus.AT_ROUNDING.code)
    codes = torch.where(converged & ~met, SolveStatus.RESIDUAL_TOO_LARGE.code, run.codes)
    return Solution(z=run.result.reshape(shape), converged=converged & met, residual=residual,
                    iterations=run.iterations, evaluations=run.evaluations + 1, status=codes, tolerance=limit,
                    solver=run.solver.name, rounding=run.rounding), value
