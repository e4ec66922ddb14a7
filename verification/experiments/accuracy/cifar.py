"""CIFAR-10 features: 256 numbers an image from a small convolutional network that is trained here, on CIFAR-10."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn

from deq.data import load_cifar10
from verification.experiments.accuracy.data import LabelledData, first_of_each, prepare

FEATURES = 256


class SmallConvolutionalNetwork(nn.Module):
    """Three stages of convolution, group normalisation and pooling, then 256 features and a linear readout."""

    def __init__(self, generator: torch.Generator, channels: int = 32) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before = 3
        for stage in range(3):
            after = channels * 2**stage
            stages += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.ReLU(), nn.MaxPool2d(2)]
            before = after
        self.trunk = nn.Sequential(*stages, nn.Flatten(), nn.Linear(before * 16, FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, 10)
        with torch.no_grad():  # He's initialisation from the given generator
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    fan_in = module.weight[0].numel()
                    module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
                    if module.bias is not None:
                        module.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [batch, 10]."""
        return self.head(self.trunk(x))


def train_network(images: Tensor, labels: Tensor, *, epochs: int, seed: int,
                  batch: int = 128) -> SmallConvolutionalNetwork:
    """Train with AdamW and random flips; images are [n, 3, 32, 32] floats in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    network = SmallConvolutionalNetwork(generator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * -(-len(images) // batch)))
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=generator).split(batch):
            x = images[index]
            flipped = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(flipped[:, None, None, None], x.flip(3), x)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), labels[index]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def extract(network: SmallConvolutionalNetwork, images: Tensor, batch: int = 512) -> np.ndarray:
    """Features [n, 256] in evaluation mode, without augmentation."""
    return torch.cat([network.trunk(part) for part in images.split(batch)]).double().numpy()


def cifar_features(folder: str | os.PathLike[str] | None, *, per_class_train: int, per_class_test: int, epochs: int,
                   seed: int = 0) -> LabelledData:
    """Features of the first CIFAR-10 images of each class, from a network trained on those training images.

    The released code froze random crops, flips and dropout into its features; here they are clean.

    Args:
        folder: the data folder, or None for `DEQPROOF_DATA` and the cache.
        per_class_train: training images a class, for the network and for the features.
        per_class_test: test images a class.
        epochs: of the feature network.
        seed: of its weights and shuffles.

    Raises:
        DataError: the data are missing or damaged.
        ValueError: fewer images than asked for.
    """
    parts = []
    for part, count in (("train", per_class_train), ("test", per_class_test)):
        images, labels = load_cifar10(part, folder)
        chosen, classes = first_of_each(images.numpy(), labels.numpy(), range(10), count)
        parts.append((torch.from_numpy(chosen).float() / 127.5 - 1, classes))
    (train, train_labels), (test, test_labels) = parts
    network = train_network(train, torch.from_numpy(train_labels), epochs=epochs, seed=seed)
    return prepare("cifar10 features", extract(network, train), train_labels, extract(network, test), test_labels)
