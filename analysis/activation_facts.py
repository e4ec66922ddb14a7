"""Facts on known activations that cannot be read off their values: Lipschitz constants and many-digit forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np

from analysis.activations import ACTIVATIONS, SELU_ALPHA, SELU_SCALE, Activation

Precise = Callable[[mpmath.mpf], mpmath.mpf]

# sup |phi'|. For swish phi' = s (1 + x (1 - s)), s = 1/(1 + exp(-x)), is largest where x tanh(x/2) = 2; for gelu at
# sqrt(2), for mish at 1.4906 (to 25 digits by mpmath).
_LIPSCHITZ = {"relu": 1.0, "identity": 1.0, "tanh": 1.0, "erf": 2 / math.sqrt(math.pi), "sin": 1.0, "cos": 1.0,
              "softplus": 1.0, "sigmoid": 0.25, "swish": 1.09983932012886, "elu": 1.0,
              "gelu": 1.128904145185155, "mish": 1.088498161251728, "selu": SELU_SCALE * SELU_ALPHA}


def _softplus(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.log1p(mpmath.exp(-abs(x))) + max(x, mpmath.mpf(0))


_PRECISE: dict[str, Precise] = {
    "relu": lambda x: x if x > 0 else mpmath.mpf(0),
    "identity": lambda x: x,
    "step": lambda x: mpmath.mpf(1 if x > 0 else 0),
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "softplus": lambda x: _softplus(x),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "swish": lambda x: x / (1 + mpmath.exp(-x)),
    "elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "gelu": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "mish": lambda x: x * mpmath.tanh(_softplus(x)),
    "selu": lambda x: mpmath.mpf(SELU_SCALE) * (x if x > 0 else SELU_ALPHA * mpmath.expm1(x)),
}

_PRECISE_DERIVATIVE: dict[str, Precise] = {
    "relu": lambda x: mpmath.mpf(1 if x > 0 else 0),
    "identity": lambda x: mpmath.mpf(1),
    "tanh": lambda x: mpmath.sech(x) ** 2,
    "erf": lambda x: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x),
    "sin": mpmath.cos,
    "cos": lambda x: -mpmath.sin(x),
    "softplus": lambda x: 1 / (1 + mpmath.exp(-x)),
    "sigmoid": lambda x: 1 / (2 + mpmath.exp(x) + mpmath.exp(-x)),
    "swish": lambda x: (1 + mpmath.exp(-x) * (1 + x)) / (1 + mpmath.exp(-x)) ** 2,
    "elu": lambda x: mpmath.mpf(1) if x > 0 else mpmath.exp(x),
    "gelu": lambda x: mpmath.erfc(-x / mpmath.sqrt(2)) / 2 + x * mpmath.npdf(x),
    "mish": lambda x: mpmath.tanh(_softplus(x)) + x * mpmath.sech(_softplus(x)) ** 2 / (1 + mpmath.exp(-x)),
    "selu": lambda x: mpmath.mpf(SELU_SCALE) * (1 if x > 0 else SELU_ALPHA * mpmath.exp(x)),
}


def _is_named(activation: Activation) -> bool:
    return ACTIVATIONS.get(activation.name) is activation


def _slope(activation: Activation) -> float | None:
    """The negative slope of a leaky ReLU made by `analysis.activations.leaky_relu`, else None."""
    if activation.name.startswith("leaky_relu("):
        return -float(activation.value(np.array([-1.0]))[0])
    return None


def _scale_and_clip(activation: Activation) -> tuple[float, float] | None:
    """Scale and clip of a hard tanh made by `analysis.activations.hard_tanh`, else None."""
    if activation.name.startswith("hard_tanh(") and activation.derivative is not None:
        return float(activation.derivative(np.array([0.0]))[0]), activation.kinks[1]
    return None


def lipschitz_constant(activation: Activation) -> float | None:
    """The least Lipschitz constant of a known activation, None for one that is not known."""
    slope, hard = _slope(activation), _scale_and_clip(activation)
    if slope is not None:
        return max(1.0, abs(slope))
    if hard is not None:
        return abs(hard[0])
    return _LIPSCHITZ.get(activation.name) if _is_named(activation) else None


def precise_value(activation: Activation) -> Precise | None:
    """Phi on mpmath numbers, to any number of digits, for a known activation; else None."""
    slope, hard = _slope(activation), _scale_and_clip(activation)
    if slope is not None:
        return lambda x: x if x > 0 else mpmath.mpf(slope) * x
    if hard is not None:
        scale, clip = mpmath.mpf(hard[0]), mpmath.mpf(hard[1])
        return lambda x: scale * max(-clip, min(clip, x))
    return _PRECISE.get(activation.name) if _is_named(activation) else None


def precise_derivative(activation: Activation) -> Precise | None:
    """Phi' on mpmath numbers (off the kinks) for a known activation without jumps; else None."""
    slope, hard = _slope(activation), _scale_and_clip(activation)
    if slope is not None:
        return lambda x: mpmath.mpf(1) if x > 0 else mpmath.mpf(slope)
    if hard is not None:
        scale, clip = mpmath.mpf(hard[0]), mpmath.mpf(hard[1])
        return lambda x: scale if abs(x) < clip else mpmath.mpf(0)
    return _PRECISE_DERIVATIVE.get(activation.name) if _is_named(activation) else None
