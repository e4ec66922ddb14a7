"""Grids of image samples."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import torch
from torch import Tensor


def image_grid(images: Tensor, columns: int = 8, padding: int = 2) -> Tensor:
    """Lay images `[n, c, h, w]` (c = 1 or 3, values in [0, 1]) out on white, row by row: `[3, H, W]`.

    Raises:
        ValueError: another number of channels or no images.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images must be [n >= 1, 1 or 3, h, w], not {list(images.shape)}")
    images = images.detach().cpu().float().clamp(0, 1).expand(-1, 3, -1, -1)
    n, _, height, width = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    grid = torch.ones(3, rows * (height + padding) + padding, columns * (width + padding) + padding)
    for index, image in enumerate(images):
        top = padding + index // columns * (height + padding)
        left = padding + index % columns * (width + padding)
        grid[:, top:top + height, left:left + width] = image
    return grid


def save_image_grid(path: Path, images: Tensor, columns: int = 8) -> None:
    """Write `image_grid` as a PNG."""
    matplotlib.image.imsave(path, image_grid(images, columns).permute(1, 2, 0).numpy())
