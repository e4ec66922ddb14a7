"""Parts of the NCSN score networks: InstanceNorm++, residual and RefineNet blocks (Song and Ermon 2019, 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution(before: int, after: int, *, bias: bool = True, dilation: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the image size."""
    return nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation, bias=bias)


class InstanceNormPlus(nn.Module):
    """InstanceNorm++ without conditioning: `gamma (norm(x) + alpha (mean_c - mean) / std_c(mean_c)) + beta`.

    It is not Lipschitz with a useful constant: near a constant channel the slope is `1 / sqrt(eps)`, about 316.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.alpha = nn.Parameter(torch.empty(channels).normal_(1, 0.02))
        self.gamma = nn.Parameter(torch.empty(channels).normal_(1, 0.02))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, height, width]`, same shape out."""
        means = x.mean(dim=(2, 3), keepdim=True)
        centred = x - means
        normalised = centred / (centred.square().mean(dim=(2, 3), keepdim=True) + self.eps).sqrt()
        spread = means - means.mean(dim=1, keepdim=True)
        variance = spread.square().sum(dim=1, keepdim=True) / max(x.shape[1] - 1, 1)
        shift = spread / (variance + self.eps).sqrt() * self.alpha[:, None, None]
        return (normalised + shift) * self.gamma[:, None, None] + self.beta[:, None, None]


class MeanPooledConvolution(nn.Module):
    """A convolution followed by 2 x 2 mean pooling."""

    def __init__(self, before: int, after: int, kernel_size: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Halve the image size."""
        return functional.avg_pool2d(self.convolution(x), 2)


class ResidualBlock(nn.Module):
    """norm, ELU, conv, norm, ELU, conv, plus a shortcut.

    Args:
        before, after: channels.
        down: halve the image (without dilation), or keep it and dilate (as NCSN's "down" with dilation does).
        dilation: None for none.
    """

    def __init__(self, before: int, after: int, *, down: bool = False, dilation: int | None = None) -> None:
        super().__init__()
        middle = before if down else after
        self.norm1, self.norm2 = InstanceNormPlus(before), InstanceNormPlus(middle)
        self.shortcut: nn.Module = nn.Identity()
        rate = dilation or 1
        self.conv1 = convolution(before, middle, dilation=rate)
        self.conv2: nn.Module
        if down and dilation is None:
            self.conv2 = MeanPooledConvolution(before, after, 3)
            self.shortcut = MeanPooledConvolution(before, after, 1)
        else:
            self.conv2 = convolution(middle, after, dilation=rate)
            if down or before != after:
                self.shortcut = (nn.Conv2d(before, after, 1) if dilation is None
                                 else convolution(before, after, dilation=rate))

    def residual(self, x: Tensor) -> Tensor:
        """The branch without the shortcut."""
        h = self.conv1(functional.elu(self.norm1(x)))
        return self.conv2(functional.elu(self.norm2(h)))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, before, h, w]` to `[batch, after, h or h/2, ...]`."""
        return self.shortcut(x) + self.residual(x)


class ResidualUnit(nn.Module):
    """`blocks` times: two (ELU, bias-free conv) and a shortcut; `simplified` (released DEQ model): always one block."""

    def __init__(self, channels: int, blocks: int, simplified: bool) -> None:
        super().__init__()
        blocks = 1 if simplified else blocks
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ELU(), convolution(channels, channels, bias=False),
                          nn.ELU(), convolution(channels, channels, bias=False)) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out."""
        for block in self.blocks:
            x = x + block(x)
        return x


class RefineBlock(nn.Module):
    """Adapt each input, fuse them at the first one's resolution, chained residual pooling, output units.

    Args:
        inputs: channels of each input; a single input is not fused and must have `features` channels.
        features: channels out.
        end: three output units instead of one.
        simplified: the released DEQ model's shorter residual units.

    Raises:
        ValueError: one input whose channels differ from `features`.
    """

    def __init__(self, inputs: Sequence[int], features: int, *, end: bool = False, simplified: bool = False) -> None:
        super().__init__()
        if len(inputs) == 1 and inputs[0] != features:
            raise ValueError(f"a single input is not fused: it has {inputs[0]} channels and must have {features}")
        self.adapt = nn.ModuleList(ResidualUnit(channels, 2, simplified) for channels in inputs)
        self.fuse = nn.ModuleList(convolution(channels, features) for channels in inputs) if len(inputs) > 1 else None
        self.pool = nn.ModuleList(convolution(features, features, bias=False) for _ in range(2))
        self.output = ResidualUnit(features, 3 if end else 1, simplified)

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """Images of any sizes to one of the first one's size."""
        adapted = [unit(image) for unit, image in zip(self.adapt, images, strict=True)]
        h = adapted[0]
        if self.fuse is not None:
            size = images[0].shape[2:]
            fused = [conv(image) for conv, image in zip(self.fuse, adapted, strict=True)]
            fused = [f if f.shape[2:] == size else
                     functional.interpolate(f, size=size, mode="bilinear", align_corners=True) for f in fused]
            h = torch.stack(fused).sum(0)
        h = path = functional.elu(h)
        for conv in self.pool:
            path = conv(functional.max_pool2d(path, 5, stride=1, padding=2))
            h = h + path
        return self.output(h)
