"""Matrix-free second derivatives of a convolution, the cost of the trace with d, memory against solver steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import deq
from verification.bench.case import Benchmark, Contestant, Role, Round, Settings, Work
from verification.bench.cases_solvers import conv_map
from verification.bench.problems import DenseProblem, dense_problem, enough_steps, unroll

Rule = deq.GradientRule


def _hessian_product(solve: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """Gradient of a scalar of the equilibrium and its Hessian times v: a second derivative."""
    x = x.detach().clone().requires_grad_()
    z = solve(x)
    (score,) = torch.autograd.grad(z.square().mean() + z.sin().mean(), x, create_graph=True)
    (product,) = torch.autograd.grad(score, x, v)
    return torch.cat([score.detach().flatten(), product.flatten()])


def convolution_round(radius: float, channels: int, image: int, settings: Settings, *, unrolled: bool = True,
                      distance: float = 0.0, solver: str = "anderson") -> Round:
    """Score and Hessian-vector product of a convolutional DEQ, batch 1, solved from noise of the given size."""
    f, w, _ = conv_map(channels, 3, radius, settings, image=image)
    generator = torch.Generator().manual_seed(1)
    x, v = torch.randn(2, 1, 3, image, image, generator=generator, dtype=torch.float64).to(w).unbind()
    start = distance * torch.randn(1, channels, image, image, generator=generator, dtype=torch.float64).to(w)
    tolerance = 1e-10 if settings.dtype == torch.float64 else 1e-6
    options: dict[str, Any] = {"tol": tolerance, "max_iter": 1000, "solver": solver}

    def by(rule: Rule) -> Callable[[], Tensor]:
        return lambda: _hessian_product(
            lambda x: deq.equilibrium(f, start, inputs=(x,), gradient=rule, **options), x, v)

    def through(steps: int) -> Callable[[Tensor], Tensor]:
        def solve(x: Tensor) -> Tensor:
            z = torch.zeros_like(start)
            for _ in range(steps):
                z = f(z, x)
            return z
        return solve

    steps = next(k for k in range(20, 2000, 10) if k**2 * (radius * 1.01) ** k < 1e-11)
    product = 2.0 * 9 * channels**2 * image**2
    contestants = [
        Contestant("Phantom(2)", Role.BASELINE, by(deq.Phantom(2)), approximate=True),
        Contestant("Exact(2), matrix-free", Role.OURS, by(deq.Exact(2, linear="krylov", linear_tol=1e-10))),
    ]
    if unrolled:
        contestants.append(Contestant("unroll, 30 steps", Role.BASELINE,
                                      lambda: _hessian_product(through(30), x, v), approximate=True))
    size = w.element_size()
    evaluations = 45
    work = Work(evaluations * product, evaluations * 2 * channels * image**2 * size,
                "fifteen evaluations of f and two linear solves of fifteen products")
    iterations = int(deq.solve(f, start, inputs=(x,), **options).iterations.max())
    return Round(contestants, _hessian_product(through(steps), x, v), 1e-6, work, memory=True,
                 facts={"radius": radius, "iterations": iterations})


def _memory_round(decades: int, settings: Settings) -> Round:
    """Peak memory against solver steps, which a start far away takes more of; all else stays."""
    return convolution_round(0.8, 64, 32, settings, unrolled=False, distance=10.0**decades, solver="picard")


def _trace_round(d: int, settings: Settings) -> Round:
    """The Hessian trace of log p by all d products, by Hutchinson's estimate, and by the forward Laplacian."""
    problem = dense_problem(64, d, 32, hard=False, dtype=settings.dtype, device=settings.device)
    options: dict[str, Any] = {"tol": 1e-11, "max_iter": 500}
    density = problem.density(options)

    def log_density(rule: Rule) -> Callable[[Tensor], Tensor]:
        return lambda x: problem.head(
            deq.equilibrium(problem.f, problem.start(x), inputs=(x,), gradient=rule, **options), x)

    def all_products(rule: Rule) -> Callable[[], Tensor]:
        def run() -> Tensor:
            x = problem.x.detach().clone().requires_grad_()
            score = deq.losses.score_of(log_density(rule))(x)
            return deq.losses.jacobian_trace(score, x).detach()
        return run

    def hutchinson(draws: int) -> Callable[[], Tensor]:
        def run() -> Tensor:
            generator = torch.Generator().manual_seed(0)
            x = problem.x.detach().clone().requires_grad_()
            score = deq.losses.score_of(log_density(deq.Exact(2)))(x)
            total = torch.zeros_like(x[:, 0])
            for _ in range(draws):
                v = (torch.randint(0, 2, x.shape, generator=generator) * 2 - 1).to(x)
                (product,) = torch.autograd.grad(score, x, v, retain_graph=True)
                total = total + (product * v).sum(1)
            return total / draws
        return run

    n, batch = 64, 32
    work = Work(batch * (2 / 3 * n**3 + 2 * n * n * d), batch * 8 * (2 * n * n + n * d),
                "an LU factorisation and a solve with d right-hand sides")
    contestants = [
        Contestant("Phantom(2), all d products", Role.BASELINE, all_products(deq.Phantom(2)), approximate=True),
        Contestant("forward Laplacian", Role.OURS, lambda: density.score_and_laplacian(problem.x)[1]),
        Contestant("Exact(2), all d products", Role.OURS, all_products(deq.Exact(2))),
        Contestant("Exact(2), Hutchinson, 1 draw", Role.BASELINE, hutchinson(1), approximate=True),
        Contestant("Exact(2), Hutchinson, 10 draws", Role.BASELINE, hutchinson(10), approximate=True),
    ]
    return Round(contestants, _true_trace(problem), 1e-9, work, memory=True, facts={"radius": problem.radius})


