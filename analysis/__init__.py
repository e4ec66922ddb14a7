"""The mathematics of the papers: derivatives and their errors, kernels, random-matrix equivalents."""

from analysis.activations import Activation, as_activation
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
from analysis.rmt.equivalents import EquivalentNetwork, equivalent_networks, minimal_depth
from analysis.rmt.partitions import depth_limit, depth_threshold
from analysis.rmt.tau import solve_tau, well_posedness_edge

__all__ = [
    "Activation",
    "EquationsError",
    "EquivalentNetwork",
    "FourEquations",
    "GrowsTooFast",
    "NoEquivalentNetwork",
    "NoSolution",
    "NotResolved",
    "NotWellPosed",
    "SeveralSolutions",
    "as_activation",
    "depth_limit",
    "depth_threshold",
    "equivalent_networks",
    "expect",
    "minimal_depth",
    "solve_equations",
    "solve_tau",
    "well_posedness_edge",
]
