"""Training data by name: tensors in memory, and batches whose order depends on the seed and the step alone."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from deq.data import load_celeba, load_cifar10, load_mnist
from deq.training.config import ConfigError
from deq.training.options import DataOptions


@dataclass(frozen=True)
class Source:
    """Data in memory.

    Attributes:
        name: of the data set.
        train: `[n, ...]`; images as uint8 `[n, c, h, w]`.
        validation, test: the same.
        notes: what a reader of a result must know, a sentence each.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    notes: tuple[str, ...] = ()


def load_source(options: DataOptions, folder: str | os.PathLike[str] | None = None) -> Source:
    """Load images by name.

    MNIST and CIFAR-10 keep their official test set and give the last tenth of the shuffled training set to
    validation; CelebA is split 70/20/10 by the same shuffle into train, test and validation.

    Raises:
        ConfigError: unknown name.
        deq.data.DataError: files missing or damaged.
    """
    limit = options.limit or None
    if options.name == "synthetic":
        images = synthetic_images(options.rows, options.channels, options.size)
        return Source("synthetic", *_split(images, (0.8, 0.1)), notes=("synthetic images: a trial of the machinery",))
    if options.name in ("mnist", "fashion-mnist"):
        fashion = options.name.startswith("fashion")
        train, test = (load_mnist(part, folder, fashion=fashion)[0][:limit, None] for part in ("train", "test"))
    elif options.name == "cifar10":
        train, test = (load_cifar10(part, folder, limit=limit)[0] for part in ("train", "test"))
    elif options.name == "celeba":
        images = load_celeba(folder, size=options.size, limit=limit)
        kept, held, rest = _split(images, (0.7, 0.2))
        return Source("celeba", kept, rest, held)
    else:
        raise ConfigError(f"data.name {options.name!r} is not known; take mnist, fashion-mnist, cifar10, celeba, "
                          f"synthetic")
    kept, validation, _ = _split(train, (0.9, 0.1))
    return Source(options.name, kept, validation, test)


def _split(rows: Tensor, shares: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2019))
    first = round(shares[0] * len(rows))
    second = first + round(shares[1] * len(rows))
    return rows[order[:first]], rows[order[first:second]], rows[order[second:]]


def synthetic_images(count: int, channels: int, size: int) -> Tensor:
    """Soft blobs at random places, uint8 `[count, channels, size, size]`: something to learn, without any data."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(0, 1, size)
    centre = torch.rand(count, channels, 2, generator=generator)
    width = 0.1 + 0.2 * torch.rand(count, channels, generator=generator)
    across = (grid[None, None, :] - centre[..., :1]) ** 2
    down = (grid[None, None, :] - centre[..., 1:]) ** 2
    blob = torch.exp(-(across[:, :, None, :] + down[:, :, :, None]) / (2 * width[..., None, None] ** 2))
    return (255 * blob).to(torch.uint8)


@dataclass(frozen=True)
class Batches:
    """Which rows belong to a step. Every epoch is a fresh permutation of all rows; the last short batch is dropped.

    A pure function of seed and step: a resumed run needs no sampler state beyond its step.

    Attributes:
        rows: number of training rows.
        batch: rows a step, over all processes.
        seed: of the permutations.
        rank, world: this process and how many there are; each takes every `world`-th row of the batch.
    """

    rows: int
    batch: int
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch > self.rows:
            raise ConfigError(f"a batch of {self.batch} rows cannot come from {self.rows} training rows")
        if self.batch % self.world:
            raise ConfigError(f"a batch of {self.batch} rows does not divide over {self.world} processes")

    def __call__(self, step: int) -> Tensor:
        """Row numbers of a step for this process, int64."""
        per_epoch = self.rows // self.batch
        epoch, position = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
        order = torch.randperm(self.rows, generator=generator)
        return order[position * self.batch:(position + 1) * self.batch][self.rank::self.world]
