"""The VAE with an implicit encoder, trained through a score network (SSM-VAE); base, Aug(k) and DEQ score networks.

[SM] tables 1, 6 and 7, after Song et al. 2019 section 5.3. CHOICES where text, tables and released code differ:

- no BatchNorm anywhere (the released code has it in the noise paths, where it mixes samples and biases the trace);
- latent size 64 (the count 8.8 M of table 1 needs it), noise size 32, m = 64 channels;
- table 6 literally at any image size divisible by 16; the released CIFAR networks (3 x 3 kernels) are different ones;
- "W is the linearized version of such a layer" (table 7) is read as a bias-free convolution m -> m at full size;
- no ReLU after the encoder's last convolution (as in code); `decoder_relu` is table 6's ReLU after the first Linear.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from deq.models.blocks import (
    EXPLICIT,
    EquilibriumOptions,
    QuotientCell,
    SoftplusCell,
    WellPosedness,
    check_variant,
    frobenius_well_posedness,
    normalize,
    operator_well_posedness,
)

VARIANTS = ("base", "aug", "deq", "deq-released")
KERNEL = 5


def _down(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, KERNEL, stride=2, padding=2)


def _up(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, KERNEL, stride=2, padding=2, output_padding=1)


class ImplicitEncoder(nn.Module):
    """z = E(x, noise): the noise enters as one more image channel."""

    def __init__(self, image_size: int, image_channels: int, channels: int, latent: int, noise: int,
                 hidden: int) -> None:
        super().__init__()
        m, self.noise = channels, noise
        self.noise_to_channel = nn.Linear(noise, image_size**2)
        self.convolutions = nn.Sequential(
            _down(image_channels + 1, m), nn.ReLU(), _down(m, 2 * m), nn.ReLU(), _down(2 * m, 4 * m), nn.ReLU(),
            _down(4 * m, 8 * m))
        self.head = nn.Sequential(nn.Linear(8 * m * (image_size // 16) ** 2, hidden), nn.ReLU(),
                                  nn.Linear(hidden, latent))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """`[batch, c, size, size]` and `[batch, noise]` to `[batch, latent]`."""
        extra = functional.relu(self.noise_to_channel(noise)).view(len(x), 1, *x.shape[2:])
        return self.head(self.convolutions(torch.cat([x, extra], dim=1)).flatten(1))


class Decoder(nn.Module):
    """Mean of p(x | z), with a fixed log standard deviation per pixel."""

    def __init__(self, image_size: int, image_channels: int, channels: int, latent: int, relu: bool) -> None:
        super().__init__()
        m, self.start = channels, image_size // 16
        self.first = nn.Linear(latent, 8 * m * self.start**2)
        self.relu = relu
        self.convolutions = nn.Sequential(
            _up(8 * m, 4 * m), nn.ReLU(), _up(4 * m, 2 * m), nn.ReLU(), _up(2 * m, m), nn.ReLU(),
            _up(m, image_channels), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """`[batch, latent]` to `[batch, c, size, size]`, in [-1, 1]."""
        h = self.first(z)
        h = functional.relu(h) if self.relu else h
        return self.convolutions(h.view(len(z), -1, self.start, self.start))


class ScoreNetwork(nn.Module):
    """s(z | x) of the implicit posterior: table 1's "#Param" counts this network alone.

    Args:
        variant: "base"; "aug" (k extra convolutions, table 7); "deq" (an equilibrium in their place); "deq-released"
            (`softplus(W z) / n + softplus(g)` as in the released code).
        depth: k of Aug(k).
    """

    def __init__(self, image_size: int, image_channels: int, channels: int, latent: int, variant: str, depth: int,
                 hidden: int, normalization: str, margin: float, options: EquilibriumOptions) -> None:
        super().__init__()
        m, inputs = channels, image_channels + 1
        self.variant, self.image_size = variant, image_size
        self.latent_to_channel = nn.Linear(latent, image_size**2)
        self.augmented: nn.Module = nn.Identity()
        if variant == "aug":
            widths = [inputs] + [m] * depth
            layers = [nn.Sequential(nn.Conv2d(a, b, KERNEL, padding=2), nn.Softplus())
                      for a, b in pairwise(widths)]
            self.augmented = nn.Sequential(*layers)
        elif variant != "base":
            self.injection = nn.Conv2d(inputs, m, KERNEL, padding=2)
            weight = nn.Conv2d(m, m, KERNEL, padding=2, bias=False)
            cell = (QuotientCell(weight, margin) if variant == "deq-released"
                    else SoftplusCell(normalize(weight, normalization, margin)))
            self.equilibrium = options.build(cell)
        self.convolutions = nn.Sequential(
            _down(inputs if variant == "base" else m, m), nn.Softplus(), _down(m, 2 * m), nn.Softplus(),
            _down(2 * m, 4 * m), nn.Softplus(), _down(4 * m, 8 * m), nn.Softplus())
        self.head = nn.Sequential(nn.Linear(8 * m * (image_size // 16) ** 2, hidden), nn.Softplus(),
                                  nn.Linear(hidden, latent))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """`[batch, latent]` and `[batch, c, size, size]` to `[batch, latent]`."""
        extra = functional.softplus(self.latent_to_channel(z)).view(len(x), 1, *x.shape[2:])
        h = torch.cat([x, extra], dim=1)
        if self.variant.startswith("deq"):
            h = self.equilibrium(functional.softplus(self.injection(h)))
        else:
            h = self.augmented(h)
        return self.head(self.convolutions(h).flatten(1))


class SSMVAE(nn.Module):
    """Encoder, decoder and score network.

    Args:
        image_size: divisible by 16; 64 for CelebA, 32 for CIFAR-10.
        image_channels: c, 3.
        channels: m, 64.
        latent: size of z, 64.
        noise: size of the encoder's noise, 32.
        hidden: units of the last hidden Linear of encoder and score network, 512.
        variant: of the score network: "base", "aug", "deq", "deq-released".
        depth: k of Aug(k), 8 or 16 in the paper.
        log_std: of the decoder, -0.602 per pixel.
        decoder_relu: ReLU after the decoder's first Linear (table 6); False is the released CelebA code.
        normalization: "frobenius" (paper) or "operator" (provable at any margin above 1).
        margin: lambda; 10 is the released value, which makes 5 x 5 kernels provably contracting (5/10).
        gradient, solver, tol, max_iter, on_failure, reuse: see `EquilibriumOptions`. Table 10 has tol 1e-5.

    Raises:
        ValueError: unknown variant, image size not divisible by 16, depth below 1.

    Example:
        >>> from deq.models import SSMVAE, count_parameters
        >>> model = SSMVAE(image_size=16, image_channels=1, channels=4, latent=3, noise=2, hidden=8)
        >>> count_parameters(model) > 0
        True
    """

    def __init__(self, image_size: int = 64, image_channels: int = 3, channels: int = 64, latent: int = 64,
                 noise: int = 32, hidden: int = 512, variant: str = "base", depth: int = 8, *, log_std: float = -0.602,
                 decoder_relu: bool = True, normalization: str = "frobenius", margin: float = 10.0,
                 gradient: object = None, solver: str = "picard", tol: float = 1e-5, max_iter: int = 128,
                 on_failure: str = "raise", reuse: bool = False) -> None:
        super().__init__()
        check_variant(variant, VARIANTS)
        if image_size < 16 or image_size % 16:
            raise ValueError(f"image_size must be a multiple of 16, not {image_size}: four convolutions halve it")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self.variant, self.margin, self.normalization = variant, margin, normalization
        self.log_std, self.latent = log_std, latent
        options = EquilibriumOptions(gradient, solver, tol, max_iter, on_failure, reuse)
        self.encoder = ImplicitEncoder(image_size, image_channels, channels, latent, noise, hidden)
        self.decoder = Decoder(image_size, image_channels, channels, latent, decoder_relu)
        self.score_network = ScoreNetwork(image_size, image_channels, channels, latent, variant, depth, hidden,
                                          normalization, margin, options)

    @property
    def well_posedness(self) -> WellPosedness:
        """What is proved of the score network's equilibrium."""
        if not self.variant.startswith("deq"):
            return EXPLICIT
        if self.normalization == "operator" and self.variant == "deq":
            return operator_well_posedness(self.margin)
        return frobenius_well_posedness(self.margin, KERNEL)

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One sample z of the implicit posterior for each x."""
        noise = torch.randn(len(x), self.encoder.noise, generator=generator, dtype=x.dtype)
        return self.encoder(x, noise.to(x.device))

    def score(self, z: Tensor, x: Tensor) -> Tensor:
        """Estimate of grad_z log q(z | x), `[batch, latent]`."""
        return self.score_network(z, x)

    def reconstruction_loss(self, x: Tensor, z: Tensor) -> Tensor:
        """-log p(x | z), summed over pixels, `[batch]`."""
        error = (x - self.decoder(z)) ** 2 / (2 * math.exp(2 * self.log_std))
        return (error + 0.5 * math.log(2 * math.pi) + self.log_std).flatten(1).sum(1)

    def encoder_loss(self, x: Tensor, z: Tensor) -> Tensor:
        """`-log p(x | z) - log p(z) + stopgrad(s(z | x)) . z`, `[batch]`.

        Its value is no bound; its gradient in encoder and decoder is that of the negative ELBO wherever s is the true
        score, because the entropy's reparametrised gradient needs the score alone.
        """
        prior = 0.5 * z.square().sum(1) + 0.5 * self.latent * math.log(2 * math.pi)
        with torch.no_grad():
            score = self.score(z, x)
        return self.reconstruction_loss(x, z) + prior + (score * z).sum(1)

    def generate(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` images `[count, c, size, size]` in [-1, 1], decoded from prior samples."""
        weight = self.decoder.first.weight
        z = torch.randn(count, self.latent, generator=generator, dtype=weight.dtype).to(weight.device)
        with torch.no_grad():
            return self.decoder(z)
