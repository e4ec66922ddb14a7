"""Torch functions and modules, numpy's and scipy's functions: which built-in each is, and how the others are run."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import nn
from torch.nn import functional

_FUNCTIONS: tuple[tuple[Any, str], ...] = (
    (torch.relu, "relu"), (functional.relu, "relu"), (torch.tanh, "tanh"), (functional.tanh, "tanh"),
    (torch.sigmoid, "sigmoid"), (functional.sigmoid, "sigmoid"), (torch.special.expit, "sigmoid"),
    (torch.erf, "erf"), (torch.special.erf, "erf"), (torch.sin, "sin"), (torch.cos, "cos"),
    (functional.gelu, "gelu"), (functional.silu, "silu"), (functional.mish, "mish"), (functional.selu, "selu"),
    (torch.selu, "selu"), (functional.elu, "elu"), (functional.softplus, "softplus"),
    (functional.leaky_relu, "leaky_relu"), (functional.hardtanh, "hard_tanh"),
    (np.tanh, "tanh"), (np.sin, "sin"), (np.cos, "cos"), (special.erf, "erf"), (special.expit, "sigmoid"),
    (math.tanh, "tanh"), (math.sin, "sin"), (math.cos, "cos"), (math.erf, "erf"),
)
_MODULES: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.ReLU, "relu"), (nn.Tanh, "tanh"), (nn.Sigmoid, "sigmoid"), (nn.SiLU, "silu"), (nn.Mish, "mish"),
    (nn.SELU, "selu"), (nn.Identity, "identity"),
)


def known(activation: Callable[..., Any]) -> tuple[str, tuple[float, ...]]:
    """The built-in that a callable is, with its parameters; an empty name for others."""
    for function, name in _FUNCTIONS:
        if activation is function:
            return name, ()
    for kind, name in _MODULES:
        if type(activation) is kind:
            return name, ()
    if type(activation) is nn.GELU and activation.approximate == "none":
        return "gelu", ()
    if type(activation) is nn.ELU:
        return "elu", (float(activation.alpha),)
    if type(activation) is nn.LeakyReLU:
        return "leaky_relu", (float(activation.negative_slope),)
    if type(activation) is nn.Softplus and activation.beta == 1:
        return "softplus", ()
    if type(activation) is nn.Hardtanh and activation.min_val == -activation.max_val:
        return "hard_tanh", (1.0, float(activation.max_val))
    return "", ()


def unwrap(activation: Callable[..., Any]) -> Callable[..., Any]:
    """A module as a double-precision copy on the CPU in evaluation mode; anything else as it is."""
    if isinstance(activation, nn.Module):
        return copy.deepcopy(activation).to(device="cpu", dtype=torch.float64).eval()
    return activation
