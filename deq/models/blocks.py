"""What the models share: the equilibrium block, what can be proved of it, activations and parameter counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

import deq
from deq.names import unknown


@dataclass(frozen=True)
class WellPosedness:
    """What can be proved about the equilibria inside a model, whatever its weights become in training.

    Attributes:
        proven: True when each equilibrium map is a contraction by construction (or there is none).
        contraction: the proven bound of the Lipschitz constant in z, or None where nothing is proved.
        reason: the argument, or what is missing, in a sentence.

    Example:
        >>> from deq.models import NICE
        >>> NICE(dim=6, width=8, variant="deq").well_posedness.proven
        True
    """

    proven: bool
    contraction: float | None
    reason: str

    def __str__(self) -> str:
        return f"{'well-posed by construction' if self.proven else 'not proven well-posed'}: {self.reason}"


EXPLICIT = WellPosedness(True, None, "an explicit network; there is no equilibrium to solve for")


def frobenius_well_posedness(margin: float, kernel_size: int = 1) -> WellPosedness:
    """What `W / (margin |W|_F)` gives for a dense layer (`kernel_size=1`) or a zero-padded k x k convolution.

    A convolution is the sum of k^2 shifted 1 x 1 convolutions, so its operator norm is at most
    `sum_s |k_s|_F <= k |k|_F` (Cauchy-Schwarz); the paper's condition `|k|_F < 1` is enough for dense layers only.

    Raises:
        ValueError: `margin` is not positive.
    """
    if not margin > 0:
        raise ValueError(f"margin must be positive, not {margin}; the paper wants lambda > 1")
    bound = kernel_size / margin
    what = "the Frobenius norm bounds the operator norm" if kernel_size == 1 else (
        f"a {kernel_size} x {kernel_size} convolution has operator norm at most {kernel_size} times its Frobenius norm")
    if bound < 1:
        return WellPosedness(True, bound, f"{what}, the activation is 1-Lipschitz: f contracts by at least {bound:.6g}")
    return WellPosedness(False, None, f"{what}, which with margin {margin:g} gives {bound:.4g}: no contraction follows")


def operator_well_posedness(margin: float, factors: int = 1) -> WellPosedness:
    """What `deq.operator_normalize` gives for `factors` normalised layers in a row with 1-Lipschitz activations."""
    bound = margin ** -factors
    if bound < 1:
        return WellPosedness(True, bound, f"operator norms are bounded by construction: contraction {bound:.6g}")
    return WellPosedness(False, None, f"margin {margin:g} does not exceed 1, so the operator norm may reach 1")


@dataclass(frozen=True)
class EquilibriumOptions:
    """How a model solves for its equilibria and differentiates them; defaults are the paper's (Algorithm 1, Table 10).

    Attributes:
        gradient: any rule of `deq`; None is the paper's `deq.Phantom(steps=2)`.
        solver: name of a solver of `deq.solve`; the paper iterates plainly ("picard").
        tol: tolerance. The paper's holds the norm over the whole batch against it, which depends on batch size
            and width; here each sample converges on its own.
        max_iter: cap of the iterations.
        on_failure: what `deq.equilibrium` does for samples that do not converge.
        reuse: start from the previous equilibrium of equal shape (the paper's "prior iterations"). Off by default: the
            previous minibatch holds other samples.
    """

    gradient: Any = None
    solver: str = "picard"
    tol: float = 1e-5
    max_iter: int = 128
    on_failure: Any = "raise"
    reuse: bool = False

    def build(self, cell: nn.Module) -> nn.Module:
        """The `deq.DEQ` layer around `cell`."""
        gradient = deq.Phantom(steps=2) if self.gradient is None else self.gradient
        return deq.DEQ(cell, gradient=gradient, solver=self.solver, tol=self.tol, max_iter=self.max_iter,
                       on_failure=self.on_failure, reuse=self.reuse)


class SoftplusCell(nn.Module):
    """`f(z, u) = softplus(W z + u)`, the paper's equation (5), with the injection `u = g(x)` computed once a solve.

    Args:
        linear: W, a bias-free `Linear` or stride-1 `Conv2d`, normalised by the caller.
    """

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """One application; z and u have the same shape `[batch, ...]`."""
        return functional.softplus(self.linear(z) + u)


class QuotientCell(nn.Module):
    """`f(z, u) = softplus(W z) / n + u` with `n = margin (|W|_F + eps)`: the order of the released code."""

    def __init__(self, linear: nn.Linear | nn.Conv2d, margin: float, eps: float = 1e-6) -> None:
        super().__init__()
        self.linear, self.margin, self.eps = linear, margin, eps

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """One application; z and u have the same shape `[batch, ...]`."""
        return functional.softplus(self.linear(z)) / (self.margin * (self.linear.weight.norm() + self.eps)) + u


def normalize(module: nn.Module, kind: str, margin: float) -> nn.Module:
    """Put the paper's Frobenius or the provable operator normalisation on `module.weight`.

    Raises:
        ValueError: unknown `kind`.
    """
    if kind not in ("frobenius", "operator"):
        raise ValueError(f"normalisation {kind!r} is not known; take 'frobenius' (the paper) or 'operator' (provable)")
    rule: Callable[..., Any] = deq.frobenius_normalize if kind == "frobenius" else deq.operator_normalize
    rule(module, "weight", margin)
    return module


def count_parameters(module: nn.Module, trainable_only: bool = False) -> int:
    """Number of parameters, buffers not counted (the convention of the paper's "#Param" columns).

    Example:
        >>> import torch
        >>> from deq.models import count_parameters
        >>> count_parameters(torch.nn.Linear(3, 2))
        8
    """
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)


def equilibrium_layers(module: nn.Module) -> dict[str, deq.DEQ]:
    """All `deq.DEQ` layers inside `module` by name; each keeps its last `Solution` in `.last`.

    Example:
        >>> import torch, deq
        >>> from deq.models import equilibrium_layers
        >>> list(equilibrium_layers(torch.nn.Sequential(torch.nn.Identity(), deq.DEQ(deq.DenseCell(3, 4)))))
        ['1']
    """
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, deq.DEQ)}


def check_variant(variant: str, known: tuple[str, ...]) -> str:
    """Return `variant`, or raise ValueError that lists what is known."""
    if variant not in known:
        raise ValueError(unknown("variant", variant, known))
    return variant
