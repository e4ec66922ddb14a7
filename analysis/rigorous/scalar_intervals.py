"""Activations on mpmath intervals, for the second routine: sigma, sigma', sigma'', and slopes over wide intervals.

Written apart from `smooth`, on exp, log and sqrt alone. Monotone functions are taken at the interval's ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpmath import iv

from analysis.rigorous.certainty import less

IntervalFunction = Callable[[Any], Any]


class Undefined(ValueError):
    """A derivative does not exist somewhere in the interval."""


def ends(x: Any) -> tuple[Any, Any]:
    """Both ends as intervals of width zero."""
    low, high = x._mpi_
    return iv.make_mpf((low, low)), iv.make_mpf((high, high))


def hull(*parts: Any) -> Any:
    """The least interval around several."""
    low, high = parts[0].a, parts[0].b
    for part in parts[1:]:
        low = part.a if less(part.a, low).certain else low
        high = part.b if less(high, part.b).certain else high
    return iv.make_mpf((low._mpi_[0], high._mpi_[1]))


def meet(left: Any, right: Any) -> Any:
    """The intersection of two enclosures of one set."""
    low = right.a if less(left.a, right.a).certain else left.a
    high = right.b if less(right.b, left.b).certain else left.b
    return iv.make_mpf((low._mpi_[0], high._mpi_[1]))


def monotone(function: IntervalFunction) -> IntervalFunction:
    """The exact range of a monotone function, up to rounding."""
    def on_interval(x: Any) -> Any:
        low, high = ends(x)
        return hull(function(low), function(high))
    return on_interval


def bump(function: IntervalFunction) -> IntervalFunction:
    """The range of an even function that decreases with |x|."""
    def on_interval(x: Any) -> Any:
        low, high = ends(x)
        parts = [function(low), function(high)]
        away = less(0, low).certain or less(high, 0).certain
        return hull(*parts) if away else hull(*parts, function(iv.mpf(0)))
    return on_interval


def _positive(x: Any) -> bool:
    return less(0, x).certain


def _logistic_point(x: Any) -> Any:
    return 1 / (1 + iv.exp(-x)) if _positive(x) else iv.exp(x) / (1 + iv.exp(x))


def _softplus_point(x: Any) -> Any:
    return x + iv.log(1 + iv.exp(-x)) if _positive(x) else iv.log(1 + iv.exp(x))


logistic = monotone(_logistic_point)


def _tanh_point(x: Any) -> Any:
    return 2 * _logistic_point(2 * x) - 1


def _erf_point(x: Any) -> Any:
    """2/sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!: for x > 0 all terms are positive, the tail geometric."""
    size = -x if less(x, 0).certain else x
    if less(40, size).certain:  # 1 - erf(40) < exp(-1600)
        tail = iv.mpf([0, 1]) * iv.exp(-size * size)
        return (1 - tail) if _positive(x) else tail - 1
    term, total, n = size, size, 0
    limit = iv.ldexp(iv.mpf(1), -iv.prec - 10)
    while not (less(2 * size * size, n).certain and less(term, limit).certain):
        n += 1
        term = term * 2 * size * size / (2 * n + 1)
        total = total + term
    total = total + term * iv.mpf([0, 1])  # from here each term is below half the one before
    value = 2 / iv.sqrt(iv.pi) * iv.exp(-size * size) * total
    return value if _positive(x) else -value


def _gauss_point(x: Any) -> Any:
    return 2 / iv.sqrt(iv.pi) * iv.exp(-x * x)


def _sech_squared_point(x: Any) -> Any:
    return 4 * _logistic_point(2 * x) * _logistic_point(-2 * x)


def _by_sign(negative: IntervalFunction, positive: IntervalFunction, *, smooth: bool) -> IntervalFunction:
    def on_interval(x: Any) -> Any:
        low, high = ends(x)
        if less(0, low).certain:
            return monotone(positive)(x)
        if less(high, 0).certain:
            return monotone(negative)(x)
        if smooth:
            raise Undefined("a derivative was asked for across a kink at zero")
        zero = iv.mpf(0)
        return hull(negative(low), negative(zero), positive(zero), positive(high))
    return on_interval


def _constant(number: str | int) -> IntervalFunction:
    return lambda x: iv.mpf(number)


def _leaky(slope: str | int) -> IntervalActivation:
    value = _by_sign(lambda x: iv.mpf(slope) * x, lambda x: x, smooth=False)
    return IntervalActivation(value, _by_sign(_constant(slope), _constant(1), smooth=True), _constant(0),
                              _by_sign(_constant(slope), _constant(1), smooth=False), (str(slope), "1"))


@dataclass(frozen=True)
class IntervalActivation:
    """Enclosures of sigma, sigma', sigma'' over an interval, of all its difference quotients, and over the line."""

    value: IntervalFunction
    slope: IntervalFunction
    bend: IntervalFunction
    quotients: IntervalFunction
    everywhere: tuple[str, str]


def _logistic_bend(x: Any) -> Any:
    s, t = logistic(x), logistic(-x)
    return s * t * (t - s)


def _swish_slope(x: Any) -> Any:
    return logistic(x) * (1 + x * logistic(-x))


def _swish_quotients(x: Any) -> Any:
    """The range of swish': its formula, its mean value form and its bounds on the line, cut with each other."""
    middle = iv.make_mpf((x.mid._mpi_[0],) * 2)
    mean_value = _swish_slope(middle) + _swish_bend(x) * (x - middle)
    return meet(meet(_swish_slope(x), mean_value), iv.mpf(["-0.0999", "1.0999"]))


def _swish_bend(x: Any) -> Any:
    return 2 * _logistic_slope(x) + x * _logistic_bend(x)


_logistic_slope = bump(lambda x: _logistic_point(x) * _logistic_point(-x))
_sech_squared = bump(_sech_squared_point)
_gauss = bump(_gauss_point)
_elu_slope = monotone(lambda x: iv.mpf(1) if _positive(x) else iv.exp(x))

INTERVAL_ACTIVATIONS: dict[str, IntervalActivation] = {
    "identity": IntervalActivation(lambda x: x, _constant(1), _constant(0), _constant(1), ("1", "1")),
    "softplus": IntervalActivation(monotone(_softplus_point), logistic, _logistic_slope, logistic, ("0", "1")),
    "sigmoid": IntervalActivation(logistic, _logistic_slope, _logistic_bend, _logistic_slope, ("0", "0.25")),
    "tanh": IntervalActivation(monotone(_tanh_point), _sech_squared,
                               lambda x: -2 * monotone(_tanh_point)(x) * _sech_squared(x), _sech_squared, ("0", "1")),
    "erf": IntervalActivation(monotone(_erf_point), _gauss, lambda x: -2 * x * _gauss(x), _gauss,
                              ("0", "1.1283791671")),
    "swish": IntervalActivation(lambda x: x * logistic(x), _swish_slope, _swish_bend, _swish_quotients,
                                ("-0.0999", "1.0999")),
    "elu": IntervalActivation(monotone(lambda x: x if _positive(x) else iv.exp(x) - 1), _elu_slope,
                              _by_sign(iv.exp, _constant(0), smooth=True), _elu_slope, ("0", "1")),
    "relu": _leaky(0),
    "leaky_relu": _leaky("0.01"),
    "sin": IntervalActivation(iv.sin, iv.cos, lambda x: -iv.sin(x), iv.cos, ("-1", "1")),
    "cos": IntervalActivation(iv.cos, lambda x: -iv.sin(x), lambda x: -iv.cos(x), lambda x: -iv.sin(x), ("-1", "1")),
}
