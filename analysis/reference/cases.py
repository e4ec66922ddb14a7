"""Randomly drawn equilibria for property checks: dense, two-block and convolutional maps that provably contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from analysis.convolution_norms import fourier_bound
from analysis.phantom.equilibrium_point import EPS, EquilibriumPoint, Map, equilibrium_point, newton_equilibrium

SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": functional.softplus,
    "tanh": torch.tanh,
    "swish": lambda v: v * torch.sigmoid(v) / 1.0998394,  # divided by its Lipschitz constant, rounded up
    "erf": lambda v: torch.erf(v) * math.sqrt(math.pi) / 2,
    "sin": torch.sin,
}
"""Smooth activations with Lipschitz constant at most 1."""


@dataclass(frozen=True)
class Case:
    """One drawn equilibrium.

    Attributes:
        kind: "dense", "blocks" or "convolution".
        f: the map of a single sample, flat shapes.
        point: the checked equilibrium.
        contraction: an upper bound of |df/dz|_2 everywhere, below 1.
        activation: its name.
        parameters: W, U, b of a dense case; empty for others.
    """

    kind: str
    f: Map
    point: EquilibriumPoint
    contraction: float
    activation: str
    parameters: tuple[Tensor, ...] = ()

    def tolerance(self, order: int) -> float:
        """Relative error that rounding and z*'s residual explain in a derivative of this order.

        A disturbance of z* by cond * residual moves J, and each order passes through one more solve: cond^(order + 1),
        times n eps for the sums, times 50 for the constants (derivatives of f of order one, both routes).
        """
        n = self.point.z.numel()
        return 50 * (n * EPS + self.point.residual) * self.point.condition ** (order + 1)

    def unroll_steps(self) -> int:
        """How many applications of f leave K^2 q^K below rounding, q the spectral radius of J."""
        radius = float(torch.linalg.eigvals(self.point.jacobian).abs().max())
        return 12 + int(45 / -math.log(min(max(radius, 0.1), 0.9999)))

    @property
    def label(self) -> str:
        """Short description for messages."""
        return (f"{self.kind} n={self.point.z.numel()} d={self.point.x.numel()} {self.activation} "
                f"contraction={self.contraction:g}")


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _with_norm(weight: Tensor, norm: float) -> Tensor:
    return norm * weight / torch.linalg.matrix_norm(weight, 2)


def _finish(kind: str, f: Map, x: Tensor, n: int, contraction: float, activation: str,
            parameters: tuple[Tensor, ...] = ()) -> Case:
    z = newton_equilibrium(f, x, torch.zeros(n, dtype=torch.float64))
    return Case(kind, f, equilibrium_point(f, x, z), contraction, activation, parameters)


def dense_case(generator: torch.Generator, n: int, d: int, contraction: float, activation: str = "softplus") -> Case:
    """Draw z = act(W z + U x + b), |W|_2 = contraction."""
    act = SMOOTH[activation]
    weight = _with_norm(draw(generator, n, n), contraction)
    inject, bias, x = draw(generator, n, d) / math.sqrt(d), draw(generator, n), draw(generator, d)

    def f(z: Tensor, u: Tensor) -> Tensor:
        return act(weight @ z + inject @ u + bias)

    return _finish("dense", f, x, n, contraction, activation, (weight, inject, bias))


def blocks_case(generator: torch.Generator, n: int, d: int, contraction: float, activation: str = "softplus") -> Case:
    """Two blocks: z = act(W2 act(W1 z + U x + b) + V x), |W2|_2 |W1|_2 = contraction."""
    act = SMOOTH[activation]
    root = math.sqrt(contraction)
    first, second = _with_norm(draw(generator, n, n), root), _with_norm(draw(generator, n, n), root)
    inject, again = draw(generator, n, d) / math.sqrt(d), draw(generator, n, d) / math.sqrt(d)
    bias, x = draw(generator, n), draw(generator, d)

    def f(z: Tensor, u: Tensor) -> Tensor:
        return act(second @ act(first @ z + inject @ u + bias) + again @ u)

    return _finish("blocks", f, x, n, contraction, activation)


def convolution_case(generator: torch.Generator, channels: int, size: int, d: int, contraction: float,
                     activation: str = "softplus") -> Case:
    """Draw z = act(conv3x3 z + U x) on [channels, size, size] images, kernel scaled by its Fourier bound; flat n."""
    act = SMOOTH[activation]
    kernel = draw(generator, channels, channels, 3, 3)
    kernel = kernel * (contraction / fourier_bound(kernel, size, size))
    n = channels * size * size
    inject, x = draw(generator, n, d) / math.sqrt(d), draw(generator, d)

    # The same linear map as a matrix: nested forward mode is slow on small convolutions.
    basis = torch.eye(n, dtype=torch.float64).reshape(n, channels, size, size)
    matrix = functional.conv2d(basis, kernel, padding=1).reshape(n, n).T

    def f(z: Tensor, u: Tensor) -> Tensor:
        return act(matrix @ z + inject @ u)

    return _finish("convolution", f, x, n, contraction, activation)


def draw_cases(generator: torch.Generator, count: int, *, largest: int = 10,
               contractions: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9, 0.99)) -> Iterator[Case]:
    """A stream of `count` cases: kinds, sizes, activations and contraction factors at random."""
    names = sorted(SMOOTH)

    def pick(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    for index in range(count):
        contraction, activation = contractions[pick(len(contractions))], names[pick(len(names))]
        n, d = 1 + pick(largest), 1 + pick(4)
        if index % 4 == 3:
            yield convolution_case(generator, 1 + pick(2), 2 + pick(2), d, max(contraction, 0.1), activation)
        elif index % 4 == 2:
            yield blocks_case(generator, n, d, contraction, activation)
        else:
            yield dense_case(generator, n, d, contraction, activation)
