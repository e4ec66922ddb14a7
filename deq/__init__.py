"""Deep equilibrium layers whose derivatives are right: solvers, gradient rules, objectives and the papers' models."""

from deq import losses, models
from deq.cells import Bound, ConvolutionCell, DenseCell
from deq.density.density import EquilibriumDensity
from deq.density.heads import SeparableHead
from deq.density.series import jet
from deq.equilibrium import equilibrium
from deq.gradients import Exact, GradientRule, Neumann, Phantom
from deq.layer import DEQ
from deq.normalize import frobenius_normalize, operator_norm_bound, operator_normalize
from deq.penalty import jacobian_penalty
from deq.root import argmin, root
from deq.solution import Solution
from deq.solvers import Anderson, Broyden, FixedPointSolver, Newton, Picard, solve
from deq.status import DEQError, DerivativeOrderError, LinearSolveError, MapError, NotConverged, SolveStatus
from deq.subject import Subject, SubjectError
from deq.version import __version__ as __version__
from deq.watching import TrainingWarning, WatchedFault, Watcher, watch

__all__ = [
    "DEQ",
    "Anderson",
    "Bound",
    "Broyden",
    "ConvolutionCell",
    "DEQError",
    "DenseCell",
    "DerivativeOrderError",
    "EquilibriumDensity",
    "Exact",
    "FixedPointSolver",
    "GradientRule",
    "LinearSolveError",
    "MapError",
    "Neumann",
    "Newton",
    "NotConverged",
    "Phantom",
    "Picard",
    "SeparableHead",
    "Solution",
    "SolveStatus",
    "Subject",
    "SubjectError",
    "TrainingWarning",
    "WatchedFault",
    "Watcher",
    "argmin",
    "equilibrium",
    "frobenius_normalize",
    "jacobian_penalty",
    "jet",
    "losses",
    "models",
    "operator_norm_bound",
    "operator_normalize",
    "root",
    "solve",
    "watch",
]
