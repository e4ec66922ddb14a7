"""Batched fixed-point solvers."""

from deq.solvers.anderson import Anderson
from deq.solvers.base import FixedPointSolver
from deq.solvers.broyden import Broyden
from deq.solvers.driver import SOLVERS, as_solver, solve
from deq.solvers.newton import Newton
from deq.solvers.picard import Picard

__all__ = ["SOLVERS", "Anderson", "Broyden", "FixedPointSolver", "Newton", "Picard", "as_solver", "solve"]
