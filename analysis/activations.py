"""Activations by name or as any callable on arrays, with what the theory needs to know of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from deq.names import unknown

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Activation:
    """A scalar nonlinearity phi, applied elementwise to float64 arrays.

    Attributes:
        name: for messages.
        value: phi.
        derivative: phi' (almost everywhere), or None if only phi is known; expectations of derivatives then go
            through Stein's identity.
        kinks: points where phi is not smooth, in increasing order; quadrature splits there.
        odd: phi(-x) = -phi(x), exactly.
        form: closed form of its Gaussian expectations: (name, parameters...) as in `analysis.kernels.closed_forms`.
    """

    name: str
    value: Callable[[Array], Array]
    derivative: Callable[[Array], Array] | None = None
    kinks: tuple[float, ...] = ()
    odd: bool = False
    form: tuple[Any, ...] = ()

    def __call__(self, x: Array) -> Array:
        """phi(x), elementwise."""
        return self.value(x)


def leaky_relu(slope: float = 0.01) -> Activation:
    """max(x, slope x)."""
    return Activation(f"leaky_relu({slope:g})", lambda x: np.where(x > 0, x, slope * x),
                      lambda x: np.where(x > 0, 1.0, slope), kinks=(0.0,), form=("two_slopes", 1.0, slope))


def hard_tanh(scale: float = 1.0, clip: float = 1.0) -> Activation:
    """Scale * clip(x, -clip, clip)."""
    return Activation(f"hard_tanh({scale:g}, {clip:g})",
                      lambda x: np.asarray(scale * np.clip(x, -clip, clip), dtype=np.float64),
                      lambda x: np.where(np.abs(x) < clip, float(scale), 0.0), kinks=(-clip, clip), odd=True,
                      form=("hard_tanh", scale, clip))


def two_slopes(positive: float, negative: float) -> Activation:
    """`positive x` for x > 0 and `negative x` else: the leaky ReLU of the equivalent networks."""
    return Activation(f"two_slopes({positive:g}, {negative:g})", lambda x: np.where(x > 0, positive * x, negative * x),
                      lambda x: np.where(x > 0, float(positive), float(negative)), kinks=(0.0,),
                      form=("two_slopes", positive, negative))


def polynomial(*coefficients: float) -> Activation:
    """Sum of coefficients[k] x^k."""
    value = np.polynomial.Polynomial(coefficients)
    slope = value.deriv()
    return Activation(f"polynomial{coefficients}", lambda x: value(x), lambda x: slope(x),
                      odd=not any(coefficients[::2]), form=("polynomial", tuple(coefficients)))


_SQRT_PI = np.sqrt(np.pi)
ACTIVATIONS: dict[str, Activation] = {
    item.name: item
    for item in (
        Activation("relu", lambda x: np.maximum(x, 0.0), lambda x: (x > 0).astype(float), kinks=(0.0,),
                   form=("relu",)),
        Activation("identity", lambda x: x, np.ones_like, odd=True, form=("polynomial", (0.0, 1.0))),
        Activation("step", lambda x: (x > 0).astype(float), np.zeros_like, kinks=(0.0,), form=("step",)),
        Activation("tanh", np.tanh, lambda x: 1 / np.cosh(np.clip(x, -350, 350)) ** 2, odd=True),
        Activation("erf", special.erf, lambda x: 2 / _SQRT_PI * np.exp(-x * x), odd=True, form=("erf",)),
        Activation("sin", np.sin, np.cos, odd=True, form=("sin",)),
        Activation("cos", np.cos, lambda x: -np.sin(x), form=("cos",)),
        Activation("softplus", lambda x: np.logaddexp(0.0, x), special.expit),
        Activation("sigmoid", special.expit, lambda x: special.expit(x) * special.expit(-x)),
        Activation("swish", lambda x: x * special.expit(x),
                   lambda x: special.expit(x) * (1 + x * special.expit(-x))),
        Activation("elu", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
                   lambda x: np.where(x > 0, 1.0, np.exp(np.minimum(x, 0.0))), kinks=(0.0,)),
    )
}
ACTIVATIONS["leaky_relu"] = leaky_relu()
ACTIVATIONS["hard_tanh"] = hard_tanh()


def as_activation(activation: str | Activation | Callable[[Array], Array], kinks: tuple[float, ...] = ()) -> Activation:
    """The `Activation` meant by a name, an Activation, or any callable on float64 arrays.

    Args:
        activation: a name of `ACTIVATIONS`, an Activation (returned as it is), or a callable.
        kinks: for a callable, where it is not smooth.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        TypeError: something that is none of the three.
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(unknown("activation", activation, sorted(ACTIVATIONS)) + "; a callable will do, too")
        return ACTIVATIONS[activation]
    if callable(activation):
        return Activation(getattr(activation, "__name__", "callable"), activation, kinks=kinks)
    raise TypeError(f"activation must be a name, an Activation or a callable, not {type(activation).__name__}")
