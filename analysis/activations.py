"""Activations by name, from torch, or as any callable on arrays, with what the theory needs to know of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.elementwise import Elementwise
from deq.names import unknown

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Activation:
    """A scalar nonlinearity phi, applied elementwise to float64 arrays.

    Attributes:
        name: for messages.
        value: phi; kept as an `Elementwise`, which protects the caller's array and checks what comes back.
        derivative: phi' (almost everywhere), or None if only phi is known; expectations of derivatives then go
            through Stein's identity.
        kinks: points where phi is not smooth, in increasing order; quadrature splits there and finds others.
        odd: phi(-x) = -phi(x), exactly.
        form: closed form of its Gaussian expectations: (name, parameters...) as in `analysis.kernels.closed_forms`.

    Raises:
        ValueError: `odd` is claimed of a phi that is not.

    Example:
        >>> import numpy as np, analysis
        >>> cubic = analysis.Activation("cubic", lambda x: x**3, lambda x: 3 * x**2, odd=True)
        >>> abs(float(analysis.expect(cubic).value)) < 1e-12  # E xi^3
        True
    """

    name: str
    value: Callable[[Array], Array]
    derivative: Callable[[Array], Array] | None = None
    kinks: tuple[float, ...] = ()
    odd: bool = False
    form: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.value, Elementwise):
            object.__setattr__(self, "value", Elementwise(self.value, self.name))
        if self.derivative is not None and not isinstance(self.derivative, Elementwise):
            object.__setattr__(self, "derivative", Elementwise(self.derivative, f"{self.name}'"))
        object.__setattr__(self, "kinks", tuple(sorted(float(t) for t in np.atleast_1d(self.kinks))))
        if self.odd:
            x = np.array([0.3, 0.7, 1.9])
            there, back = self.value(x), self.value(-x)
            if not np.allclose(there, -back, rtol=1e-12, atol=0, equal_nan=True):
                raise ValueError(f"activation {self.name!r} is declared odd, but phi(0.7) = {there[1]:.6g} and "
                                 f"phi(-0.7) = {back[1]:.6g}")

    def __call__(self, x: Array) -> Array:
        """phi(x), elementwise."""
        return self.value(x)


def leaky_relu(slope: float = 0.01) -> Activation:
    """max(x, slope x)."""
    slope = float(slope)
    return Activation(f"leaky_relu({slope:g})", lambda x: np.where(x > 0, x, slope * x),
                      lambda x: np.where(x > 0, 1.0, slope), kinks=(0.0,), form=("two_slopes", 1.0, slope))


def hard_tanh(scale: float = 1.0, clip: float = 1.0) -> Activation:
    """Scale * clip(x, -clip, clip).

    Raises:
        ValueError: a clip that is not positive.
    """
    scale, clip = float(scale), float(clip)
    if not clip > 0:
        raise ValueError(f"clip must be positive, not {clip!r}")
    return Activation(f"hard_tanh({scale:g}, {clip:g})",
                      lambda x: np.asarray(scale * np.clip(x, -clip, clip), dtype=np.float64),
                      lambda x: np.where(np.abs(x) < clip, scale, 0.0), kinks=(-clip, clip), odd=True,
                      form=("hard_tanh", scale, clip))


def two_slopes(positive: float, negative: float) -> Activation:
    """`positive x` for x > 0 and `negative x` else: the leaky ReLU of the equivalent networks."""
    positive, negative = float(positive), float(negative)
    return Activation(f"two_slopes({positive:g}, {negative:g})", lambda x: np.where(x > 0, positive * x, negative * x),
                      lambda x: np.where(x > 0, positive, negative), kinks=(0.0,),
                      form=("two_slopes", positive, negative))


def polynomial(*coefficients: float) -> Activation:
    """Sum of coefficients[k] x^k."""
    numbers = tuple(float(c) for c in coefficients)
    value = np.polynomial.Polynomial(numbers)
    slope = value.deriv()
    return Activation(f"polynomial{coefficients}", lambda x: value(x), lambda x: slope(x),
                      odd=not any(numbers[::2]), form=("polynomial", numbers))


def elu(alpha: float = 1.0) -> Activation:
    """X for x > 0, alpha (exp(x) - 1) else."""
    alpha = float(alpha)
    return Activation("elu" if alpha == 1 else f"elu({alpha:g})",
                      lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0))),
                      lambda x: np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0.0))), kinks=(0.0,))


SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717  # Klambauer et al. 2017


def _mish_slope(x: Array) -> Array:
    t = np.tanh(np.logaddexp(0.0, x))
    return t + x * (1 - t * t) * special.expit(x)


_SQRT_PI = np.sqrt(np.pi)
_SQRT_2PI = np.sqrt(2 * np.pi)
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
        Activation("gelu", lambda x: x * special.ndtr(x),
                   lambda x: special.ndtr(x) + x * np.exp(-0.5 * x * x) / _SQRT_2PI),
        Activation("mish", lambda x: x * np.tanh(np.logaddexp(0.0, x)), _mish_slope),
        elu(),
        Activation("selu", lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0.0))),
                   lambda x: SELU_SCALE * np.where(x > 0, 1.0, SELU_ALPHA * np.exp(np.minimum(x, 0.0))), kinks=(0.0,)),
    )
}
ACTIVATIONS["silu"] = ACTIVATIONS["swish"]
ACTIVATIONS["leaky_relu"] = leaky_relu()
ACTIVATIONS["hard_tanh"] = hard_tanh()
_OTHER_NAMES = {"linear": "identity", "heaviside": "step", "logistic": "sigmoid", "sine": "sin", "cosine": "cos"}


def _plain(name: str) -> str:
    """A name without case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_\-]", "", name.lower())


def as_activation(activation: str | Activation | Callable[[Array], Array], kinks: tuple[float, ...] = ()) -> Activation:
    """The `Activation` meant by a name, an Activation, a torch function or module, or any elementwise callable.

    Functions that are known (`np.tanh`, `torch.relu`, `nn.GELU()`) become the built-in of that name, with its closed
    forms. Torch's softplus is taken without its switch to a line at 20, which is a jump of 2e-9. Other torch functions
    run in float64 on the CPU; a module is copied, so training it afterwards changes nothing here.

    >>> as_activation("ReLU").name
    'relu'

    Args:
        activation: a name of `ACTIVATIONS` in any case, an Activation (returned as it is), or a callable.
        kinks: for a callable, where it is not smooth.

    Raises:
        ValueError: an unknown name (the message lists the known ones), or a callable that does not act elementwise.
        TypeError: something that is none of these, or a callable that takes no arrays or loses precision.
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        known_names = {_plain(name): name for name in ACTIVATIONS} | _OTHER_NAMES
        if _plain(activation) not in known_names:
            raise ValueError(unknown("activation", activation, sorted(ACTIVATIONS)) + "; a callable will do, too")
        return ACTIVATIONS[known_names[_plain(activation)]]
    if not callable(activation):
        raise TypeError(f"activation must be a name, an Activation or a callable, not {type(activation).__name__}")
    from analysis.torch_activations import known, unwrap
    name, parameters = known(activation)
    if name:
        makers: dict[str, Callable[..., Activation]] = {"leaky_relu": leaky_relu, "hard_tanh": hard_tanh, "elu": elu}
        return makers[name](*parameters) if parameters else ACTIVATIONS[name]
    label = getattr(activation, "__name__", type(activation).__name__)
    wrapped = Elementwise(unwrap(activation), label)
    wrapped.check()
    return Activation(label, wrapped, kinks=kinks)
