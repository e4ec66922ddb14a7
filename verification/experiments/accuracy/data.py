"""Real data for kernels and for the accuracy experiment, prepared with training statistics only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deq.data import load_mnist

Array = NDArray[np.float64]
IMAGE_SETS = ("mnist", "fashion-mnist")


@dataclass(frozen=True)
class LabelledData:
    """Training and test samples, rows, with labels 0 ... K-1.

    Attributes:
        name: of the data set.
        train: [n, p], mean 0 and mean squared norm 1.
        train_labels: [n].
        test: [n', p], shifted and scaled with the *training* mean and norm.
        test_labels: [n'].
    """

    name: str
    train: Array
    train_labels: NDArray[np.intp]
    test: Array
    test_labels: NDArray[np.intp]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.train_labels.max()) + 1


def prepare(name: str, train: Array, train_labels: NDArray[np.intp], test: Array,
            test_labels: NDArray[np.intp]) -> LabelledData:
    """Subtract the training mean and scale to mean squared norm 1 on the training set.

    [RMT]'s code centres and scales the test set with its own statistics; here it gets those of the training set.

    Raises:
        ValueError: entries that are not finite, or training data that do not vary.
    """
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        raise ValueError(f"{name} holds entries that are not finite")
    mean = train.mean(axis=0)
    scale = np.sqrt(np.square(train - mean).sum(axis=1).mean())
    if not scale > 0:
        raise ValueError(f"the training samples of {name} are all equal")
    return LabelledData(name, (train - mean) / scale, train_labels, (test - mean) / scale, test_labels)


def first_of_each(images: NDArray[Any], labels: NDArray[np.intp], classes: Sequence[int],
                  count: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The first `count` samples of each class in file order, as in [RMT]'s code; labels become 0 ... K-1.

    Raises:
        ValueError: a class has fewer samples.
    """
    chosen = [np.flatnonzero(labels == c)[:count] for c in classes]
    short = [(c, len(part)) for c, part in zip(classes, chosen, strict=True) if len(part) < count]
    if short:
        raise ValueError(f"class {short[0][0]} has {short[0][1]} samples, {count} are asked for")
    return images[np.concatenate(chosen)], np.repeat(np.arange(len(classes)), count)


def image_data(name: str, folder: str | os.PathLike[str] | None, *, per_class_train: int, per_class_test: int,
               classes: Sequence[int] = tuple(range(10))) -> LabelledData:
    """MNIST or Fashion-MNIST, the first samples of each class, prepared.

    Args:
        name: "mnist" or "fashion-mnist".
        folder: the data folder, or None for `DEQPROOF_DATA` and the cache.
        per_class_train: training samples a class (5000 in [RMT]).
        per_class_test: test samples a class (800 in [RMT]).
        classes: which digits or garments.

    Raises:
        ValueError: an unknown set, or fewer samples than asked for.
        DataError: a file is missing or damaged.
    """
    if name not in IMAGE_SETS:
        raise ValueError(f"unknown image set {name!r}; known: {', '.join(IMAGE_SETS)}")
    parts: list[NDArray[Any]] = []
    for part, count in (("train", per_class_train), ("test", per_class_test)):
        images, labels = load_mnist(part, folder, fashion=name == "fashion-mnist")
        flat = images.reshape(len(images), -1).numpy().astype(np.float64) / 255
        parts += first_of_each(flat, labels.numpy(), classes, count)
    return prepare(name, *parts)
