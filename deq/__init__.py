"""Deep equilibrium layers whose derivatives are right: solvers, gradient rules, objectives and the papers' models."""

from deq.solution import Solution
from deq.solvers import Anderson, Picard, solve
from deq.status import DEQError, DerivativeOrderError, LinearSolveError, NotConverged, SolveStatus

__all__ = [
    "Anderson",
    "DEQError",
    "DerivativeOrderError",
    "LinearSolveError",
    "NotConverged",
    "Picard",
    "Solution",
    "SolveStatus",
    "solve",
]
