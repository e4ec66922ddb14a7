"""Ready cells z = activation(W~ z + g(x)) that contract by construction; your own is any module cell(z, x)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from deq.density.affine import AffineStructure
from deq.normalize import operator_normalize

Activation = Callable[[Tensor], Tensor]


class DenseCell(nn.Module):
    """z = activation(W~ z + U x + b), W~ of 2-norm below 1 / margin; `activation` must be 1-Lipschitz.

    Args:
        input_size: d, x is [batch, d].
        state_size: n, z is [batch, n].
        activation: softplus by default (smooth, as second derivatives need).
        margin: > 1.
    """

    def __init__(self, input_size: int, state_size: int, activation: Activation = functional.softplus,
                 margin: float = 1.05) -> None:
        super().__init__()
        self.state_shape = (state_size,)
        self.recurrent = operator_normalize(nn.Linear(state_size, state_size, bias=False), "weight", margin)
        self.injection = nn.Linear(input_size, state_size)
        self.activation = activation

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """One application, [batch, n]."""
        return self.activation(self.recurrent(z) + self.injection(x))

    def affine_structure(self, x: Tensor) -> AffineStructure:
        """Its parts at x, which `EquilibriumDensity` uses for a cheaper exact Laplacian."""
        return AffineStructure(self.recurrent.weight, self.injection.weight, self.injection(x), self.activation)


class ConvolutionCell(nn.Module):
    """z = activation(W~ * z + g * x + b) on images; W~ has a proven operator norm below 1 / margin.

    Args:
        input_channels: of x [batch, c, h, w].
        state_channels: of z [batch, n, h, w].
        kernel_size: odd; the image size is kept.
        activation: must be 1-Lipschitz.
        margin: > 1.
    """

    def __init__(self, input_channels: int, state_channels: int, kernel_size: int = 3,
                 activation: Activation = functional.softplus, margin: float = 1.05) -> None:
        super().__init__()
        if kernel_size % 2 != 1:
            raise ValueError(f"kernel_size must be odd, so that the image size is kept, got {kernel_size}")
        self.state_channels = state_channels
        convolution = nn.Conv2d(state_channels, state_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.recurrent = operator_normalize(convolution, "weight", margin)
        self.injection = nn.Conv2d(input_channels, state_channels, kernel_size, padding=kernel_size // 2)
        self.activation = activation

    def initial_state(self, x: Tensor) -> Tensor:
        """Zeros [batch, n, h, w]."""
        return x.new_zeros((x.shape[0], self.state_channels, *x.shape[2:]))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """One application, [batch, n, h, w]."""
        return self.activation(self.recurrent(z) + self.injection(x))


def initial_state(cell: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
    """A start when none is known: `cell.initial_state(x)`, or zeros of `cell.state_shape`, or of x's shape."""
    if hasattr(cell, "initial_state"):
        return cell.initial_state(x)
    shape = getattr(cell, "state_shape", None)
    return torch.zeros_like(x) if shape is None else x.new_zeros((x.shape[0], *shape))
