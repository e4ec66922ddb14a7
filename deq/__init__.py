"""Deep equilibrium layers whose derivatives are right: solvers, gradient rules, objectives and the papers' models."""

from deq.solution import Solution
from deq.solvers import Anderson, Broyden, Newton, Picard, solve
from deq.status import DEQError, DerivativeOrderError, LinearSolveError, NotConverged, SolveStatus

__all__ = [
    "Anderson",
    "Broyden",
    "DEQError",
    "DerivativeOrderError",
    "LinearSolveError",
    "Newton",
    "NotConverged",
    "Picard",
    "Solution",
    "SolveStatus",
    "solve",
]
