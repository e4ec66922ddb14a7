"""Score-matching losses and first-order gradients of the dense problem, beside the peers."""

from __future__ import annotations

from collections.abc import Callable

import torch

from verification.bench.case import Benchmark, Round, Settings, Work
from verification.bench.ours import gradient_contestants, loss_contestants
from verification.bench.peers import jax_contestants, torch_contestants
from verification.bench.problems import DenseProblem, dense_problem, true_first_gradient, true_loss_gradient

DIRECTIONS, BATCH = 15, 128


def _tolerance(settings: Settings) -> float:
    return 1e-12 if settings.dtype == torch.float64 else 1e-6


def _loss_work(problem: DenseProblem) -> Work:
    n, d, batch = len(problem.weight), problem.x.shape[1], len(problem.x)
    size = problem.weight.element_size()
    solve = 2 * n * n
    per_sample = 2 / 3 * n**3 + 2 * n * n * (d + 3) * 2 + 2 * n * n * d
    return Work(batch * (per_sample + 6 * solve), batch * size * (2 * n * n + 4 * d * n),
                "an LU factorisation, solves with d + 3 right-hand sides forward and backward, one product for the "
                "gradient in W and six evaluations of f; the factors written and read once, the d derivatives twice")


def _gradient_work(problem: DenseProblem) -> Work:
    n, d, batch = len(problem.weight), problem.x.shape[1], len(problem.x)
    steps = 12
    return Work(batch * 2 * n * n * (2 * steps + 1), batch * problem.weight.element_size() * (2 * n + d) * 4
                + n * n * problem.weight.element_size() * 2,
                "six evaluations of f to solve, as many transposed products for the adjoint, one product for W")


def _loss_round(hard: bool) -> Callable[[int, Settings], Round]:
    def build(n: int, settings: Settings) -> Round:
        problem = dense_problem(n, DIRECTIONS, BATCH, hard=hard, dtype=settings.dtype, device=settings.device)
        tolerance = _tolerance(settings)
        contestants = loss_contestants(problem, tolerance)
        peers, absent = torch_contestants("loss", problem, tolerance)
        others, missing, close = jax_contestants("loss", problem, tolerance, settings)
        truth = true_loss_gradient(problem)
        accuracy = 1e-10 if settings.dtype == torch.float64 else 1e-3
        return Round([*contestants, *peers, *others], truth, accuracy, _loss_work(problem), {**absent, **missing},
                     memory=True, close=close, facts={"radius": problem.radius})
    return build


def _gradient_round(n: int, settings: Settings) -> Round:
    problem = dense_problem(n, DIRECTIONS, BATCH, hard=False, dtype=settings.dtype, device=settings.device)
    tolerance = 1e-11 if settings.dtype == torch.float64 else 1e-6
    contestants = gradient_contestants(problem, tolerance)
    peers, absent = torch_contestants("gradient", problem, tolerance)
    others, missing, close = jax_contestants("gradient", problem, tolerance, settings)
    accuracy = 1e-10 if settings.dtype == torch.float64 else 1e-4
    return Round([*contestants, *peers, *others], true_first_gradient(problem), accuracy, _gradient_work(problem),
                 {**absent, **missing}, memory=True, close=close, facts={"radius": problem.radius})


_ABOUT = ("Parameter gradient of the exact score-matching loss of $\\log p = a \\cdot z + 0.1 |z|^2$, "
          "$z = \\mathrm{softplus}(W z + U x + b)$, $d = 15$, batch 128: third derivatives. Truth: a long unroll in "
          "float64. ")
_WANTED = (("score_matching(EquilibriumDensity)", 0.5, "Phantom(2), d passes"),
           ("Exact(3), plain autograd", 3.0, "Phantom(2), d passes"),
           ("Exact(3), batched passes", 3.0, "Phantom(2), d passes"),
           ("score_matching(EquilibriumDensity)", 1 / 15, "unroll, 30 steps"),
           ("score_matching(EquilibriumDensity)", 1.0, "optimistix"))

BENCHMARKS = [
    Benchmark("sm-loss", "Score-matching loss and parameter gradient, easy variant", "state size n", (16, 64, 256),
              _loss_round(False), "Phantom(2), d passes",
              _ABOUT + "Easy: $|W|_2 = 0.8$, $\\rho(J)$ about 0.28.", _WANTED),
    Benchmark("sm-loss-hard", "Score-matching loss and parameter gradient, hard variant", "state size n", (16, 64),
              _loss_round(True), "Phantom(2), d passes",
              _ABOUT + "Hard: symmetric $W$, $|W|_2 = 0.95$, $b = 3$, $\\rho(J)$ about 0.885.", _WANTED),
    Benchmark("gradient", "First-order gradient in inputs and parameters", "state size n", (16, 64, 256, 1024),
              _gradient_round, "Phantom(2)",
              "Gradient of the mean log density at 1e-10 accuracy, easy variant, batch 128. Truth: a long unroll.",
              (("Exact(1)", 1.0, "torchdeq ift"), ("Exact(1)", 1.0, "optimistix"))),
]
