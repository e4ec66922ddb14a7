"""Finite networks with tied random weights, to hold the infinite-width limit against: CK and empirical NTK."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deq.linear.factorise import solve

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """Weights of one random DEQ, float64.

    Attributes:
        recurrent: A, [m, m], N(0, 1).
        inputs: B, [m, p], N(0, 1).
        readout: w, [m], N(0, 1).
        sigma_a: standard deviation that multiplies A.
        sigma_b: the one that multiplies B.
        phi: the activation on tensors.
    """

    recurrent: Tensor
    inputs: Tensor
    readout: Tensor
    sigma_a: float
    sigma_b: float
    phi: Callable[[Tensor], Tensor]

    @property
    def width(self) -> int:
        """Number of hidden units m."""
        return len(self.readout)

    def cell(self, h: Tensor, x: Tensor, recurrent: Tensor | None = None, inputs: Tensor | None = None) -> Tensor:
        """One step h -> phi(sigma_a A h + sigma_b B x) / sqrt(m); h is [m, n], x is [p, n]."""
        a = self.recurrent if recurrent is None else recurrent
        b = self.inputs if inputs is None else inputs
        return self.phi(self.sigma_a * a @ h + self.sigma_b * b @ x) / np.sqrt(self.width)


def draw(width: int, p: int, sigma_a2: float, sigma_b2: float, phi: Callable[[Tensor], Tensor],
         generator: torch.Generator) -> Network:
    """A random network with tied weights."""
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return Network(normal(width, width), normal(width, p), normal(width), float(np.sqrt(sigma_a2)),
                   float(np.sqrt(sigma_b2)), phi)


def equilibrium(network: Network, x: Tensor, *, tolerance: float = 1e-12, most_steps: int = 500) -> Tensor:
    """The fixed point h, [m, n], by iteration of the cell.

    Raises:
        ArithmeticError: not converged to `tolerance` times the size of h; sigma_a is too large for this width.
    """
    h = torch.zeros(network.width, x.shape[1], dtype=torch.float64)
    for _ in range(most_steps):
        new = network.cell(h, x)
        gap = torch.linalg.norm(new - h)
        h = new
        if gap <= tolerance * torch.linalg.norm(h):
            return h
    raise ArithmeticError(f"the equilibrium of width {network.width} still moves by {float(gap):.3g} after "
                          f"{most_steps} steps; take a smaller sigma_a")


def conjugate_kernel(h: Tensor) -> Array:
    """h^T h, [n, n]: the kernel of a trained readout at finite width."""
    return (h.T @ h).numpy()


def empirical_ntk(network: Network, x: Tensor, h: Tensor, *, with_inputs: bool) -> Array:
    """The empirical tangent kernel of the scalar output w.h*(x), by automatic differentiation at the equilibrium.

    The gradient is that of the output after one exact step from the equilibrium: `w.(h + S (f(h; A, B) - h))`, S fixed,
    whose derivative in (A, B) is the implicit one. `torch.func` forms it for every sample.

    Args:
        network: the weights.
        x: data, [p, n].
        h: equilibrium, [m, n].
        with_inputs: train B as well as the readout and A.
    """
    a, b = network.recurrent, network.inputs
    kernel = (h.T @ h).clone()
    identity = torch.eye(network.width, dtype=torch.float64)
    adjoints = []
    for n in range(x.shape[1]):
        jacobian = torch.func.jacrev(network.cell)(h[:, n:n + 1], x[:, n:n + 1])[:, 0, :, 0]
        adjoints.append(solve((identity - jacobian).T, network.readout))
    left = torch.stack(adjoints, dim=1)

    def output(recurrent: Tensor, inputs: Tensor, point: Tensor, sample: Tensor, adjoint: Tensor) -> Tensor:
        return adjoint @ network.cell(point[:, None], sample[:, None], recurrent, inputs)[:, 0]

    gradient = torch.func.grad(output, argnums=(0, 1) if with_inputs else (0,))
    rows = [torch.cat([part.flatten() for part in gradient(a, b, h[:, n], x[:, n], left[:, n])])
            for n in range(x.shape[1])]
    stacked = torch.stack(rows)
    return (kernel + stacked @ stacked.T).numpy()
