"""Distance of a model's images from real ones: the FID where Inception weights can be had, else a distance of our own.

The project's distance is the Frechet distance on features of a small classifier that is trained here, on the real
training images. It is named `classifier-feature distance`, depends on that classifier's seed and size, and must not be
compared with FIDs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deq.data import load_cifar10, load_mnist
from deq.evaluation import FeatureClassifier, FeatureStatistics, frechet_distance, inception_features
from deq.training.config import ConfigError
from deq.training.options import DataOptions
from deq.training.sources import synthetic_images
from deq.training.trained import sample_images

#: The factor by which the released code of [SM] multiplies every covariance.
RELEASED_FACTOR = 0.642


@dataclass(frozen=True)
class DistanceReport:
    """What was computed.

    Attributes:
        name: "FID" or "classifier-feature distance".
        value: the Frechet distance.
        released_value: with both covariances multiplied by 0.642, as the released code does.
        floor: the same distance between two halves of the real images: what sampling noise alone gives.
        samples: images drawn from the model.
        references: real images.
        rank_deficient: fewer images than features on either side.
        accuracy: of the classifier on its training images; NaN for Inception.
    """

    name: str
    value: float
    released_value: float
    floor: float
    samples: int
    references: int
    rank_deficient: bool
    accuracy: float


def labelled_images(options: DataOptions, part: str, folder: str | os.PathLike[str] | None = None) -> tuple[Tensor,
                                                                                                            Tensor]:
    """Images in [0, 1] and labels; for the synthetic set the label is the quadrant that holds most light.

    Raises:
        ConfigError: a data set without labels.
        deq.data.DataError: files missing or damaged.
    """
    limit = options.limit or None
    if options.name in ("mnist", "fashion-mnist"):
        images, labels = load_mnist(part, folder, fashion=options.name.startswith("fashion"))
        images, labels = images[:limit, None], labels[:limit]
    elif options.name == "cifar10":
        images, labels = load_cifar10(part, folder, limit=limit)
    elif options.name == "synthetic":
        images = synthetic_images(options.rows, options.channels, options.size)
        light = nn.functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), 2).flatten(1)
        labels = light.argmax(1)
    else:
        raise ConfigError(f"{options.name} has no labels to train a classifier on; take features = 'inception'")
    return images.float() / 255, labels


def image_distance(model: nn.Module, options: DataOptions, shape: tuple[int, int, int], *, count: int = 1000,
                   features: str = "classifier", seed: int = 0, epochs: int = 3,
                   folder: str | os.PathLike[str] | None = None) -> DistanceReport:
    """Draw `count` images and compare them with as many real test images (or all there are).

    Args:
        model: trained NICE, VAE or NCSN.
        options: of the data it was trained on.
        shape: of an image.
        count: images on each side; an FID wants 10,000 at least.
        features: "classifier" or "inception".
        seed: of the samples and the classifier.
        epochs: of the classifier.
        folder: of the data.

    Raises:
        ConfigError: unknown features, or no labels.
        ModuleNotFoundError: no Inception package.
    """
    if features not in ("classifier", "inception"):
        raise ConfigError(f"features {features!r} are not known; take 'classifier' or 'inception'")
    part = "train" if options.name == "synthetic" else "test"
    real = labelled_images(options, part, folder)[0][:count]
    drawn = sample_images(model, count, shape, seed).float()
    accuracy = float("nan")
    if features == "inception":
        colour = [images.expand(-1, 3, -1, -1) for images in (drawn, real)]
        found = [inception_features(images) for images in colour]
    else:
        images, labels = labelled_images(options, "train", folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            classifier = FeatureClassifier(shape[0], int(labels.max()) + 1)
        generator = torch.Generator().manual_seed(seed)
        accuracy = classifier.fit(images, labels, epochs=epochs, generator=generator)
        found = [classifier.features(images) for images in (drawn, real)]
    model_side, real_side = (FeatureStatistics.of(item) for item in found)
    halves = [FeatureStatistics.of(half) for half in found[1].chunk(2)]
    return DistanceReport(
        "FID" if features == "inception" else "classifier-feature distance", frechet_distance(model_side, real_side),
        frechet_distance(model_side, real_side, scale_first=RELEASED_FACTOR, scale_second=RELEASED_FACTOR),
        frechet_distance(*halves), len(drawn), len(real), model_side.rank_deficient or real_side.rank_deficient,
                          accuracy)
