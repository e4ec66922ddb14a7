"""The problems that several benchmarks share, and the long unrolls that are their truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

import deq
from deq.density.affine import AffineStructure

Solve = Callable[[Tensor, "DenseProblem"], Tensor]


@dataclass(frozen=True)
class DenseProblem:
    """z = softplus(W z + U x + b), log p = a.z + c |z|^2, c = 0.1, on a batch.

    Attributes:
        weight, injection, bias, amplitude: W [n, n], U [n, d], b [n], a [n]; leaves that require grad.
        x: [batch, d].
        radius: spectral radius of df/dz at the equilibrium, the largest over a few samples.
    """

    weight: Tensor
    injection: Tensor
    bias: Tensor
    amplitude: Tensor
    x: Tensor
    radius: float

    @property
    def parameters(self) -> list[Tensor]:
        """What gradients are taken in."""
        return [self.weight, self.injection, self.bias, self.amplitude]

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        """The map."""
        return functional.softplus(z @ self.weight.T + x @ self.injection.T + self.bias)

    def head(self, z: Tensor, x: Tensor) -> Tensor:
        """Log density up to a constant."""
        return z @ self.amplitude + 0.1 * z.square().sum(1)

    def start(self, x: Tensor) -> Tensor:
        """Zeros."""
        return x.new_zeros((len(x), len(self.weight)))

    def density(self, layer_options: dict | None = None) -> deq.EquilibriumDensity:
        """The same model as a module whose structure is declared."""
        cell = _Cell(self)
        head = deq.SeparableHead(lambda z: self.amplitude * z + 0.1 * z.square())
        return deq.EquilibriumDensity(deq.DEQ(cell, **(layer_options or {})), head)


class _Cell(nn.Module):
    def __init__(self, problem: DenseProblem) -> None:
        super().__init__()
        self._problem = (problem,)
        self.state_shape = (len(problem.weight),)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self._problem[0].f(z, x)

    def affine_structure(self, x: Tensor) -> AffineStructure:
        p = self._problem[0]
        return AffineStructure(p.weight, p.injection, torch.addmm(p.bias, x, p.injection.T), functional.softplus)


def dense_problem(n: int, d: int, batch: int, *, hard: bool, dtype: torch.dtype = torch.float64,
                  device: torch.device | str = "cpu", seed: int = 0) -> DenseProblem:
    """The common problem: easy (|W| = 0.8, slopes near 1/2) or hard (symmetric W, |W| = 0.95, b = 3: slopes near 1)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight = normal(n, n)
    if hard:
        weight = weight + weight.T
    weight = weight * ((0.95 if hard else 0.8) / torch.linalg.matrix_norm(weight, 2))
    bias = torch.full((n,), 3.0, dtype=torch.float64) if hard else 0.1 * normal(n)
    injection, amplitude, x = normal(n, d) / d**0.5, normal(n) / n**0.5, normal(batch, d)
    weight, injection, bias, amplitude = (t.to(device=device, dtype=dtype).requires_grad_()
                                          for t in (weight, injection, bias, amplitude))
    problem = DenseProblem(weight, injection, bias, amplitude, x=x.to(device=device, dtype=dtype), radius=float("nan"))
    some = problem.x[:4]
    with torch.no_grad():
        z = deq.solve(lambda z: problem.f(z, some), problem.start(some), tol=1e-6, max_iter=500).z
        slope = torch.sigmoid(z @ problem.weight.T + some @ problem.injection.T + problem.bias)
        jacobians = (slope.unsqueeze(2) * problem.weight).double().cpu()
        radius = float(torch.linalg.eigvals(jacobians).abs().max()) if n <= 512 else float("nan")
    return replace(problem, radius=radius)


def unroll(problem: DenseProblem, x: Tensor, steps: int) -> Tensor:
    """Picard steps with autograd on."""
    z = problem.start(x)
    for _ in range(steps):
        z = problem.f(z, x)
    return z


def enough_steps(problem: DenseProblem) -> int:
    """Steps after which third derivatives of the unroll are right to rounding: steps^3 q^steps below 1e-17."""
    q = min(max(problem.radius, 0.3) * 1.02, 0.95) if problem.radius == problem.radius else 0.8
    steps = 30
    while steps**3 * q**steps > 1e-17:
        steps += 5
    return steps


def flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """One vector."""
    return torch.cat([t.detach().flatten() for t in tensors])


def nested_loss_gradient(problem: DenseProblem, solve: Callable[[Tensor], Tensor], x: Tensor,
                         *, vectorised: bool = False) -> Tensor:
    """Parameter gradient of the exact score-matching loss with d double-backward passes through `solve(x)`.

    Args:
        problem: for head and parameters.
        solve: x to the (differentiable) equilibrium.
        x: [batch, d].
        vectorised: batch the d passes instead of a loop.
    """
    x = x.detach().clone().requires_grad_()

    def log_density(x: Tensor) -> Tensor:
        return problem.head(solve(x), x)

    if vectorised:
        loss = deq.losses.score_matching(log_density, x, mode="reverse")
        return flat(torch.autograd.grad(loss, problem.parameters))
    (score,) = torch.autograd.grad(log_density(x).sum(), x, create_graph=True)
    trace = torch.zeros_like(score[:, 0])
    for i in range(x.shape[1]):
        trace = trace + torch.autograd.grad(score[:, i].sum(), x, create_graph=True)[0][:, i]
    # A peer that loses a parameter on the way gets its zero, and the error that it deserves.
    return flat(torch.autograd.grad((0.5 * score.square().sum(1) + trace).mean(), problem.parameters,
                                    allow_unused=True, materialize_grads=True))


def true_loss_gradient(problem: DenseProblem, chunk: int = 16) -> Tensor:
    """The same by the long unroll, in float64, a few samples at a time (the graph is large)."""
    weight, injection, bias, amplitude = (p.detach().double().requires_grad_() for p in problem.parameters)
    exact = DenseProblem(weight, injection, bias, amplitude, problem.x.double(), problem.radius)
    steps = enough_steps(problem)
    total = torch.zeros((), dtype=torch.float64)
    for part in exact.x.split(chunk):
        total = total + len(part) / len(exact.x) * nested_loss_gradient(exact, lambda x: unroll(exact, x, steps), part)
    return total


def true_first_gradient(problem: DenseProblem) -> Tensor:
    """Gradient of the mean log density in x and the parameters by the long unroll, in float64."""
    weight, injection, bias, amplitude = (p.detach().double().requires_grad_() for p in problem.parameters)
    exact = DenseProblem(weight, injection, bias, amplitude, problem.x.double(), problem.radius)
    return first_gradient(exact, lambda x: unroll(exact, x, enough_steps(problem)))


def first_gradient(problem: DenseProblem, solve: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient of the mean log density in x and the parameters through `solve(x)`."""
    x = problem.x.detach().clone().requires_grad_()
    return flat(torch.autograd.grad(problem.head(solve(x), x).mean(), [x, *problem.parameters]))
