"""Ready cells z = activation(W~ z + g(x)) that contract by construction; your own is any module cell(z, x)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deq.density.affine import AffineStructure
from deq.interop.pytree import leaves, map_tensors
from deq.normalize import operator_normalize

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Bound:
    """A cell at one x: what does not depend on z is computed already.

    Attributes:
        function: function(z, *inputs) -> z.
        inputs: tensors (or trees of tensors) with a row a sample, which leave the batch with it.

    Example:
        >>> weight, injection = torch.eye(2) / 2, torch.ones(3, 2)
        >>> bound = deq.Bound(lambda z, g: z @ weight + g, (injection,))
        >>> deq.equilibrium(bound.function, torch.zeros(3, 2), inputs=bound.inputs).shape
        torch.Size([3, 2])
    """

    function: Callable[..., Any]
    inputs: tuple[Any, ...] = ()


class DenseCell(nn.Module):
    """z = activation(W~ z + U x + b), W~ of 2-norm below 1 / margin; `activation` must be 1-Lipschitz.

    Args:
        input_size: d, x is [batch, d].
        state_size: n, z is [batch, n].
        activation: softplus by default (smooth, as second derivatives need).
        margin: > 1.

    Example:
        >>> import torch, deq
        >>> cell = deq.DenseCell(3, 8)
        >>> cell(torch.zeros(5, 8), torch.randn(5, 3)).shape
        torch.Size([5, 8])
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

    def bind(self, x: Tensor) -> Bound:
        """The cell at x, its weight normalised and its injection computed once."""
        if not _is_plain(self.recurrent, nn.Linear):
            return Bound(self, (x,))
        weight, bias, activation = self.recurrent.weight, self.recurrent.bias, self.activation
        return Bound(lambda z, injected: activation(functional.linear(z, weight, bias) + injected),
                     (self.injection(x),))

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

    Example:
        >>> import torch, deq
        >>> cell = deq.ConvolutionCell(2, 4)
        >>> deq.DEQ(cell)(torch.randn(1, 2, 6, 6)).shape
        torch.Size([1, 4, 6, 6])
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

    def bind(self, x: Tensor) -> Bound:
        """The cell at x, its weight normalised and its injection computed once."""
        part, activation = self.recurrent, self.activation
        if not _is_plain(part, nn.Conv2d):
            return Bound(self, (x,))
        weight, bias = part.weight, part.bias
        return Bound(lambda z, injected: activation(part._conv_forward(z, weight, bias) + injected),
                     (self.injection(x),))

    def initial_state(self, x: Tensor) -> Tensor:
        """Zeros [batch, n, h, w]."""
        return x.new_zeros((x.shape[0], self.state_channels, *x.shape[2:]))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """One application, [batch, n, h, w]."""
        return self.activation(self.recurrent(z) + self.injection(x))


def _is_plain(part: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether the part computes what its class of torch computes: no other forward, its own or a subclass's."""
    return isinstance(part, kind) and type(part).forward is kind.forward and "forward" not in vars(part)


def initial_state(cell: Callable[..., Any], x: Any) -> Any:
    """A start when none is known: `cell.initial_state(x)`, or zeros of `cell.state_shape`, or of x's shape.

    Raises:
        ValueError: x has tensors of integers, or of several shapes, and the cell does not say what its state is.
    """
    x = map_tensors(Tensor.detach, x)
    if hasattr(cell, "initial_state"):
        return cell.initial_state(x)
    first = next((leaf for leaf in leaves(x) if isinstance(leaf, Tensor) and leaf.is_floating_point()), None)
    shape = getattr(cell, "state_shape", None)
    if first is None or (shape is None and not isinstance(x, Tensor)):
        raise ValueError("the state's shape does not follow from x: give z0, or give the cell an attribute state_shape "
                         "or a method initial_state(x)")
    return torch.zeros_like(first) if shape is None else first.new_zeros((first.shape[0], *shape))
