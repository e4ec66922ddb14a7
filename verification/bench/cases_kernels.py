"""Exact infinite-width kernels beside the authors' sampling, and what follows from them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import analysis
from analysis.activations import as_activation
from analysis.kernels.sampling import sampled_kernel
from verification.bench.case import Benchmark, Contestant, Role, Round, Settings, Work
from verification.sweep import sweep

_SIGMA2 = 0.25


def _data(p: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((p, n)) / np.sqrt(p)


def _kernel_round(n: int, settings: Settings) -> Round:
    x = _data(1000, n)

    def exact(tolerance: float) -> Tensor:
        ck, ntk = analysis.deq_kernels(x, "relu", _SIGMA2, tolerance=tolerance)
        return torch.from_numpy(np.concatenate([np.ravel(ck), np.ravel(ntk)]))

    work = Work(2.0 * 1000 * n * n, 4 * 8.0 * n * n, "one Gram matrix of the data; three kernels written, one read")
    # The truth is the same map at another route: see tests of analysis.kernels against mpmath; here tightened by 100.
    return Round([Contestant("deq_kernels, CK and NTK", Role.OURS, lambda: exact(1e-13))], exact(1e-15), 1e-10, work)


def _sampling_round(p: int, settings: Settings) -> Round:
    n = 200
    x = _data(p, n)
    activation = as_activation("relu")
    ck, _ = analysis.deq_kernels(x, "relu", _SIGMA2)
    sampled = sampled_kernel(x, activation, _SIGMA2, np.random.default_rng(1), draws=min(20, max(1, p * p // 1000)))
    contestants = [
        Contestant("authors' sampling, whole scheme", Role.BASELINE, lambda: torch.from_numpy(sampled.ck),
                   clock=lambda: sampled.full_seconds, approximate=True,
                   note=f"{sampled.full_draws} networks, timed on {sampled.draws}"),
        Contestant("deq_kernels, CK", Role.OURS,
                   lambda: torch.from_numpy(np.asarray(analysis.deq_kernels(x, "relu", _SIGMA2).ck))),
    ]
    work = Work(2.0 * p * n * n, 3 * 8.0 * n * n, "one Gram matrix of the data; two kernels written, one read")
    return Round(contestants, torch.from_numpy(np.asarray(ck)), 1e-10, work,
                 facts={"draws": sampled.draws, "full_draws": sampled.full_draws})


def grid_point(activation: str, sigma_a2: float, n: int) -> np.ndarray:
    """CK and NTK of one network of the grid on the common data, summed into one matrix [n, n]."""
    ck, ntk = analysis.deq_kernels(_data(100, n), activation, sigma_a2)
    return np.asarray(ck) + np.asarray(ntk)


def kernel_grid(n: int, *, jobs: int | None = 1) -> np.ndarray:
    """Kernels over activations and variances, by `verification.sweep.sweep`: on a cluster where one is configured."""
    points = [(activation, sigma_a2, n) for activation in ("relu", "erf", "leaky_relu") for sigma_a2 in (0.1, 0.2, 0.3)]
    return np.stack(sweep(grid_point, points, jobs=jobs))


def _grid_round(n: int, settings: Settings) -> Round:
    def by(jobs: int | None) -> Tensor:
        return torch.from_numpy(kernel_grid(n, jobs=jobs))

    contestants = [Contestant("one process", Role.BASELINE, lambda: by(1)),
                   Contestant("all cores", Role.OURS, lambda: by(None))]
    work = Work(9 * 2.0 * 100 * n * n, 9 * 4 * 8.0 * n * n, "nine Gram matrices; nine times three kernels written")
    serial = torch.from_numpy(np.stack([grid_point(a, s, n) for a in ("relu", "erf", "leaky_relu")
                                        for s in (0.1, 0.2, 0.3)]))
    return Round(contestants, serial, 1e-12, work)


BENCHMARKS = [
    Benchmark("kernels", "Exact CK and NTK of a DEQ", "samples n", (500, 1000, 2000, 4000, 8000), _kernel_round,
              "deq_kernels, CK and NTK", "ReLU, $\\sigma_a^2 = 1/4$, p = 1000, float64. Checked against a tolerance a "
              "hundred times smaller; the tests hold the kernels against 50-digit arithmetic and finite networks."),
    Benchmark("kernels-sampling", "Exact CK beside the authors' sampling of finite networks", "input size p",
              (500, 1000, 2000), _sampling_round, "authors' sampling, whole scheme",
              "n = 200 samples. The scheme draws floor(p^2 / 1000) networks of width 1000; its time is that of a part "
              "of the draws in proportion, its error that of that part.",
              (("deq_kernels, CK", 1e-3, "authors' sampling, whole scheme"),)),
    Benchmark("kernels-grid", "A sweep of kernels over nine networks, on one core and on all", "samples n", (500, 2000),
              _grid_round, "one process", "The sweep runs through joblib; inside "
              "`joblib.parallel_config(backend='dask')` the same call runs on a Dask cluster."),
]