def _true_trace(problem: DenseProblem) -> Tensor:
    steps = enough_steps(problem)

    def log_density(x: Tensor) -> Tensor:
        return problem.head(unroll(problem, x[None], steps), x[None])[0]

    gradient = torch.func.grad(log_density)

    def trace(x: Tensor) -> Tensor:
        return torch.func.vmap(lambda v: torch.func.jvp(gradient, (x,), (v,))[1] @ v, chunk_size=64)(
            torch.eye(len(x), dtype=x.dtype, device=x.device)).sum()

    return torch.stack([trace(x).detach() for x in problem.x.detach()])


def _depth_round(depth: int, settings: Settings) -> Round:
    """A cell of `depth` stacked layers: memory of the score, by the rules that keep a graph and by the solver's."""
    generator = torch.Generator().manual_seed(0)
    n, batch = 64, 128
    weights = [torch.randn(n, n, generator=generator, dtype=torch.float64).to(settings.device, settings.dtype)
               for _ in range(depth)]
    weights = [(w * (0.9 / torch.linalg.matrix_norm(w, 2))).requires_grad_() for w in weights]
    x = torch.randn(batch, n, generator=generator, dtype=torch.float64).to(weights[0].detach())

    def f(z: Tensor, x: Tensor) -> Tensor:
        for w in weights:
            z = torch.tanh(z @ w.T + x)
        return z

    def gradient(solve: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return lambda: torch.cat([g.flatten() for g in torch.autograd.grad(solve().square().mean(), weights)])

    def by(rule: Rule) -> Callable[[], Tensor]:
        return gradient(lambda: deq.equilibrium(f, torch.zeros_like(x), inputs=(x,), gradient=rule, tol=1e-11,
                                                max_iter=500))

    def steps(count: int) -> Callable[[], Tensor]:
        def solve() -> Tensor:
            z = torch.zeros_like(x)
            for _ in range(count):
                z = f(z, x)
            return z
        return gradient(solve)

    contestants = [Contestant("Phantom(2)", Role.BASELINE, by(deq.Phantom(2)), approximate=True),
                   Contestant("Exact(1), krylov", Role.OURS, by(deq.Exact(1, linear="krylov"))),
                   Contestant("unroll, 30 steps", Role.BASELINE, steps(30), approximate=True)]
    work = Work(20 * depth * 2 * n * n * batch, 20 * depth * 2 * n * batch * 8, "ten evaluations of f, ten products")
    return Round(contestants, steps(200)(), 1e-8, work, memory=True)


BENCHMARKS = [
    Benchmark("convolution", "Score and Hessian product, 3 x 3 convolution on 32 x 32 x 64", "100 x spectral radius",
              (80,), lambda percent, settings: convolution_round(percent / 100, 64, 32, settings), "Phantom(2)",
              "Gradient of a scalar of the equilibrium and its product with the Hessian, matrix-free, batch 1. Truth: "
              "a long unroll.", (("Exact(2), matrix-free", 3.0, "Phantom(2)"),)),
    Benchmark("memory", "Peak memory against solver steps, same map", "decades from start to solution", (0, 4, 8, 12),
              _memory_round, "Phantom(2)",
              "The map of the convolution benchmark at spectral radius 0.8, solved by plain iteration from noise of "
              "size $10^0$ to $10^{12}$: every four decades take 41 more steps, and nothing else changes. Truth: a "
              "long unroll."),
    Benchmark("depth", "Peak memory and time against the depth of the cell", "layers in the cell", (1, 4, 16),
              _depth_round, "Phantom(2)", "First-order parameter gradient of a cell of stacked layers, n = 64, batch "
              "128. Truth: 200 unrolled steps."),
    Benchmark("trace", "Hessian trace as d grows: all products, Hutchinson, forward Laplacian", "input size d",
              (2, 8, 32, 128), _trace_round, "Phantom(2), all d products",
              "Exact trace per sample, n = 64, batch 32, all products vectorised. Truth: forward-over-reverse through "
              "a long unroll."),
]
