"""Real-data studies that claims and figures share: kernels of implicit and explicit networks, and accuracies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

import analysis
from analysis.gaussian import moments_at
from analysis.rmt.equivalents import equivalent_kernel, spectral_norm
from verification.context import Context
from verification.experiments.accuracy import MODELS, StudySize, accuracy_study, image_data

#: Released code: the DEQ at 0.2, the leaky ReLU network matched at 0.3, the hard tanh at 0.1.
RELEASED_LEAKY_SIGMA_A2, RELEASED_HARD_TANH_SIGMA_A2 = 0.3, 0.1


def _explicit(x: np.ndarray, activation: str, matched_at: float) -> tuple[np.ndarray, int]:
    """The equivalent explicit network's exact CK, and its depth."""
    family = "leaky_relu" if activation == "relu" else "hard_tanh"
    network = analysis.equivalent_networks(analysis.solve_equations(activation, matched_at), family)[0]
    return analysis.explicit_kernels(x, list(network.layers)).ck, network.depth


def _plain(x: np.ndarray, activation: str, depth: int, diagonal: float) -> np.ndarray:
    """CK of a plain centred network of that depth with unit variance between layers, scaled to a mean diagonal."""
    phi = analysis.as_activation(activation)
    found = moments_at(phi, np.array([1.0]))
    mean, spread = float(found.mean[0]), float(np.sqrt(found.variance[0]))
    layer = analysis.activations.Activation(f"plain {activation}", lambda u: (phi(u) - mean) / spread, None, phi.kinks)
    ck = analysis.explicit_kernels(x, layer, depth=depth).ck
    return ck * diagonal / np.diag(ck).mean()


def kernel_study(name: str, context: Context, classes: tuple[int, ...], count: int, *, sigma_a2: float = 0.2,
                 equivalent_sigma_a2: float | None = None) -> dict[str, Any]:
    """Exact kernels on real images: of the DEQs, of their deterministic equivalents, of explicit networks.

    Errors are spectral norms relative to the DEQ's kernel; "wasserstein" is the distance of the eigenvalue
    distributions without the ten largest, relative to the mean eigenvalue; "alignment" the squared inner product of the
    top eigenvectors.

    Args:
        name: "mnist" or "fashion-mnist".
        context: for the data folder.
        classes: labels to take.
        count: samples in all.
        sigma_a2: of the DEQs.
        equivalent_sigma_a2: where the explicit networks are matched; the same unless given.
    """
    per_class = count // len(classes)
    data = image_data(name, context.data, per_class_train=per_class, per_class_test=1, classes=classes)
    x = data.train.T
    found = analysis.MixtureSample.from_data(x, data.train_labels)
    # real class means carry energy of order one, which the theory's do not: tau_0^2 is the mean squared norm
    sample = analysis.MixtureSample(found.x, found.labels, replace(found.statistics, tau0=1.0))
    result: dict[str, Any] = {"data": name, "classes": len(classes), "samples": x.shape[1], "sigma_a2": sigma_a2,
                              "activations": {}}
    for activation in ("relu", "tanh"):
        eq = analysis.solve_equations(activation, sigma_a2)
        exact = analysis.deq_kernels(x, activation, sigma_a2, centre=float(eq.shift))
        explicit, depth = _explicit(x, activation, sigma_a2 if equivalent_sigma_a2 is None else equivalent_sigma_a2)
        kernels = {"DEQ": exact.ck, "explicit equivalent": explicit,
                   "plain": _plain(x, activation, depth, float(np.diag(exact.ck).mean())),
                   "deterministic equivalent": equivalent_kernel(eq, sample)}
        for order in (1, 2, 3):
            kernels[f"refined order {order}"] = analysis.refined_equivalent(eq, sample, order=order)
        scale = spectral_norm(exact.ck)
        values: dict[str, np.ndarray] = {}
        tops: dict[str, np.ndarray] = {}
        for label, kernel in kernels.items():
            if label.startswith("refined"):
                continue
            values[label], vectors = np.linalg.eigh(kernel)
            tops[label] = vectors[:, -1]
        mean = float(values["DEQ"].mean())
        result["activations"][activation] = {
            "depth": depth,
            "errors": {label: spectral_norm(kernel - exact.ck) / scale
                       for label, kernel in kernels.items() if label != "DEQ"},
            "eigenvalues": {label: spectrum.tolist() for label, spectrum in values.items()},
            "wasserstein": {label: float(wasserstein_distance(spectrum[:-10], values["DEQ"][:-10])) / mean
                            for label, spectrum in values.items() if label != "DEQ"},
            "alignment": {label: float(top @ tops["DEQ"]) ** 2 for label, top in tops.items() if label != "DEQ"},
        }
    return result


def study_size(context: Context) -> tuple[StudySize, int, int]:
    """Sizes of the accuracy study, and training and test samples a class, at the run's scale."""
    return context.choose(
        (StudySize((16,), 2, 3, (16,), 1, 1), 20, 20),
        (StudySize((32, 128, 256), 3, 30, (64,), 3, 3), 120, 400),
        (StudySize((32, 128, 256, 1024, 4096), 5, 100, (32, 128, 256), 5, 20), 5000, 800))


def accuracies(name: str, context: Context, *, equivalent_sigma_a2: float | None = None,
               models: tuple[str, ...] = MODELS) -> dict[str, Any]:
    """The accuracy study at the run's scale."""
    size, train, test = study_size(context)
    data = image_data(name, context.data, per_class_train=train, per_class_test=test)
    return accuracy_study(data, size, sigma_a2=0.2, seed=context.seed, equivalent_sigma_a2=equivalent_sigma_a2,
                          models=models)
