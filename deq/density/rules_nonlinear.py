"""Rules of elementwise functions, softmax, normalisations and norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deq.density.jet import Jet
from deq.density.rules import RULES, add, multiply, scaled, squares, subtract
from deq.density.rules_shape import choose

__all__ = ["POINTWISE"]
_ATEN = torch.ops.aten
_SQRT_2, _SQRT_PI = math.sqrt(2), math.sqrt(math.pi)
# value, first and second derivative (None for zero) from x and the value
Slopes = Callable[..., tuple[Any, Any]]


def _pointwise(slopes: Slopes) -> Callable:
    def rule(call: Any, jet: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(jet, Jet) or any(isinstance(arg, Jet) for arg in args):
            return NotImplemented
        value = call(jet.value, *args, **kwargs)
        return jet.through(value, *slopes(jet.value, value, *args, **kwargs))
    return rule


def _softplus(x: Tensor, y: Tensor, beta: float = 1, threshold: float = 20) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(beta * x if beta != 1 else x)
    # torch's softplus is the identity above the threshold, and so are its derivatives.
    s = torch.where(x * beta > threshold, 1.0, s)
    bend = s - s.square()
    return s, bend if beta == 1 else beta * bend


def _silu(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(x)
    bend = s - s * s
    return s + x * bend, bend * (2 + x * (1 - 2 * s))


def _gelu(x: Tensor, y: Tensor, *, approximate: str = "none") -> tuple[Tensor, Tensor]:
    if approximate == "none":
        density = torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
        return 0.5 * (1 + torch.erf(x / _SQRT_2)) + x * density, density * (2 - x.square())
    a, b = math.sqrt(2 / math.pi), 0.044715
    t = torch.tanh(a * (x + b * x.pow(3)))
    slope, bend = a * (1 + 3 * b * x.square()), 6 * a * b * x
    ts = 1 - t.square()
    return 0.5 * (1 + t) + 0.5 * x * ts * slope, ts * slope + 0.5 * x * ts * (bend - 2 * t * slope.square())


def _mish(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    s, t = torch.sigmoid(x), torch.tanh(torch.nn.functional.softplus(x))
    ts = (1 - t.square()) * s                                       # derivative of t
    bend = ts * (1 - s) - 2 * t * ts * s
    return t + x * ts, 2 * ts + x * bend


def _elu(x: Tensor, y: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> tuple[Tensor, Tensor]:
    grown = scale * alpha * input_scale * torch.exp(input_scale * x.clamp_max(0))
    return torch.where(x > 0, scale, grown), torch.where(x > 0, 0.0, input_scale * grown)


def _power(x: Tensor, y: Tensor, p: float) -> tuple[Tensor | float, Tensor | float | None]:
    if p == 2:
        return 2 * x, 2.0
    if p == 1:
        return torch.ones_like(x), None
    return p * x.pow(p - 1), p * (p - 1) * x.pow(p - 2)


def _inside(x: Tensor, y: Tensor, low: float | None = None, high: float | None = None) -> tuple[Tensor, None]:
    inside = torch.ones_like(x, dtype=torch.bool)
    inside = inside if low is None else inside & (x >= low)
    return (inside if high is None else inside & (x <= high)).to(x.dtype), None


def _leaky(x: Tensor, y: Tensor, slope: float = 0.01) -> tuple[Tensor, None]:
    return torch.full_like(x, slope).masked_fill(x > 0, 1.0), None


def _tan(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    slope = 1 + y.square()
    return slope, 2 * y * slope


def _tanh(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    slope = 1 - y.square()
    return slope, -2 * y * slope


def _sigmoid(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    slope = y - y.square()
    return slope, slope * (1 - 2 * y)


def _atan(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    slope = (1 + x.square()).reciprocal()
    return slope, -2 * x * slope.square()


def _erf(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    slope = 2 / _SQRT_PI * torch.exp(-x.square())
    return slope, -2 * x * slope


def _reciprocal_power(base: float) -> Slopes:
    return lambda x, y: ((x * base).reciprocal(), -(x.square() * base).reciprocal())


POINTWISE: dict[Any, Slopes] = {
    _ATEN.exp.default: lambda x, y: (y, y), _ATEN.expm1.default: lambda x, y: (y + 1, y + 1),
    _ATEN.exp2.default: lambda x, y: (math.log(2) * y, math.log(2) ** 2 * y),
    _ATEN.log.default: _reciprocal_power(1.0), _ATEN.log2.default: _reciprocal_power(math.log(2)),
    _ATEN.log10.default: _reciprocal_power(math.log(10)),
    _ATEN.log1p.default: lambda x, y: ((1 + x).reciprocal(), -(1 + x).square().reciprocal()),
    _ATEN.sqrt.default: lambda x, y: (0.5 / y, -0.25 / (y * x)),
    _ATEN.rsqrt.default: lambda x, y: (-0.5 * y / x, 0.75 * y / x**2),
    _ATEN.reciprocal.default: lambda x, y: (-y.square(), 2 * y.pow(3)),
    _ATEN.sin.default: lambda x, y: (x.cos(), -y), _ATEN.cos.default: lambda x, y: (-x.sin(), -y),
    _ATEN.sinh.default: lambda x, y: (x.cosh(), y), _ATEN.cosh.default: lambda x, y: (x.sinh(), y),
    _ATEN.tan.default: _tan, _ATEN.tanh.default: _tanh, _ATEN.sigmoid.default: _sigmoid, _ATEN.atan.default: _atan,
    _ATEN.asinh.default: lambda x, y: ((1 + x.square()).rsqrt(), -x * (1 + x.square()).pow(-1.5)),
    _ATEN.erf.default: _erf, _ATEN.erfc.default: lambda x, y: (-_erf(x, y)[0], -_erf(x, y)[1]),
    _ATEN.square.default: lambda x, y: (2 * x, 2.0), _ATEN.pow.Tensor_Scalar: _power,
    _ATEN.abs.default: lambda x, y: (x.sgn(), None),
    _ATEN.softplus.default: _softplus, _ATEN.silu.default: _silu, _ATEN.gelu.default: _gelu, _ATEN.mish.default: _mish,
    _ATEN.elu.default: _elu, _ATEN.relu.default: lambda x, y: ((x > 0).to(x.dtype), None),
    _ATEN.leaky_relu.default: _leaky,
    _ATEN.clamp.default: _inside, _ATEN.clamp_min.default: lambda x, y, low: _inside(x, y, low),
    _ATEN.clamp_max.default: lambda x, y, high: _inside(x, y, None, high),
    _ATEN.hardtanh.default: lambda x, y, low=-1, high=1: (((x > low) & (x < high)).to(x.dtype), None)}
for _overload, _slopes in POINTWISE.items():
    RULES[_overload] = _pointwise(_slopes)


def _log_sigmoid(call: Any, jet: Jet) -> Any:
    value, _ = call(jet.value)
    slope = torch.sigmoid(-jet.value)
    return jet.through(value, slope, slope.square() - slope), None


RULES[_ATEN.log_sigmoid_forward.default] = _log_sigmoid


def _larger(sign: int) -> Callable:
    def rule(call: Any, a: Any, b: Any) -> Any:
        one, two = (item.value if isinstance(item, Jet) else item for item in (a, b))
        if bool((one == two).any()):
            return NotImplemented  # at a tie torch takes the mean of the two slopes
        return choose(one > two if sign > 0 else one < two, a, b)
    return rule


RULES[_ATEN.maximum.default], RULES[_ATEN.minimum.default] = _larger(1), _larger(-1)


# --- sums over a dimension -------------------------------------------------------------------------------------------

def _softmax(call: Any, jet: Jet, dim: int, half: bool) -> Jet:
    y, dim = call(jet.value, dim, half), dim if dim < 0 else dim - jet.value.dim()
    inner = jet.first - (y * jet.first).sum(dim, keepdim=True)
    if jet.laplacian is None:
        return Jet(y, y * inner, None)
    bend = jet.laplacian + squares(inner, inner)
    return Jet(y, y * inner, y * (bend - (y * bend).sum(dim, keepdim=True)))


def _log_softmax(call: Any, jet: Jet, dim: int, half: bool) -> Jet:
    value, dim = call(jet.value, dim, half), dim if dim < 0 else dim - jet.value.dim()
    y = value.exp()
    inner = jet.first - (y * jet.first).sum(dim, keepdim=True)
    if jet.laplacian is None:
        return Jet(value, inner, None)
    total = (y * (jet.laplacian + squares(inner, inner))).sum(dim, keepdim=True)
    return Jet(value, inner, jet.laplacian - total)


def _log_sum_exp(call: Any, jet: Jet, dims: Sequence[int], keepdim: bool = False) -> Jet:
    rank = jet.value.dim()
    dims = [dim if dim < 0 else dim - rank for dim in ([dims] if isinstance(dims, int) else dims)]
    whole = torch.logsumexp(jet.value, dims, keepdim=True)
    y = (jet.value - whole).exp()
    mean = (y * jet.first).sum(dims, keepdim=True)
    inner = jet.first - mean
    laplacian = None if jet.laplacian is None else (y * (jet.laplacian + squares(inner, inner))).sum(dims, keepdim=True)
    made = Jet(whole, mean, laplacian)
    if keepdim:
        return made
    return Jet(whole.squeeze(dims), mean.squeeze(dims), None if laplacian is None else laplacian.squeeze(dims))


RULES[_ATEN._softmax.default], RULES[_ATEN._log_softmax.default] = _softmax, _log_softmax
RULES[_ATEN._safe_softmax.default] = lambda call, jet, dim, dtype=None: _softmax(
    lambda t, dim, _: call(t, dim, dtype), jet, dim, False)
RULES[_ATEN.logsumexp.default] = _log_sum_exp


def _summed(jet: Jet, dims: Sequence[int], keepdim: bool, mean: bool = False) -> Jet:
    rank = jet.value.dim()
    dims = [dim if dim < 0 else dim - rank for dim in dims]

    def run(t: Tensor) -> Tensor:
        return t.mean(dims, keepdim=keepdim) if mean else t.sum(dims, keepdim=keepdim)

    return Jet(run(jet.value), run(jet.first), None if jet.laplacian is None else run(jet.laplacian))


def _norm_scale(x: Jet, dims: list[int], eps: float) -> Jet:
    """1 / sqrt(mean of squares + eps), kept in its dimensions, by sums over directions and dims together."""
    mean = x.value.square().mean(dims, keepdim=True) + eps
    first = 2 * (x.value * x.first).mean(dims, keepdim=True)
    r = mean.rsqrt()
    slope, bend = -0.5 * r / mean, 0.75 * r / mean.square()
    if x.laplacian is None:
        return Jet(r, slope * first, None)
    laplacian = 2 * (x.value * x.laplacian + squares(x.first, x.first)).mean(dims, keepdim=True)
    return Jet(r, slope * first, slope * laplacian + bend * squares(first, first))


def _affine(jet: Jet, weight: Tensor | None, bias: Tensor | None) -> Jet:
    jet = jet if weight is None else scaled(jet, weight)
    return jet if bias is None else Jet(jet.value + bias, jet.first, jet.laplacian)


def _layer_norm(call: Any, x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    if not isinstance(x, Jet) or isinstance(weight, Jet) or isinstance(bias, Jet):
        return NotImplemented
    dims = list(range(-len(shape), 0))
    centred = subtract(x, _summed(x, dims, True, mean=True))
    return _affine(multiply(centred, _norm_scale(centred, dims, eps)), weight, bias), None, None


RULES[_ATEN.native_layer_norm.default] = _layer_norm


def _rms_norm(call: Any, x: Any, shape: Sequence[int], weight: Any, eps: float | None) -> Any:
    if not isinstance(x, Jet) or isinstance(weight, Jet):
        return NotImplemented
    eps = torch.finfo(x.value.dtype).eps if eps is None else eps
    return _affine(multiply(x, _norm_scale(x, list(range(-len(shape), 0)), eps)), weight, None), None


if hasattr(_ATEN, "_fused_rms_norm"):
    RULES[_ATEN._fused_rms_norm.default] = _rms_norm


def _batch_norm(call: Any, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *options: Any) -> Any:
    training, eps = (options[0], options[-1]) if isinstance(options[0], bool) else (False, options[-1])
    if training or mean is None or not isinstance(x, Jet) or any(isinstance(t, Jet) for t in (weight, bias)):
        return NotImplemented
    shape = (-1, *(1,) * (x.value.dim() - 2))
    scale = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
    made = scaled(x, scale.reshape(shape))
    shift = (0.0 if bias is None else bias) - mean * scale
    return Jet(made.value + shift.reshape(shape), made.first, made.laplacian), None, None


for _overload in (_ATEN.native_batch_norm.default, _ATEN._native_batch_norm_legit_no_training.default):
    RULES[_overload] = _batch_norm


def _variance(call: Any, x: Jet, dims: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Jet:
    rank = x.value.dim()
    dims = list(range(rank)) if dims is None or dims == [] else dims
    centred = subtract(x, _summed(x, dims, True, mean=True))
    count = math.prod(x.value.shape[dim] for dim in dims)
    whole = _summed(multiply(centred, centred), dims, keepdim)
    return scaled(whole, 1 / max(0.0, count - (1 if correction is None else correction)))


def _root(jet: Jet) -> Jet:
    value = jet.value.sqrt()
    return jet.through(value, 0.5 / value, -0.25 / (value * jet.value))


RULES[_ATEN.var.correction] = _variance
RULES[_ATEN.std.correction] = lambda call, x, dims=None, **kwargs: _root(_variance(call, x, dims, **kwargs))


def _vector_norm(call: Any, x: Jet, order: float = 2, dims: Any = None, keepdim: bool = False, **_: Any) -> Any:
    if order != 2:
        return NotImplemented
    dims = list(range(x.value.dim())) if dims is None or dims == [] else dims
    return _root(_summed(multiply(x, x), dims, keepdim))


RULES[_ATEN.linalg_vector_norm.default] = _vector_norm
RULES[_ATEN.hypot.default] = lambda call, a, b: _root(add(_squared(a), _squared(b)))


def _squared(a: Any) -> Any:
    return multiply(a, a) if isinstance(a, Jet) else a.square()


def _logaddexp(call: Any, a: Any, b: Any) -> Any:
    gap = subtract(a, b)
    s = torch.sigmoid(gap.value)
    slope = s - s.square()
    soft = gap.through(torch.nn.functional.softplus(gap.value, threshold=1e3), s, slope)
    return add(b, soft)


RULES[_ATEN.logaddexp.default] = _logaddexp
RULES[_ATEN.xlogy.Tensor] = lambda call, a, b: NotImplemented if not isinstance(b, Jet) else multiply(
    a, b.through(b.value.log(), b.value.reciprocal(), -b.value.square().reciprocal()))
