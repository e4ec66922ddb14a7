"""A trained deep kernel model in ball arithmetic: its equilibria and its log-density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from flint import arb, arb_mat
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor

from analysis.rigorous import KernelReadout, Layer, LayerWeights
from analysis.rigorous.balls import column, matrix
from analysis.rigorous.equilibrium import Equilibrium, enclose_equilibrium
from analysis.rigorous.maps import KernelTerm
from deq.models import DKEF
from deq.models.dkef_features import EquilibriumFeatures

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EnclosedModel:
    """A DKEF whose numbers are exact and whose derived constants are enclosed.

    Attributes:
        layer: the maps of all kernels side by side, z of size R h.
        readout: log p as a function of z and x.
        weights: one `LayerWeights` a kernel, for `certify_layer`.
        features: the float model, for starting points.
    """

    layer: Layer
    readout: KernelReadout
    weights: tuple[LayerWeights, ...]
    features: EquilibriumFeatures

    def equilibrium(self, x: Tensor) -> Equilibrium:
        """Enclose the equilibria of all kernels at an input [d]."""
        return enclose_equilibrium(self.layer, x.numpy(), self.layer.size, _start(self.features, x).ravel())


def enclose_model(model: DKEF) -> EnclosedModel:
    """Take a trained model over; at the working precision of the caller.

    The features of the inducing points are enclosed, not taken from the float model, and so are the mixture's softmax
    and the powers of ten in the bandwidths.

    Raises:
        TypeError: the model's features are not the equilibrium of [SM] eq. 5.
        NotCertified: an inducing point's equilibrium cannot be proved.
    """
    features = model.features
    if not isinstance(features, EquilibriumFeatures) or features.released or features.output is not None:
        raise TypeError("only models with variant='deq' and no output layer can be enclosed")
    arrays = [_array(tensor) for tensor in (features.weight(), features.injection, features.bias)]
    weights = tuple(LayerWeights(w, u, b, "softplus", np.ones(len(b)), injection="softplus")
                    for w, u, b in zip(*arrays, strict=True))
    whole = Layer.from_arrays(linalg.block_diag(*arrays[0]), np.vstack(list(arrays[1])), np.concatenate(arrays[2]),
                              "softplus", "softplus")
    skips = [None] * len(weights) if features.skip is None else [matrix(skip) for skip in _array(features.skip)]
    logits = [arb(value).exp() for value in _array(model.mixture).tolist()]
    lengths = _array(model.log_length).tolist()
    terms = []
    for index, (part, skip) in enumerate(zip(weights, skips, strict=True)):
        chosen = np.zeros((part.size, whole.size))
        chosen[:, index * part.size:(index + 1) * part.size] = np.eye(part.size)
        scale = arb(10) ** arb(lengths[index])
        terms.append(KernelTerm(matrix(chosen), skip, None, _anchors(model, features, part, skip, index),
                                logits[index] / sum(logits, arb(0)), scale))
    readout = KernelReadout(tuple(terms), matrix(_array(model.alpha)[None, :]), float(model.base_scale))
    return EnclosedModel(whole, readout, weights, features)


def _anchors(model: DKEF, features: EquilibriumFeatures, part: LayerWeights, skip: arb_mat | None,
             index: int) -> arb_mat:
    """The features of the inducing points for one kernel, enclosed [h, M]."""
    layer = Layer.from_arrays(part.weight, part.inputs, part.bias, "softplus", "softplus")
    rows = []
    for point in model.inducing.detach():
        z = enclose_equilibrium(layer, point.numpy(), part.size, _start(features, point)[index]).z
        rows.append((z if skip is None else z + skip * column(point.numpy())).entries())
    return arb_mat(len(rows), part.size, [entry for row in rows for entry in row]).transpose()


def _start(features: EquilibriumFeatures, x: Tensor) -> Array:
    """The float equilibria at one input, [R, h]."""
    with torch.no_grad():
        u = torch.nn.functional.softplus(x @ features.injection.transpose(1, 2) + features.bias)
        return features.fixed_point(u[:, None, :])[:, 0].numpy()


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().double().numpy())


def float_functions(model: DKEF) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """The maps of all kernels side by side, f(z [R h], x [d]), and log p as a function g(z, x), in float64 torch."""
    features = model.features
    if not isinstance(features, EquilibriumFeatures) or features.released or features.output is not None:
        raise TypeError("only models with variant='deq' and no output layer have these functions")
    weight, inputs, bias = (part.detach() for part in (features.weight(), features.injection, features.bias))
    skip = torch.zeros_like(inputs) if features.skip is None else features.skip.detach()
    # to full precision, where the model itself stops at its solver's tolerance; |W| < 1 per step, so 2000 at most
    drive = torch.nn.functional.softplus(model.inducing.detach() @ inputs.transpose(1, 2) + bias[:, None])
    state, last = torch.zeros_like(drive), torch.ones_like(drive)
    for _ in range(2000):
        if torch.equal(state, last):
            break
        state, last = torch.nn.functional.softplus(state @ weight.transpose(1, 2) + drive), state
    anchors = state + model.inducing.detach() @ skip.transpose(1, 2)
    scale, alpha = 10**model.log_length.detach(), model.alpha.detach()
    mixture = torch.softmax(model.mixture.detach(), 0)

    def step(z: Tensor, x: Tensor) -> Tensor:
        drive = torch.nn.functional.softplus(inputs @ x + bias)
        inner = torch.einsum("rij,rj->ri", weight, z.reshape(bias.shape))
        return torch.nn.functional.softplus(inner + drive).reshape(-1)

    def log_density(z: Tensor, x: Tensor) -> Tensor:
        gaps = (z.reshape(bias.shape) + skip @ x)[:, None] - anchors
        kernels = mixture[:, None] * torch.exp(-gaps.square().sum(2) / (2 * scale[:, None]))
        return kernels.sum(0) @ alpha - (x @ x) / (2 * model.base_scale**2)

    return step, log_density
