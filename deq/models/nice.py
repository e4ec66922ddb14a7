"""NICE: density estimation by additive coupling layers (Dinh et al. 2015), explicit or with equilibrium blocks.

[SM] appendix D.2 and table 4. Where the paper is silent or contradicts its released code:

- CHOICE: four coupling layers are used. The released forward pass uses two and counts four; `couplings=2` gives that.
- CHOICE: the equilibrium block is `z = softplus(W z + softplus(A y + a))`, read out by one Linear. Its literal count is
  7.14 M parameters; table 4 says 14 M and the released code allocates 19.2 M, half of it unused.
- `variant="deq-released"` is the released map `0.5 softplus(W2 softplus(W1 z + b1) + b2) / n + softplus(A y + a)` with
  `n = lambda (|W1|_F |W2|_F + 1e-12)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from deq.models.blocks import (
    EXPLICIT,
    EquilibriumOptions,
    SoftplusCell,
    WellPosedness,
    check_variant,
    frobenius_well_posedness,
    normalize,
    operator_well_posedness,
)

VARIANTS = ("explicit", "deq", "deq-released")


class ReleasedCell(nn.Module):
    """The released code's equilibrium map of a coupling layer, quotient by the product of Frobenius norms."""

    def __init__(self, width: int, margin: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.margin = margin

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """One application; z and u are `[batch, width]`."""
        norm = self.margin * (self.first.weight.norm() * self.second.weight.norm() + 1e-12)
        return 0.5 * functional.softplus(self.second(functional.softplus(self.first(z)))) / norm + u


class EquilibriumShift(nn.Module):
    """The translation of a coupling layer as an equilibrium: y `[batch, half]` to `[batch, half]`."""

    def __init__(self, half: int, width: int, cell: nn.Module, options: EquilibriumOptions) -> None:
        super().__init__()
        self.injection = nn.Sequential(nn.Linear(half, width), nn.Softplus())
        self.equilibrium = options.build(cell)
        self.readout = nn.Linear(width, half)

    def forward(self, y: Tensor) -> Tensor:
        """The shift that y gives the other half."""
        return self.readout(self.equilibrium(self.injection(y)))


def explicit_shift(half: int, width: int, layers: int) -> nn.Sequential:
    """A multilayer perceptron half -> width -> ... -> half with `layers` Linear layers and Softplus between."""
    sizes = [half] + [width] * (layers - 1) + [half]
    modules: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(sizes)):
        modules += [nn.Linear(before, after)] + ([nn.Softplus()] if index < layers - 1 else [])
    return nn.Sequential(*modules)


