"""Forward solves at fixed accuracy, dense and convolutional."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

import deq
from verification.bench.case import Benchmark, Contestant, Role, Round, Settings, Work
from verification.bench.problems import dense_problem

Map = Callable[[Tensor, Tensor], Tensor]
_SOLVERS = ("anderson", "picard", "broyden")


def _accuracy(settings: Settings) -> tuple[float, float]:
    """Tolerance of the solve, and the relative error that counts as right: the tolerance over 1 - q, q up to 0.8."""
    return (1e-9, 1e-8) if settings.dtype == torch.float64 else (1e-5, 1e-4)


def _contestants(f: Map, x: Tensor, start: Tensor, tolerance: float) -> tuple[list[Contestant], dict[str, str]]:
    def ours(name: str) -> Contestant:
        return Contestant(f"deq.solve {name}", Role.OURS,
                          lambda: deq.solve(f, start, inputs=(x,), solver=name, tol=tolerance, max_iter=500).z)

    def plain() -> Tensor:
        z = start
        with torch.no_grad():
            for _ in range(500):
                new = f(z, x)
                gap = (new - z).flatten(1).norm(dim=1) / new.flatten(1).norm(dim=1)
                z = new
                if gap.max() <= tolerance:
                    break
        return z

    contestants = [*(ours(name) for name in _SOLVERS), Contestant("plain Picard loop", Role.BASELINE, plain)]
    try:
        torchdeq = importlib.import_module("torchdeq")
    except ImportError as error:
        return contestants, {"torchdeq": f"not installed: {error}"}

    def peer(name: str) -> Contestant:
        layer = torchdeq.get_deq(f_solver=name, f_max_iter=200, f_tol=tolerance, f_stop_mode="rel").eval()

        def run() -> Tensor:
            with torch.no_grad():
                return layer(lambda z: f(z, x), start)[0][-1]
        return Contestant(f"torchdeq {name}", Role.PEER, run)

    return [*contestants, peer("anderson"), peer("fixed_point_iter")], {}


def _truth(f: Map, x: Tensor, start: Tensor, steps: int = 400) -> Tensor:
    z = start
    with torch.no_grad():
        for _ in range(steps):
            new = f(z, x)
            if torch.equal(new, z):
                break
            z = new
    return z


def _dense(n: int, batch: int, settings: Settings) -> Round:
    problem = dense_problem(n, 15, batch, hard=False, dtype=settings.dtype, device=settings.device)
    f: Map = lambda z, x: problem.f(z, x).detach()  # noqa: E731
    tolerance, accuracy = _accuracy(settings)
    start = problem.start(problem.x)
    contestants, absent = _contestants(f, problem.x, start, tolerance)
    size = problem.weight.element_size()
    evaluations = 8
    work = Work(evaluations * 2 * n * n * batch, evaluations * size * (n * n + 2 * n * batch),
                "eight evaluations of f, about the fewest of any solver here; W, z and f(z) moved once for each")
    return Round(contestants, _truth(f, problem.x, start), accuracy, work, absent, facts={"radius": problem.radius})


def conv_map(channels: int, inputs: int, radius: float, settings: Settings, *, image: int, seed: int = 0
             ) -> tuple[Map, Tensor, Tensor]:
    """A 3 x 3 convolution DEQ, z = softplus(w * z + v * x + 1), with df/dz of the given spectral radius.

    Returns the map, w and v. The radius is set by power iteration on the linearisation at an equilibrium, so w is
    symmetric under transposition (a self-adjoint convolution), for which power iteration is reliable.
    """
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(channels, channels, 3, 3, generator=generator, dtype=torch.float64) / (3 * channels**0.5)
    w = 0.5 * (w + w.transpose(0, 1).flip(2, 3))
    v = torch.randn(channels, inputs, 3, 3, generator=generator, dtype=torch.float64) / (3 * inputs**0.5)
    w, v = w.to(settings.device, settings.dtype), v.to(settings.device, settings.dtype)
    x = torch.randn(1, inputs, image, image, generator=generator, dtype=torch.float64).to(v)

    def with_weight(w: Tensor) -> Map:
        return lambda z, x: functional.softplus(functional.conv2d(z, w, padding=1)
                                                + functional.conv2d(x, v, padding=1) + 1)

    with torch.no_grad():
        for _ in range(4):  # the slope at the equilibrium depends on w, weakly
            f = with_weight(w)
            z = deq.solve(lambda z, f=f: f(z, x), x.new_zeros(1, channels, image, image), tol=1e-4, max_iter=300).z
            slope = torch.sigmoid(functional.conv2d(z, w, padding=1) + functional.conv2d(x, v, padding=1) + 1)
            u = torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z)
            for _step in range(60):
                u = u / u.norm()
                u = slope.sqrt() * functional.conv2d(slope.sqrt() * u, w, padding=1)
            w = w * (radius / float(u.norm()))
    return with_weight(w), w, v


def _convolution(batch: int, settings: Settings) -> Round:
    f, w, _ = conv_map(64, 3, 0.8, settings, image=32)
    x = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(w)
    start = x.new_zeros(batch, 64, 32, 32)
    tolerance, accuracy = _accuracy(settings)
    contestants, absent = _contestants(f, x, start, tolerance)
    evaluations = 15
    pixels = evaluations * batch * 2 * 32 * 32
    work = Work(pixels * 9 * 64 * 64, pixels * 64 * w.element_size(),
                "fifteen evaluations of f, about the fewest of any solver here")
    return Round(contestants, _truth(f, x, start, 150), 10 * accuracy, work, absent)


BENCHMARKS = [
    Benchmark("solve", "Forward solve to 1e-9, batch 128", "state size n", (64, 256, 1024, 4096),
              lambda n, settings: _dense(n, 128, settings), "plain Picard loop",
              "Dense map of the score-matching benchmarks, easy variant. Truth: Picard iteration until it repeats."),
    Benchmark("solve-batch", "Forward solve to 1e-9, n = 256", "batch", (1, 32, 1024),
              lambda batch, settings: _dense(256, batch, settings), "plain Picard loop",
              "The same at one state size. Truth: Picard iteration until it repeats."),
    Benchmark("solve-convolution", "Forward solve to 1e-9, 3 x 3 convolution on 32 x 32 x 64", "batch", (1, 4),
              _convolution, "plain Picard loop",
              "Spectral radius 0.8. Truth: 150 Picard steps (0.8^150 is 3e-15)."),
]
