"""The whole accuracy study: six networks, several widths and seeds, fixed and trained weights, with costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from verification.experiments.accuracy.data import LabelledData
from verification.experiments.accuracy.networks import MODELS, RandomNetwork, architectures, parameter_count
from verification.experiments.accuracy.training import descent_readout, ridge_readout, train_all


@dataclass(frozen=True)
class StudySize:
    """How much to do.

    Attributes:
        widths: hidden units for networks whose readout alone is trained.
        seeds: networks of each kind and width.
        epochs: of the readout's gradient descent.
        trained_widths: hidden units for networks whose weights are all trained.
        trained_seeds: of those.
        trained_epochs: of those.
    """

    widths: tuple[int, ...] = (32, 128, 256)
    seeds: int = 3
    epochs: int = 30
    trained_widths: tuple[int, ...] = (64,)
    trained_seeds: int = 2
    trained_epochs: int = 4


#: The published widths and epochs, with five seeds where the paper has one.
FULL = StudySize((32, 128, 256, 1024, 4096), 5, 100, (32, 128, 256), 5, 20)


def accuracy_study(data: LabelledData, size: StudySize, *, sigma_a2: float = 0.2, seed: int = 0,
                   equivalent_sigma_a2: float | None = None, models: tuple[str, ...] = MODELS,
                   report: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Accuracies and costs of the networks on one data set, ready for JSON.

    Args:
        data: prepared data.
        size: how much to do.
        sigma_a2: one value for every DEQ and every equivalent.
        seed: of all weights and shuffles; networks of equal width and seed share their random weights as far as their
            shapes allow.
        equivalent_sigma_a2: for a control: match the equivalents elsewhere.
        models: which networks.
        report: called with a line after each width.

    Raises:
        NoEquivalentNetwork: there is no equivalent at this sigma_a^2.
    """
    x, y = torch.tensor(data.train, dtype=torch.float32), torch.tensor(data.train_labels)
    x_test, y_test = torch.tensor(data.test, dtype=torch.float32), torch.tensor(data.test_labels)
    built = architectures(sigma_a2, equivalent_sigma_a2=equivalent_sigma_a2, names=models)
    p = x.shape[1]
    rows: list[dict[str, Any]] = []
    for width in sorted({*size.widths, *size.trained_widths}):
        for number in range(size.seeds if width in size.widths else size.trained_seeds):
            for architecture in built:
                def generator(number: int = number, width: int = width) -> torch.Generator:
                    return torch.Generator().manual_seed(1_000_003 * seed + 1009 * number + width)

                network = RandomNetwork(architecture, width, p, data.classes, generator())
                row: dict[str, Any] = {"model": architecture.name, "width": width, "seed": number,
                                       "parameters": parameter_count(network)}
                if width in size.widths:
                    h, steps, seconds = network.fixed_features(x)
                    h_test = network.fixed_features(x_test)[0]
                    row |= {"solver steps": steps, "feature seconds": seconds / len(x),
                            "operations": architecture.operations(width, p, steps),
                            "ridge": asdict(ridge_readout(h, y, h_test, y_test)),
                            "descent": asdict(descent_readout(h, y, h_test, y_test, generator(), epochs=size.epochs))}
                if width in size.trained_widths and number < size.trained_seeds:
                    row["all weights"] = asdict(train_all(network, x, y, x_test, y_test, generator(),
                                                          epochs=size.trained_epochs))
                rows.append(row)
        if report:
            report(f"{data.name}: width {width} done")
    return {"data": data.name, "train samples": len(x), "test samples": len(x_test), "p": p, "sigma_a2": sigma_a2,
            "equivalent sigma_a2": sigma_a2 if equivalent_sigma_a2 is None else equivalent_sigma_a2,
            "size": asdict(size), "rows": rows}
