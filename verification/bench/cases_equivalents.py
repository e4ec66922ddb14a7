"""The deterministic equivalent beside the exact kernel, and matching networks beside a numerical fit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import analysis
from analysis.rmt.mixtures import paper_mixture
from analysis.rmt.released import leaky_coefficients, released_fit
from verification.bench.case import Benchmark, Contestant, Role, Round, Settings, Work


def _equivalent_round(n: int, settings: Settings) -> Round:
    data = paper_mixture(n * 5 // 4).sample(np.random.default_rng(0))

    def equations() -> analysis.FourEquations:
        return analysis.solve_equations("relu", 0.25, data.statistics.tau0)

    eq = equations()

    def exact(tolerance: float) -> Tensor:
        kernels = analysis.deq_kernels(data.x, "relu", 0.25, centre=float(eq.shift), tolerance=tolerance)
        return torch.from_numpy(np.asarray(kernels.ck))

    def equivalent(solved: analysis.FourEquations) -> Tensor:
        return torch.from_numpy(analysis.equivalent_kernel(solved, data))

    contestants = [
        Contestant("deq_kernels, CK and NTK", Role.OURS, lambda: exact(1e-13)),
        Contestant("equations and equivalent CK", Role.OURS, lambda: equivalent(equations()), approximate=True,
                   note="error falls with n"),
        Contestant("equivalent CK, equations solved before", Role.OURS, lambda: equivalent(eq), approximate=True),
    ]
    p, count = data.x.shape
    work = Work(2.0 * p * count * count, 8.0 * (p * count + count * count), "one Gram matrix of the data, written once")
    return Round(contestants, exact(1e-15), 1e-10, work, facts={"p": p})


def _matching_round(percent: int, settings: Settings) -> Round:
    eq = analysis.solve_equations("relu", percent / 100)
    scale = np.array([eq.alpha1, eq.alpha1, eq.alpha1, eq.gamma2])

    def closed_form() -> Tensor:
        net = analysis.equivalent_networks(eq, "leaky_relu", depth=2)[0]
        slopes = [edge for s, d in net.parameters for edge in (s + d, s - d)]
        return torch.from_numpy(leaky_coefficients(tuple(slopes), eq.tau0) / scale)

    def fitted() -> Tensor:
        return torch.from_numpy(leaky_coefficients(released_fit(eq).parameters, eq.tau0) / scale)

    contestants = [Contestant("SLSQP fit, released", Role.BASELINE, fitted, approximate=True),
                   Contestant("equivalent_networks, all solutions", Role.OURS, closed_form,
                              note="with residuals by quadrature")]
    wanted = torch.from_numpy(np.array([eq.alpha1, eq.alpha2, eq.alpha3, eq.gamma2]) / scale)
    return Round(contestants, wanted, 1e-10, Work(0.0, 0.0, "none: a handful of scalars"))


BENCHMARKS = [
    Benchmark("equivalent", "The deterministic equivalent of the CK beside the exact one", "samples n",
              (500, 1000, 2000, 4000), _equivalent_round, "deq_kernels, CK and NTK",
              "Centred ReLU, $\\sigma_a^2 = 1/4$, the paper's mixture, $n / p = 0.8$. Error: relative, in the "
              "Frobenius norm, against the exact kernel at a tolerance a hundred times smaller."),
    Benchmark("matching", "A network of two leaky layers that matches the DEQ", "100 x sigma_a^2", (10, 20, 30),
              _matching_round, "SLSQP fit, released",
              "The coefficients of the network found, by the recursion for leaky layers, against those of the DEQ. The "
              "fit minimises their squared distance from the released start; ours solves the equations, returns both "
              "solutions and measures their residuals by quadrature."),
]
