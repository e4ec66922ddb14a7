"""The mathematics of the papers: derivatives and their errors, kernels, random-matrix equivalents."""

from analysis.activations import as_activation
from analysis.errors import (
    EquationsError,
    GrowsTooFast,
    NoEquivalentNetwork,
    NoSolution,
    NotResolved,
    NotWellPosed,
    SeveralSolutions,
)
from analysis.gaussian import expect
from analysis.rmt.equations import FourEquations, solve_equations
from analysis.rmt.tau import solve_tau, well_posedness_edge

__all__ = [
    "EquationsError",
    "FourEquations",
    "GrowsTooFast",
    "NoEquivalentNetwork",
    "NoSolution",
    "NotResolved",
    "NotWellPosed",
    "SeveralSolutions",
    "as_activation",
    "expect",
    "solve_equations",
    "solve_tau",
    "well_posedness_edge",
]
