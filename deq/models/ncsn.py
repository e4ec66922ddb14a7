"""Noise-conditional score networks for images: cascaded RefineNet, the two-block one, and the equilibrium one.

[SM] section 4.4, tables 5, 8, 9. CHOICES where text, tables and released code contradict each other:

- sigmas, sampler and moving average are the released code's (NCSN version 2: unconditional InstanceNorm++, ELU, 232
  geometric levels from 50 to 0.01, output divided by sigma); the paper cites version 1 and prints none of them;
- "cascaded" is table 8 literally (28.73 M parameters; table: 28 M), "cascaded-released" the released trunk (29.69 M);
- "deq" reads tables 8b and 9 as: conv 3 -> m; residual block m -> 2m; equilibrium of `R(z)/n + g(y)` with residual
  blocks R and g of 2m channels; a residual block that halves the image and one more; RefineBlocks ([2m] -> 2m),
  ([2m, 2m] -> m) with the encoder's skip. 16.93 M parameters; the table says 9 M. "deq-released" is the released trunk
  at m channels, 5.50 M. In the released code the detached term is `R(R(z*)) / n`; that slip is not rebuilt;
- "two-res" is that same net with the equilibrium map applied once, from zero ("DEQ turned off", says the text); the
  released `shallow` net is another trunk (7.39 M with one block allocated and unused): "two-res-released";
- table 8's R holds an identity shortcut and two InstanceNorm++, so no normalisation by weights makes it a contraction.
  The model says so. "deq-contractive" is ours, `R(z) = conv2(elu(conv1(elu(z))))` operator-normalised: proven.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from deq.models.blocks import (
    EXPLICIT,
    EquilibriumOptions,
    WellPosedness,
    check_variant,
    normalize,
    operator_well_posedness,
)
from deq.models.refinenet import InstanceNormPlus, RefineBlock, ResidualBlock, convolution

VARIANTS = ("cascaded", "two-res", "deq", "deq-contractive", "cascaded-released", "two-res-released", "deq-released")


def geometric_sigmas(largest: float = 50.0, smallest: float = 0.01, levels: int = 232) -> Tensor:
    """The noise levels `[levels]`, from largest to smallest in equal ratios."""
    return torch.logspace(0, 1, levels, base=smallest / largest, dtype=torch.float64) * largest


class ResidualCell(nn.Module):
    """`f(z, u) = R(z) / n + u`, R a whole residual block, `n = margin (|conv1|_F |conv2|_F + 1e-12)`."""

    def __init__(self, channels: int, margin: float) -> None:
        super().__init__()
        self.block = ResidualBlock(channels, channels)
        self.margin = margin

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """One application."""
        first, second = (torch.linalg.vector_norm(conv.weight) for conv in (self.block.conv1, self.block.conv2))
        norm = self.margin * (first * second + 1e-12)
        return self.block(z) / norm + u


class ContractiveCell(nn.Module):
    """`f(z, u) = conv2(elu(conv1(elu(z)) + b)) + u` with operator-normalised convolutions: contracts by `margin^-2`."""

    def __init__(self, channels: int, margin: float) -> None:
        super().__init__()
        self.conv1 = normalize(convolution(channels, channels), "operator", margin)
        self.conv2 = normalize(convolution(channels, channels, bias=False), "operator", margin)

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """One application."""
        return self.conv2(functional.elu(self.conv1(functional.elu(z)))) + u


class CascadedTrunk(nn.Module):
    """Four stages of two residual blocks and four RefineBlocks; `released` sets the channels of the released trunk."""

    def __init__(self, m: int, released: bool) -> None:
        super().__init__()
        first, low = (m, 2 * m) if released else (2 * m, m)
        self.stages = nn.ModuleList([
            nn.Sequential(ResidualBlock(m, m), ResidualBlock(m, first)),
            nn.Sequential(ResidualBlock(first, 2 * m, down=True), ResidualBlock(2 * m, 2 * m)),
            nn.Sequential(ResidualBlock(2 * m, 2 * m, down=True, dilation=2), ResidualBlock(2 * m, 2 * m, dilation=2)),
            nn.Sequential(ResidualBlock(2 * m, 2 * m, down=True, dilation=4), ResidualBlock(2 * m, 2 * m, dilation=4)),
        ])
        self.refine = nn.ModuleList([
            RefineBlock([2 * m], 2 * m), RefineBlock([2 * m, 2 * m], low), RefineBlock([2 * m, low], m),
            RefineBlock([first, m], m, end=True),
        ])

    def forward(self, h: Tensor) -> Tensor:
        """`[batch, m, size, size]`, same shape out."""
        layers = []
        for stage in self.stages:
            h = stage(h)
            layers.append(h)
        out = self.refine[0]([layers[-1]])
        for refine, layer in zip(list(self.refine)[1:], layers[-2::-1], strict=True):
            out = refine([layer, out])
        return out


class EquilibriumTrunk(nn.Module):
    """Tables 8b and 9 as read above; `once` applies the map a single time from zero instead of solving."""

    def __init__(self, m: int, cell: nn.Module, options: EquilibriumOptions, once: bool) -> None:
        super().__init__()
        self.enter = ResidualBlock(m, 2 * m)
        self.injection = ResidualBlock(2 * m, 2 * m)
        self.once = once
        self.equilibrium = cell if once else options.build(cell)
        self.down = nn.Sequential(ResidualBlock(2 * m, 2 * m, down=True), ResidualBlock(2 * m, 2 * m))
        self.refine = nn.ModuleList([RefineBlock([2 * m], 2 * m), RefineBlock([2 * m, 2 * m], m, end=True)])

    def forward(self, h: Tensor) -> Tensor:
        """`[batch, m, size, size]`, same shape out."""
        u = self.injection(self.enter(h))
        z = self.equilibrium(torch.zeros_like(u), u) if self.once else self.equilibrium(u)
        low = self.refine[0]([self.down(z)])
        return self.refine[1]([z, low])


class ReleasedTwoResTrunk(nn.Module):
    """The released `shallow` net; its first residual block is allocated and never used, and is kept for the count."""

    def __init__(self, m: int) -> None:
        super().__init__()
        self.unused = ResidualBlock(m, m).requires_grad_(False)
        self.blocks = nn.Sequential(ResidualBlock(m, 2 * m, down=True, dilation=2),
                                    ResidualBlock(2 * m, 2 * m, down=True, dilation=4))
        self.refine = RefineBlock([2 * m, m], m, end=True)

    def forward(self, h: Tensor) -> Tensor:
        """`[batch, m, size, size]`, same shape out."""
        return self.refine([self.blocks(h), h])


class ReleasedEquilibriumTrunk(nn.Module):
    """The released DEQ net: an equilibrium of m channels at full size, injection by the first convolution alone."""

    def __init__(self, m: int, margin: float, options: EquilibriumOptions) -> None:
        super().__init__()
        self.equilibrium = options.build(ResidualCell(m, margin))
        self.blocks = nn.Sequential(ResidualBlock(m, m), ResidualBlock(m, 2 * m))
        self.refine = nn.ModuleList([RefineBlock([2 * m, m], m, simplified=True),
                                     RefineBlock([m, m], m, end=True, simplified=True)])

    def forward(self, h: Tensor) -> Tensor:
        """`[batch, m, size, size]`, same shape out."""
        z = self.equilibrium(h)
        deep = self.refine[0]([self.blocks(z), z])
        return self.refine[1]([deep, h])


class NCSN(nn.Module):
    """Scores of noised images, `s(x, sigma) = net(2x - 1) / sigma`.

    Args:
        channels: m, 128.
        image_channels: 3.
        variant: see the module's docstring.
        sigma_max, sigma_min, levels: the geometric noise levels.
        margin: lambda, 2 in the released code; for "deq-contractive" each operator norm is at most 1/margin.
        gradient, solver, tol, max_iter, on_failure, reuse: see `EquilibriumOptions`.

    Raises:
        ValueError: unknown variant, or sigmas out of order.

    Example:
        >>> import torch
        >>> from deq.models import NCSN
        >>> model = NCSN(channels=8, image_channels=1, levels=4)
        >>> model(torch.rand(2, 1, 16, 16), torch.ones(2)).shape  # the score
        torch.Size([2, 1, 16, 16])
    """

    sigmas: Tensor

    def __init__(self, channels: int = 128, image_channels: int = 3, variant: str = "cascaded", *,
                 sigma_max: float = 50.0, sigma_min: float = 0.01, levels: int = 232, margin: float = 2.0,
                 gradient: object = None, solver: str = "picard", tol: float = 1e-5, max_iter: int = 128,
                 on_failure: str = "raise", reuse: bool = False) -> None:
        super().__init__()
        self.variant = check_variant(variant, VARIANTS)
        if not 0 < sigma_min < sigma_max or levels < 2:
            raise ValueError(f"need 0 < sigma_min < sigma_max and levels >= 2, not {sigma_min}, {sigma_max}, {levels}")
        options = EquilibriumOptions(gradient, solver, tol, max_iter, on_failure, reuse)
        m, self.margin = channels, margin
        self.register_buffer("sigmas", geometric_sigmas(sigma_max, sigma_min, levels).float())
        self.begin = convolution(image_channels, m)
        self.trunk: nn.Module
        if variant.startswith("cascaded"):
            self.trunk = CascadedTrunk(m, released=variant == "cascaded-released")
        elif variant == "two-res-released":
            self.trunk = ReleasedTwoResTrunk(m)
        elif variant == "deq-released":
            self.trunk = ReleasedEquilibriumTrunk(m, margin, options)
        else:
            cell = ContractiveCell(2 * m, margin) if variant == "deq-contractive" else ResidualCell(2 * m, margin)
            self.trunk = EquilibriumTrunk(m, cell, options, once=variant == "two-res")
        self.norm = InstanceNormPlus(m)
        self.end = convolution(m, image_channels)

    @property
    def well_posedness(self) -> WellPosedness:
        """What is proved of the equilibrium."""
        if not self.variant.startswith("deq"):
            return EXPLICIT
        if self.variant == "deq-contractive":
            return operator_well_posedness(self.margin, factors=2)
        return WellPosedness(False, None, "R(z)/n keeps an identity shortcut and InstanceNorm++, whose slope reaches "
                             "1/sqrt(eps); dividing by the norms of two kernels bounds neither")

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Score at images x `[batch, c, h, w]` in [0, 1] plus noise, for noise levels sigma `[batch]`."""
        h = self.trunk(self.begin(2 * x - 1))
        return self.end(functional.elu(self.norm(h))) / sigma[:, None, None, None]

    def score(self, x: Tensor, level: Tensor) -> Tensor:
        """Score at noise level number `level` `[batch]`, int64."""
        return self(x, self.sigmas[level])
