"""The Frechet distance between Gaussians fitted to features: on any features, or on those of a classifier.

With Inception features it is the FID. Its weights are fetched by an optional package, never shipped; where they cannot
be had, the distance on features of a classifier that the project trains has its own name and is not comparable with an
FID.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean `[k]` and covariance `[k, k]` of features, float64, and how many samples they come from.

    `rank_deficient` says that there were too few samples for a covariance of full rank, as with the 1,050 samples for
    2,048 Inception features in the released code of [SM].
    """

    mean: Tensor
    covariance: Tensor
    count: int

    @classmethod
    def of(cls, features: Tensor) -> FeatureStatistics:
        """Of features `[n, k]`.

        Raises:
            ValueError: fewer than two rows or values that are not finite.
        """
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"features must be [n >= 2, k], not {list(features.shape)}")
        if not bool(torch.isfinite(features).all()):
            raise ValueError("features hold values that are not finite")
        features = features.double()
        return cls(features.mean(0), torch.cov(features.T).reshape(features.shape[1], -1), len(features))

    @property
    def rank_deficient(self) -> bool:
        """Fewer samples than features plus one."""
        return self.count <= len(self.mean)


def _square_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics, *, scale_first: float = 1.0,
                     scale_second: float = 1.0) -> float:
    """Distance of two Gaussians, `|mu_1 - mu_2|^2 + tr(b_1 S_1 + b_2 S_2 - 2 (b_1 b_2 S_1^{1/2} S_2 S_1^{1/2})^{1/2})`.

    Args:
        first: feature statistics of one set of images.
        second: of the other.
        scale_first: b_1, a factor of the first covariance. 1 is the distance. The released code of [SM] multiplies by
            0.642, which shrinks the covariance part when both sides have it.
        scale_second: b_2, of the second.

    Raises:
        ValueError: different numbers of features, or a factor that is not positive.
    """
    if len(first.mean) != len(second.mean):
        raise ValueError(f"statistics of {len(first.mean)} and {len(second.mean)} features cannot be compared")
    if not (scale_first > 0 and scale_second > 0):
        raise ValueError(f"covariance factors must be positive, not {scale_first} and {scale_second}")
    a, b = scale_first * first.covariance, scale_second * second.covariance
    root = _square_root(a)
    cross = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    return float((first.mean - second.mean).square().sum() + a.trace() + b.trace() - 2 * cross)


class FeatureClassifier(nn.Module):
    """A small convolutional classifier whose last hidden layer gives the features of the project's own distance.

    Args:
        image_channels: of the images.
        classes: number of labels.
        width: channels of the first layer.
        features: size of the feature vector.
    """

    def __init__(self, image_channels: int = 3, classes: int = 10, width: int = 32, features: int = 128) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(image_channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(16 * width, features), nn.ReLU())
        self.head = nn.Linear(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[n, classes]`."""
        return self.head(self.body(images))

    def features(self, images: Tensor, batch: int = 256) -> Tensor:
        """Feature vectors `[n, features]`, without gradients."""
        with torch.no_grad():
            return torch.cat([self.body(part) for part in images.split(batch)])

    def fit(self, images: Tensor, labels: Tensor, *, epochs: int = 3, batch: int = 128, lr: float = 1e-3,
            generator: torch.Generator | None = None) -> float:
        """Train by cross-entropy; returns the accuracy on the last epoch's batches."""
        optimizer = torch.optim.Adam(self.parameters(), lr=lr)
        correct = 0
        for _ in range(epochs):
            correct = 0
            for index in torch.randperm(len(images), generator=generator).split(batch):
                logits = self(images[index])
                loss = nn.functional.cross_entropy(logits, labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                correct += int((logits.argmax(1) == labels[index]).sum())
        return correct / len(images)


def inception_features(images: Tensor, batch: int = 50, device: str = "cpu") -> Tensor:
    """Pool3 features `[n, 2048]` of images in [0, 1] `[n, 3, h, w]`, by the `pytorch-fid` package.

    Raises:
        ModuleNotFoundError: the package is not installed; says how to get it.
    """
    try:
        inception = importlib.import_module("pytorch_fid.inception")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the FID needs Inception weights through `pip install pytorch-fid`; without them use "
                                  "FeatureClassifier, whose distance is not an FID") from error
    network = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).to(device).eval()
    with torch.no_grad():
        return torch.cat([network(part.to(device))[0].flatten(1).cpu() for part in images.split(batch)])
