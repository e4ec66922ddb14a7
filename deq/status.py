"""What can happen to a solve, in words a user can act on, and the errors raised when it is not what was asked for."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deq.solution import Solution

__all__ = ["DEQError", "DerivativeOrderError", "LinearSolveError", "MapError", "NotConverged", "SolveStatus"]


class SolveStatus(Enum):
    """How the solve of one sample ended; the value says what happened and what to do, ``code`` is its integer.

    Example:
        >>> import torch, deq
        >>> deq.solve(lambda z: 0.99 * z + 1, torch.zeros(1, 1), solver="picard", max_iter=5).statuses()[0].name
        'MAX_ITERATIONS'
    """

    CONVERGED = "The residual |f(z) - z| meets the tolerance."
    MAX_ITERATIONS = ("The iteration limit was reached before the residual met the tolerance: raise max_iter, loosen "
                      "tol, or take a faster solver ('newton' for a slowly contracting f).")
    DIVERGED = ("The residual grew, or did not fall at all: f does not contract here. Normalise its weights so that "
                "the spectral radius of df/dz is below 1 (deq.operator_normalize), or try solver='newton'.")
    CYCLING = ("The iterates repeat with a period of 2 to 4 and will never converge: df/dz has eigenvalues at or "
               "outside the unit circle. Use damping (Picard(damping=0.5)), or solver='anderson' or 'newton'.")
    STAGNATED = ("The residual stopped at the rounding error of this dtype, above the tolerance: ask for a tolerance "
                 "that the dtype can reach, or compute in float64.")
    NON_FINITE = ("f returned NaN or infinity at a finite z on the way: check the domain of f (log, sqrt, division), "
                  "or start closer to the solution.")
    NON_FINITE_INPUT = ("Your input was already NaN or infinite: z0, or f(z0) and so the input or the parameters that "
                        "f uses, is not finite. Clean it before solving.")
    RESIDUAL_TOO_LARGE = ("The solver met the tolerance, but a fresh evaluation of f at its answer does not: f is not "
                          "deterministic. Switch off dropout and noise inside f, and statistics over the batch.")
    LINEAR_SOLVE_FAILED = ("The Newton system (I - df/dz) d = f(z) - z gave no step that lowers the residual: "
                           "I - df/dz is singular or nearly so here. Start elsewhere, or use solver='anderson'.")
    AT_ROUNDING = ("The residual rests at the rounding of the low-precision dtype that f computes in (bfloat16, "
                   "float16): as good as it gets there, and taken as converged. Compute f in float32 for more digits.")

    @property
    def code(self) -> int:
        """The integer that stands for this status in ``Solution.status``; 0 is CONVERGED."""
        return _CODES[self]

    @property
    def page(self) -> str:
        """Where the documentation says more: the section of this status in `docs/failures.md`.

        Example:
            >>> SolveStatus.CYCLING.page
            'docs/failures.md#cycling'
        """
        return f"docs/failures.md#{self.name.lower()}"

    @classmethod
    def from_code(cls, code: int) -> SolveStatus:
        """The status that an entry of ``Solution.status`` stands for."""
        return _MEMBERS[code]


_MEMBERS = tuple(SolveStatus)
_CODES = {status: code for code, status in enumerate(_MEMBERS)}


class DEQError(Exception):
    """Base of the errors of this package that are about equilibria, not about arguments.

    Example:
        >>> import deq
        >>> issubclass(deq.NotConverged, deq.DEQError)
        True
    """


class NotConverged(DEQError, RuntimeError):
    """A fixed point was not found for at least one sample.

    Attributes:
        solution: the ``Solution`` with the best iterate, the residual and the status of every sample.

    Example:
        >>> import torch, deq
        >>> try:
        ...     deq.equilibrium(lambda z: 2 * z + 1, torch.zeros(4, 1), solver="picard")
        ... except deq.NotConverged as error:
        ...     print(error.solution.converged.tolist())
        [False, False, False, False]
    """

    def __init__(self, solution: Solution) -> None:
        self.solution = solution
        super().__init__(solution.explain())


class DerivativeOrderError(DEQError):
    """A derivative of an order was asked for that the gradient rule does not provide.

    Example:
        >>> import torch, deq
        >>> x = torch.ones(1, 1, requires_grad=True)
        >>> z = deq.equilibrium(lambda z: torch.tanh(0.5 * z + x), torch.zeros(1, 1), gradient=deq.Exact(order=1))
        >>> (slope,) = torch.autograd.grad(z.sum(), x, create_graph=True)
        >>> try:
        ...     torch.autograd.grad(slope.sum(), x)
        ... except deq.DerivativeOrderError:
        ...     print("raise the order")
        raise the order
    """


class LinearSolveError(DEQError, RuntimeError):
    """An adjoint or tangent system with I - df/dz could not be solved: it is singular or the limit was reached.

    Example:
        >>> import torch, deq
        >>> x = torch.zeros(1, 1, requires_grad=True)
        >>> try:  # z = z + x^2 at x = 0: every z is an equilibrium, and I - df/dz = 0
        ...     deq.equilibrium(lambda z: z + x**2, torch.zeros(1, 1)).sum().backward()
        ... except deq.LinearSolveError:
        ...     print("no derivative there")
        no derivative there
    """


class MapError(DEQError, RuntimeError):
    """The map is not one whose equilibrium has the derivative that was asked for; the message says what to change.

    Samples that are coupled where a rule needs them apart, equal calls with different values, tensors that a
    `torch.func` transform cannot follow.

    Example:
        >>> import torch, deq
        >>> issubclass(deq.MapError, deq.DEQError)
        True
    """