class NICE(nn.Module):
    """Log-density `log N(h(x); 0, I) + sum(scale)` with h volume-preserving up to `exp(scale)`.

    Args:
        dim: d, even; 784 for MNIST.
        width: hidden units, 1000 in the paper.
        layers: Linear layers of an explicit shift, 5 in the paper.
        couplings: coupling layers, 4 in the paper.
        variant: "explicit", "deq" (equation 5, literal) or "deq-released".
        normalization: "frobenius" (paper) or "operator"; both are proven for dense layers.
        margin: lambda; the paper asks for > 1 without a value, the released code has 1 + 1e-6.
        gradient, solver, tol, max_iter, on_failure, reuse: see `EquilibriumOptions`. Table 10 has tol 5e-6.

    Raises:
        ValueError: odd `dim`, unknown variant, fewer than one coupling.

    Example:
        >>> import torch
        >>> from deq.models import NICE
        >>> model = NICE(dim=6, width=8, variant="deq")
        >>> model(torch.randn(5, 6)).shape  # log density
        torch.Size([5])
    """

    def __init__(self, dim: int = 784, width: int = 1000, layers: int = 5, couplings: int = 4,
                 variant: str = "explicit", *, normalization: str = "frobenius", margin: float = 1 + 1e-6,
                 gradient: object = None, solver: str = "picard", tol: float = 5e-6, max_iter: int = 128,
                 on_failure: str = "raise", reuse: bool = False) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(f"dim must be even and positive, not {dim}: a coupling layer splits it into halves")
        if couplings < 1 or layers < 2:
            raise ValueError(f"need couplings >= 1 and layers >= 2, not {couplings} and {layers}")
        self.variant = check_variant(variant, VARIANTS)
        self.dim, self.margin, self.normalization = dim, margin, normalization
        options = EquilibriumOptions(gradient, solver, tol, max_iter, on_failure, reuse)
        half = dim // 2
        self.shifts = nn.ModuleList(self._shift(half, width, layers, options) for _ in range(couplings))
        self.scale = nn.Parameter(torch.zeros(dim))

    def _shift(self, half: int, width: int, layers: int, options: EquilibriumOptions) -> nn.Module:
        if self.variant == "explicit":
            return explicit_shift(half, width, layers)
        if self.variant == "deq-released":
            return EquilibriumShift(half, width, ReleasedCell(width, self.margin), options)
        weight = normalize(nn.Linear(width, width, bias=False), self.normalization, self.margin)
        return EquilibriumShift(half, width, SoftplusCell(weight), options)

    @property
    def well_posedness(self) -> WellPosedness:
        """What is proved of the equilibria in the shifts."""
        if self.variant == "explicit":
            return EXPLICIT
        if self.variant == "deq-released":
            bound = 0.5 / self.margin
            reason = f"two 1-Lipschitz Softplus layers over the product of their Frobenius norms: at least {bound:.4g}"
            return WellPosedness(bound < 1, bound if bound < 1 else None, reason)
        if self.normalization == "operator":
            return operator_well_posedness(self.margin)
        return frobenius_well_posedness(self.margin)

    def transform(self, x: Tensor) -> Tensor:
        """h(x): `[batch, dim]` to `[batch, dim]`."""
        first, second = x[:, 0::2], x[:, 1::2]
        for index, shift in enumerate(self.shifts):
            if index % 2 == 0:
                second = second + shift(first)
            else:
                first = first + shift(second)
        return torch.cat([first, second], dim=1) * self.scale.exp()

    def layers(self) -> list[Callable[[Tensor], Tensor]]:
        """The model as a chain for layer-wise baselines: permutation, one coupling a layer, scaled Gaussian `[batch]`.

        Their composition is `log_density`. A coupling with all its hidden units is one layer.
        """
        half = self.dim // 2

        def couple(index: int) -> Callable[[Tensor], Tensor]:
            def layer(y: Tensor) -> Tensor:
                first, second = y[:, :half], y[:, half:]
                if index % 2 == 0:
                    return torch.cat([first, second + self.shifts[index](first)], dim=1)
                return torch.cat([first + self.shifts[index](second), second], dim=1)
            return layer

        def gaussian(y: Tensor) -> Tensor:
            h = y * self.scale.exp()
            return -0.5 * h.square().sum(1) - 0.5 * self.dim * math.log(2 * math.pi) + self.scale.sum()

        def permute(x: Tensor) -> Tensor:
            return torch.cat([x[:, 0::2], x[:, 1::2]], dim=1)

        return [permute, *(couple(index) for index in range(len(self.shifts))), gaussian]

    def inverse(self, h: Tensor) -> Tensor:
        """The inverse of `transform`."""
        first, second = (h * (-self.scale).exp()).chunk(2, dim=1)
        for index, shift in reversed(list(enumerate(self.shifts))):
            if index % 2 == 0:
                second = second - shift(first)
            else:
                first = first - shift(second)
        return torch.stack([first, second], dim=2).flatten(1)

    def log_density(self, x: Tensor) -> Tensor:
        """Normalised log p(x), `[batch]`, in the space of x (MNIST: logit space, no logit Jacobian, as in table 4).

        Raises:
            ValueError: x is not `[batch, dim]`.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must be [batch, {self.dim}], not {list(x.shape)}")
        h = self.transform(x)
        return -0.5 * h.square().sum(1) - 0.5 * self.dim * math.log(2 * math.pi) + self.scale.sum()

    def forward(self, x: Tensor) -> Tensor:
        """Same as `log_density`."""
        return self.log_density(x)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` exact samples `[count, dim]`."""
        noise = torch.randn(count, self.dim, generator=generator, dtype=self.scale.dtype)
        with torch.no_grad():
            return self.inverse(noise.to(self.scale.device))
