"""Activations in ball arithmetic: values, derivatives up to the second, and slopes over wide balls.

Two questions are told apart. `derivative` encloses sigma^(k) and refuses a ball that touches a point where it does not
exist. `slope` encloses all difference quotients over a ball (Clarke's derivative), which exist across a kink too and
are all that contraction and Krawczyk's test need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flint import arb

from analysis.rigorous.balls import NotCertified
from analysis.rigorous.certainty import less_equal
from deq.names import unknown

Function = Callable[[arb], arb]
WIDE = 1e-6  # above this radius a formula overestimates; endpoints and mean values do better


class NotSmooth(NotCertified):
    """A derivative was asked for where it does not exist, or may not."""


@dataclass(frozen=True)
class BallActivation:
    """A scalar activation with enclosures.

    Attributes:
        name: as in `analysis.activations`.
        derivatives: enclosures of sigma, sigma', sigma''; valid away from the kinks.
        slope_bounds: decimals that bound sigma' on the whole line; None where it is unbounded.
        slope_shape: "rising" where sigma' increases, "bump" where it is even and decreases with |x|, "" otherwise.
        kinks: where some derivative fails to exist.
        smooth_order: highest derivative that is continuous across the kinks.
    """

    name: str
    derivatives: tuple[Function, Function, Function]
    slope_bounds: tuple[str, str] | None
    slope_shape: str = ""
    kinks: tuple[float, ...] = ()
    smooth_order: int = 9

    def derivative(self, order: int, x: arb) -> arb:
        """An enclosure of sigma^(order) over the ball; order 0 to 2.

        Raises:
            NotSmooth: the ball touches a point where this derivative jumps.
        """
        if order > self.smooth_order and self.touches_kink(x):
            kink = next(point for point in self.kinks if x.contains(point))
            raise NotSmooth(f"derivative {order} of {self.name} does not exist at {kink:g}, and an argument "
                            f"{x.str(8)} cannot be told from it")
        if order == 0:
            return self.derivatives[0](x)
        if order == 1:
            return self.slope(x)
        return self.derivatives[order](x)

    def slope(self, x: arb) -> arb:
        """An enclosure of every difference quotient of sigma over the ball."""
        function = self.derivatives[1]
        if float(x.rad()) <= WIDE and not self.touches_kink(x):
            return function(x)
        if self.slope_shape:
            hull = function(x.lower()).union(function(x.upper()))
            return hull.union(function(arb(0))) if self.slope_shape == "bump" and x.contains(0) else hull
        enclosure = function(x)
        if not self.kinks:
            mean_value = function(x.mid()) + self.derivatives[2](x) * (x - x.mid())
            enclosure = _meet(enclosure, mean_value)
        return enclosure if self.slope_bounds is None else _meet(enclosure, self.slope_everywhere())

    def slope_everywhere(self) -> arb:
        """The bounds of sigma' on the whole line, as a ball.

        Raises:
            NotCertified: sigma' is unbounded.
        """
        if self.slope_bounds is None:
            raise NotCertified(f"the slope of {self.name} is unbounded on the whole line; ask for a ball instead")
        return arb(self.slope_bounds[0]).union(arb(self.slope_bounds[1]))

    def touches_kink(self, x: arb) -> bool:
        """Whether the ball cannot be told from some kink."""
        return any(x.contains(point) for point in self.kinks)


def _meet(left: arb, right: arb) -> arb:
    """The intersection of two enclosures of one set; a non-finite one says nothing."""
    if not left.is_finite():
        return right
    if not right.is_finite():
        return left
    return left.intersection(right)


def _monotone(function: Function) -> Function:
    """An enclosure of a monotone function: by its end values when the ball is wide."""
    def enclose(x: arb) -> arb:
        if float(x.rad()) <= WIDE:
            return function(x)
        return function(x.lower()).union(function(x.upper()))
    return enclose


@_monotone
def _logistic(x: arb) -> arb:
    if float(x.mid()) >= 0:
        return 1 / (1 + (-x).exp())
    grown = x.exp()
    return grown / (1 + grown)


@_monotone
def _softplus(x: arb) -> arb:
    return x + (-x).exp().log1p() if float(x.mid()) > 0 else x.exp().log1p()


_tanh = _monotone(lambda x: x.tanh())
_erf = _monotone(lambda x: x.erf())


def _logistic_slope(x: arb) -> arb:
    return _logistic(x) * _logistic(-x)


def _logistic_bend(x: arb) -> arb:
    return _logistic_slope(x) * (_logistic(-x) - _logistic(x))


def _tanh_slope(x: arb) -> arb:
    return 1 / x.cosh() ** 2


def _erf_slope(x: arb) -> arb:
    return 2 / arb.pi().sqrt() * (-x * x).exp()


def _swish_slope(x: arb) -> arb:
    return _logistic(x) + x * _logistic_slope(x)


def _elu(x: arb) -> arb:
    return _by_sign(x, lambda y: y.expm1(), lambda y: y)


def _elu_slope(x: arb) -> arb:
    return _by_sign(x, lambda y: y.exp(), lambda y: arb(1))


def _by_sign(x: arb, negative: Function, positive: Function) -> arb:
    """Enclose a function that is monotone on each side of zero, and is given by two formulas."""
    low, high = x.lower(), x.upper()
    if less_equal(0, low).certain:
        return _monotone(positive)(x)
    if less_equal(high, 0).certain:
        return _monotone(negative)(x)
    zero = arb(0)
    return negative(low).union(negative(zero)).union(positive(zero)).union(positive(high))


def _leaky(slope: str) -> tuple[Function, Function, Function]:
    return (lambda x: _by_sign(x, lambda y: arb(slope) * y, lambda y: y),
            lambda x: _by_sign(x, lambda y: arb(slope), lambda y: arb(1)),
            lambda x: arb(0))


BALL_ACTIVATIONS: dict[str, BallActivation] = {
    item.name: item
    for item in (
        BallActivation("identity", (lambda x: x, lambda x: arb(1), lambda x: arb(0)), ("1", "1")),
        BallActivation("softplus", (_softplus, _logistic, _logistic_slope), ("0", "1"), "rising"),
        BallActivation("sigmoid", (_logistic, _logistic_slope, _logistic_bend), ("0", "0.25"), "bump"),
        BallActivation("tanh", (_tanh, _tanh_slope, lambda x: -2 * _tanh(x) * _tanh_slope(x)), ("0", "1"), "bump"),
        BallActivation("erf", (_erf, _erf_slope, lambda x: -2 * x * _erf_slope(x)), ("0", "1.1283791671"), "bump"),
        BallActivation("swish", (lambda x: x * _logistic(x), _swish_slope,
                                 lambda x: 2 * _logistic_slope(x) + x * _logistic_bend(x)),
                       ("-0.0999", "1.0999")),
        BallActivation("elu", (_elu, _elu_slope, lambda x: _by_sign(x, lambda y: y.exp(), lambda y: arb(0))),
                       ("0", "1"), kinks=(0.0,), smooth_order=1),
        BallActivation("relu", _leaky("0"), ("0", "1"), kinks=(0.0,), smooth_order=0),
        BallActivation("leaky_relu", _leaky("0.01"), ("0.01", "1"), kinks=(0.0,), smooth_order=0),
        BallActivation("sin", (lambda x: x.sin(), lambda x: x.cos(), lambda x: -x.sin()), ("-1", "1")),
        BallActivation("cos", (lambda x: x.cos(), lambda x: -x.sin(), lambda x: -x.cos()), ("-1", "1")),
        BallActivation("exp", (lambda x: x.exp(), lambda x: x.exp(), lambda x: x.exp()), None),
        BallActivation("square", (lambda x: x * x, lambda x: 2 * x, lambda x: arb(2)), None),
        BallActivation("log", (lambda x: x.log(), lambda x: 1 / x, lambda x: -1 / (x * x)), None),
    )
}


def ball_activation(name: str) -> BallActivation:
    """The activation of that name.

    Raises:
        NotCertified: no enclosure of it is known; the message lists those that are.
    """
    if name not in BALL_ACTIVATIONS:
        raise NotCertified("no rigorous enclosure: "
                           + unknown("activation", name, sorted(BALL_ACTIVATIONS)))
    return BALL_ACTIVATIONS[name]
