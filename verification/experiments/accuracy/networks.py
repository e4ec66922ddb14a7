"""The six networks of the experiment: random weights scaled by one over the root of the width, or all trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from analysis.activations import as_activation
from analysis.gaussian import moments_at
from analysis.rmt.equations import solve_equations
from analysis.rmt.networks import equivalent_networks
from deq import DEQ, Exact, solve

Phi = Callable[[Tensor], Tensor]

MODELS = ("relu DEQ", "leaky ReLU equivalent", "plain ReLU", "tanh DEQ", "hard tanh equivalent", "plain tanh")


@dataclass(frozen=True)
class Architecture:
    """What is computed: one equilibrium layer or a few explicit ones, with variances and centring settled.

    Attributes:
        name: one of `MODELS`.
        layers: activations on tensors; a DEQ has one.
        sigma_a2: of the recurrent weights; None for an explicit network.
    """

    name: str
    layers: tuple[Phi, ...]
    sigma_a2: float | None = None

    @property
    def implicit(self) -> bool:
        """Whether it is a DEQ."""
        return self.sigma_a2 is not None

    def operations(self, width: int, p: int, steps: float) -> float:
        """Multiplications and additions of one forward pass of one sample; `steps` of the solver for a DEQ."""
        recurrent = steps if self.implicit else len(self.layers) - 1
        return 2.0 * width * p + 2.0 * recurrent * width**2


def _shifted(phi: Phi, factor: float, shift: float) -> Phi:
    return lambda x: factor * (phi(x) - shift)


def _plain(name: str, phi: Phi, depth: int, gamma2: float) -> Architecture:
    """A plain network of the same depth: centred, unit variance between layers, last variance gamma^2."""
    one = np.array([1.0])
    found = moments_at(as_activation("relu" if "ReLU" in name else "tanh"), one)
    mean, spread = float(found.mean[0]), float(np.sqrt(found.variance[0]))
    factors = [1 / spread] * (depth - 1) + [np.sqrt(gamma2) / spread]
    return Architecture(name, tuple(_shifted(phi, float(factor), mean) for factor in factors))


def _leaky(slope: float, bend: float, shift: float) -> Phi:
    return lambda x: slope * x + bend * x.abs() - shift


def _clip(scale: float, clip: float) -> Phi:
    return lambda x: scale * x.clamp(-clip, clip)


def architectures(sigma_a2: float, *, equivalent_sigma_a2: float | None = None,
                  names: Sequence[str] = MODELS) -> list[Architecture]:
    """The networks, all for one sigma_a^2 and inputs of mean squared norm 1.

    Args:
        sigma_a2: of the DEQs.
        equivalent_sigma_a2: what the explicit equivalents are matched at; the same unless given (the released code
            matches them at other values than it runs the DEQs at).
        names: which of `MODELS`.

    Raises:
        NoEquivalentNetwork: there is no equivalent at this sigma_a^2.
        ValueError: an unknown name.
    """
    unknown = set(names) - set(MODELS)
    if unknown:
        raise ValueError(f"unknown model {sorted(unknown)[0]!r}; known: {', '.join(MODELS)}")
    matched = sigma_a2 if equivalent_sigma_a2 is None else equivalent_sigma_a2
    relu, tanh = (solve_equations(name, sigma_a2) for name in ("relu", "tanh"))
    leaky = equivalent_networks(solve_equations("relu", matched), "leaky_relu")[0]
    hard = equivalent_networks(solve_equations("tanh", matched), "hard_tanh")[0]
    built = {
        "relu DEQ": Architecture("relu DEQ", (_shifted(torch.relu, 1.0, float(relu.shift)),), sigma_a2),
        "leaky ReLU equivalent": Architecture("leaky ReLU equivalent", tuple(
            _leaky(s, d, shift) for (s, d), shift in zip(leaky.parameters, leaky.shifts, strict=True))),
        "plain ReLU": _plain("plain ReLU", torch.relu, leaky.depth, float(relu.gamma2)),
        "tanh DEQ": Architecture("tanh DEQ", (torch.tanh,), sigma_a2),
        "hard tanh equivalent": Architecture("hard tanh equivalent", tuple(_clip(a, c) for a, c in hard.parameters)),
        "plain tanh": _plain("plain tanh", torch.tanh, hard.depth, float(tanh.gamma2)),
    }
    return [built[name] for name in names]


class _Cell(nn.Module):
    """z -> phi(sigma_a A z + sigma_b B x) / sqrt(m)."""

    def __init__(self, phi: Phi, recurrent: nn.Parameter, inputs: nn.Parameter, sigma_a2: float) -> None:
        super().__init__()
        self.phi, self.recurrent, self.inputs = phi, recurrent, inputs
        self.sigma_a, self.sigma_b = float(np.sqrt(sigma_a2)), float(np.sqrt(1 - sigma_a2))

    def initial_state(self, x: Tensor) -> Tensor:
        """Zeros, [batch, m]."""
        return x.new_zeros(len(x), len(self.recurrent))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """One step."""
        drive = self.sigma_a * z @ self.recurrent.T + self.sigma_b * x @ self.inputs.T
        return self.phi(drive) / len(self.recurrent) ** 0.5


class RandomNetwork(nn.Module):
    """One of the architectures with N(0, 1) weights and a linear readout that starts at zero.

    Args:
        architecture: what to compute.
        width: hidden units a layer.
        p: input dimension.
        classes: outputs.
        generator: for the weights.
        tolerance: of the DEQ's solver, relative per sample.
    """

    def __init__(self, architecture: Architecture, width: int, p: int, classes: int, generator: torch.Generator, *,
                 tolerance: float = 1e-5) -> None:
        super().__init__()
        self.architecture, self.width, self.tolerance = architecture, width, tolerance
        self.p = p

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator))

        self.inputs = normal(width, p)
        self.hidden = nn.ParameterList(
            normal(width, width) for _ in range(1 if architecture.implicit else len(architecture.layers) - 1))
        self.readout = nn.Linear(width, classes)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)
        self.layer: DEQ | None = None
        if architecture.sigma_a2 is not None:
            cell = _Cell(architecture.layers[0], self.hidden[0], self.inputs, architecture.sigma_a2)
            self.layer = DEQ(cell, Exact(order=1), solver="picard", tol=tolerance, max_iter=100)

    def features(self, x: Tensor) -> Tensor:
        """Hidden activations h, [batch, width], differentiable in every weight."""
        if self.layer is not None:
            return self.layer(x)
        h = self.architecture.layers[0](x @ self.inputs.T) / self.width**0.5
        for phi, weight in zip(self.architecture.layers[1:], self.hidden, strict=True):
            h = phi(h @ weight.T) / self.width**0.5
        return h

    @torch.no_grad()
    def fixed_features(self, x: Tensor, batch: int = 4096) -> tuple[Tensor, float, float]:
        """Features of all samples, mean solver steps (0 for explicit networks), and seconds taken."""
        start = time.perf_counter()
        parts, steps = [], []
        for part in x.split(batch):
            if self.layer is None:
                parts.append(self.features(part))
            else:
                found = solve(lambda z, part=part: self.layer.cell(z, part),  # type: ignore[union-attr, misc]
                              self.layer.start(part), solver="picard", tol=self.tolerance, max_iter=100)
                parts.append(found.z)
                steps.append(float(found.iterations.double().mean()) * len(part))
        return torch.cat(parts), sum(steps) / len(x), time.perf_counter() - start

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        return self.readout(self.features(x))


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in network.parameters())


