"""The operation zoo: differentiable operations of torch, torch.nn.functional, torch.linalg and the common modules.

Each entry maps [batch, 6] to [batch, ...], sample by sample, and is smooth near `points`. Here is what works on single
numbers, shapes and products; `tests.zoo` adds modules, linear algebra and losses to it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Operation = Callable[[Tensor], Tensor]
WIDTH = 6
_GENERATOR = torch.Generator().manual_seed(7)


def fixed(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_GENERATOR, dtype=torch.float64)


VECTOR, MATRIX, _M = fixed(WIDTH), fixed(WIDTH, WIDTH), fixed(4, WIDTH)
MASK = torch.tensor([True, False, True, True, False, True])
_INDEX = torch.tensor([3, 0, 0, 5])
_KERNEL1, _KERNEL2, _KERNEL3 = fixed(4, 2, 3), fixed(3, 1, 2, 2), fixed(2, 1, 1, 2, 2)
_TRANSPOSED1, _TRANSPOSED2 = fixed(2, 3, 2), fixed(1, 2, 2, 2)
_BILINEAR = fixed(3, 3, 3)


def positive(u: Tensor) -> Tensor:
    """Above 1/2."""
    return 0.5 + u.square()


def unit(u: Tensor) -> Tensor:
    """Inside (-0.9, 0.9)."""
    return 0.9 * torch.tanh(u)


def spd(u: Tensor) -> Tensor:
    """Symmetric positive definite [batch, 2, 2], with distinct eigenvalues."""
    a = u[:, :4].unflatten(1, (2, 2))
    return a @ a.mT + torch.diag(torch.tensor([2.0, 3.5], dtype=u.dtype))


def square(u: Tensor) -> Tensor:
    """General well-conditioned [batch, 2, 2]."""
    return 0.4 * u[:, 2:].unflatten(1, (2, 2)) + torch.tensor([[2.0, 0.3], [-0.4, 3.0]], dtype=u.dtype)


def tall(u: Tensor) -> Tensor:
    """Full-rank [batch, 3, 2]."""
    return 0.4 * u.unflatten(1, (3, 2)) + torch.tensor([[2.0, 0.3], [-0.4, 3.0], [0.5, 0.7]], dtype=u.dtype)


def rows(u: Tensor) -> Tensor:
    return u.unflatten(1, (3, 2))


def image(u: Tensor) -> Tensor:
    return u.unflatten(1, (1, 2, 3))


ELEMENTWISE: dict[str, Operation] = {
    "abs": lambda u: (u + 3).abs(),
    "acos": lambda u: torch.acos(unit(u)),
    "acosh": lambda u: torch.acosh(1 + positive(u)),
    "asin": lambda u: torch.asin(unit(u)),
    "asinh": torch.asinh,
    "atan": torch.atan,
    "atanh": lambda u: torch.atanh(unit(u)),
    "cos": torch.cos,
    "cosh": torch.cosh,
    "deg2rad": lambda u: torch.deg2rad(50 * u),
    "rad2deg": lambda u: torch.rad2deg(u / 50),
    "erf": torch.erf,
    "erfc": torch.erfc,
    "erfinv": lambda u: torch.erfinv(unit(u)),
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "lgamma": lambda u: torch.lgamma(positive(u)),
    "digamma": lambda u: torch.digamma(positive(u)),
    "polygamma": lambda u: torch.polygamma(1, positive(u)),
    "mvlgamma": lambda u: torch.mvlgamma(2 + positive(u), 2),
    "log": lambda u: torch.log(positive(u)),
    "log10": lambda u: torch.log10(positive(u)),
    "log1p": lambda u: torch.log1p(positive(u)),
    "log2": lambda u: torch.log2(positive(u)),
    "logit": lambda u: torch.logit(0.5 + 0.4 * torch.tanh(u)),
    "neg": torch.neg,
    "reciprocal": lambda u: positive(u).reciprocal(),
    "rsqrt": lambda u: positive(u).rsqrt(),
    "sqrt": lambda u: positive(u).sqrt(),
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sinc": torch.sinc,
    "square": torch.square,
    "tan": lambda u: torch.tan(unit(u)),
    "tanh": torch.tanh,
    "xlogy": lambda u: torch.xlogy(positive(u), positive(u.flip(1))),
    "xlog1py": lambda u: torch.special.xlog1py(positive(u), positive(u.flip(1))),
    "entr": lambda u: torch.special.entr(positive(u)),
    "log_ndtr": torch.special.log_ndtr,
    "ndtr": torch.special.ndtr,
    "ndtri": lambda u: torch.special.ndtri(0.5 + 0.4 * torch.tanh(u)),
    "erfcx": torch.special.erfcx,
    "i0": torch.special.i0,
    "i0e": torch.special.i0e,
    "i1": torch.special.i1,
    "i1e": torch.special.i1e,
    "pow scalar": lambda u: positive(u) ** 1.7,
    "pow integer": lambda u: u**3,
    "pow base": lambda u: 1.3**u,
    "pow": lambda u: positive(u) ** positive(u.flip(1)),
    "float_power": lambda u: torch.float_power(positive(u), 0.3),
    "clamp": lambda u: u.clamp(-9, 9) * u,
    "nan_to_num": lambda u: torch.nan_to_num(u * u),
    "angle": lambda u: u.angle() + u,
    "where": lambda u: torch.where(MASK, u.square(), u.sin()),
    "masked_fill": lambda u: u.exp().masked_fill(MASK, 0.3),
    "complex": lambda u: torch.complex(u[:, :3], u[:, 3:]).pow(2).real,
    "polar": lambda u: torch.polar(positive(u), u).imag,
}

ACTIVATIONS: dict[str, Operation] = {
    "celu": F.celu,
    "elu": F.elu,
    "gelu": F.gelu,
    "gelu tanh": lambda u: F.gelu(u, approximate="tanh"),
    "hardsigmoid": lambda u: F.hardsigmoid(u) * u,
    "hardswish": F.hardswish,
    "hardtanh": lambda u: F.hardtanh(u, -5, 5) * u,
    "leaky_relu": lambda u: F.leaky_relu(u.square() - 9) + u,
    "logsigmoid": F.logsigmoid,
    "mish": F.mish,
    "prelu": lambda u: F.prelu(u + 5, torch.tensor([0.2], dtype=u.dtype)) * u,
    "relu": lambda u: F.relu(u + 5) ** 2,
    "relu6": lambda u: F.relu6(u + 3) * u,
    "rrelu": lambda u: F.rrelu(u + 5) * u,
    "selu": F.selu,
    "silu": F.silu,
    "softmax": lambda u: F.softmax(u, 1),
    "log_softmax": lambda u: F.log_softmax(u, 1),
    "softmin": lambda u: F.softmin(u, 1),
    "softplus": F.softplus,
    "softplus beta": lambda u: F.softplus(u, beta=2.0, threshold=30),
    "softshrink": lambda u: F.softshrink(u + 5) * u,
    "hardshrink": lambda u: F.hardshrink(u + 5) * u,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "threshold": lambda u: F.threshold(u + 5, 0.1, 0.0) * u,
    "glu": F.glu,
}

BINARY: dict[str, Operation] = {
    "add": lambda u: torch.add(u, u.flip(1), alpha=0.3),
    "sub": lambda u: torch.sub(u.sin(), u.flip(1), alpha=2),
    "rsub": lambda u: torch.rsub(u.sin(), 1.5),
    "mul": lambda u: u * u.flip(1),
    "div": lambda u: u / positive(u.flip(1)),
    "true_divide": lambda u: 2.0 / positive(u),
    "addcmul": lambda u: torch.addcmul(u, u, u.flip(1), value=0.7),
    "addcdiv": lambda u: torch.addcdiv(u, u, positive(u), value=0.7),
    "atan2": lambda u: torch.atan2(u, positive(u.flip(1))),
    "hypot": lambda u: torch.hypot(u, positive(u)),
    "logaddexp": lambda u: torch.logaddexp(u, u.flip(1)),
    "logaddexp2": lambda u: torch.logaddexp2(u, u.flip(1)),
    "lerp": lambda u: torch.lerp(u, u.flip(1), u),
    "lerp scalar": lambda u: torch.lerp(u.sin(), u.flip(1), 0.3),
    "maximum": lambda u: torch.maximum(u.exp(), u.flip(1) - 3),
    "minimum": lambda u: torch.minimum(u.exp(), u.flip(1) + 9),
    "fmax": lambda u: torch.fmax(u.exp(), u.flip(1) - 3),
    "remainder": lambda u: torch.remainder(u * u + 0.1, 50.0),
    "copysign": lambda u: torch.copysign(u + 4, torch.ones_like(u)) ** 2,
    "dist": lambda u: (
        torch.dist(u[0], u[0].flip(0)).reshape(1, 1)
        if len(u) == 1
        else torch.stack([torch.dist(v, v.flip(0)) for v in u])[:, None]
    ),
}

REDUCTIONS: dict[str, Operation] = {
    "sum": lambda u: u.exp().sum(1, keepdim=True) * u,
    "mean": lambda u: u.exp().mean(1),
    "prod": lambda u: u.prod(1),
    "cumsum": lambda u: u.square().cumsum(1),
    "cumprod": lambda u: u.cumprod(1),
    "logsumexp": lambda u: u.logsumexp(1),
    "logcumsumexp": lambda u: u.logcumsumexp(1),
    "std": lambda u: u.std(1),
    "var": lambda u: u.var(1),
    "var_mean": lambda u: sum(torch.var_mean(u, 1)),
    "norm": lambda u: u.norm(dim=1),
    "norm 3": lambda u: positive(u).norm(3, dim=1),
    "vector_norm": lambda u: torch.linalg.vector_norm(u, dim=1),
    "amax": lambda u: u.exp().amax(1) + u[:, 0],
    "amin": lambda u: u.exp().amin(1),
    "max": lambda u: u.exp().max(1).values,
    "median": lambda u: u.exp().median(1).values,
    "kthvalue": lambda u: u.exp().kthvalue(2, 1).values,
    "sort": lambda u: u.exp().sort(1).values,
    "topk": lambda u: u.exp().topk(3, 1).values,
    "cummax": lambda u: u.exp().cummax(1).values,
    "nansum": lambda u: u.exp().nansum(1),
    "trapezoid": lambda u: torch.trapezoid(u.square(), dim=1),
    "diff": lambda u: u.exp().diff(dim=1),
    "renorm": lambda u: torch.renorm(u, 2, 0, 0.7),
    "cov": lambda u: torch.stack([torch.cov(rows(v[None])[0]) for v in u]),
    "quantile": lambda u: u.exp().quantile(0.3, dim=1),
}

SHAPES: dict[str, Operation] = {
    "cat": lambda u: torch.cat([u.exp(), u], 1),
    "stack": lambda u: torch.stack([u.exp(), u.sin()], 2),
    "chunk": lambda u: u.exp().chunk(2, 1)[1],
    "split": lambda u: u.sin().split([2, 4], 1)[1] * 2,
    "unbind": lambda u: u.exp().unbind(1)[2],
    "narrow": lambda u: u.exp().narrow(1, 1, 3),
    "select": lambda u: u.exp()[:, 2],
    "slice": lambda u: u.exp()[:, 1:5:2],
    "flip": lambda u: u.exp().flip(1),
    "roll": lambda u: u.exp().roll(2, 1),
    "gather": lambda u: u.exp().gather(1, _INDEX.expand(len(u), 4)),
    "index_select": lambda u: u.exp().index_select(1, _INDEX),
    "advanced index": lambda u: u.exp()[:, _INDEX],
    "boolean index": lambda u: u.exp()[:, MASK],
    "take_along_dim": lambda u: torch.take_along_dim(u.exp(), _INDEX.expand(len(u), 4), 1),
    "scatter": lambda u: torch.scatter(u.sin(), 1, _INDEX[:3].expand(len(u), 3)[:, [0, 1]], u.exp()[:, :2]),
    "scatter_add": lambda u: torch.scatter_add(u.sin(), 1, _INDEX.expand(len(u), 4), u.exp()[:, :4]),
    "index_add": lambda u: torch.index_add(u.sin(), 1, _INDEX, u.exp()[:, :4]),
    "index_copy": lambda u: torch.index_copy(u.sin(), 1, _INDEX[[0, 1]], u.exp()[:, :2]),
    "masked_scatter": lambda u: torch.cat([torch.masked_scatter(v.sin(), MASK, v.exp()) for v in u.split(1)]),
    "masked write": lambda u: _write(u),
    "expand": lambda u: u.exp()[:, None].expand(-1, 2, -1),
    "repeat": lambda u: u.exp().repeat(1, 2),
    "repeat_interleave": lambda u: u.exp().repeat_interleave(2, 1),
    "tile": lambda u: u.exp().tile(1, 2),
    "transpose": lambda u: rows(u.exp()).mT * rows(u).mT,
    "permute": lambda u: image(u.exp()).permute(0, 3, 1, 2),
    "movedim": lambda u: image(u.exp()).movedim(1, -1),
    "tril": lambda u: torch.tril(rows(u.exp())),
    "triu": lambda u: torch.triu(rows(u.exp())),
    "diagonal": lambda u: rows(u.exp()).diagonal(dim1=1, dim2=2),
    "diag_embed": lambda u: torch.diag_embed(u.exp()),
    "as_strided": lambda u: u.exp().contiguous().as_strided((len(u), 2), (6, 3)),
    "unfold": lambda u: u.exp().unfold(1, 3, 2),
    "rot90": lambda u: torch.rot90(rows(u.exp()), 1, (1, 2)),
    "meshgrid": lambda u: u[:, :, None] * u.exp()[:, None],
    "pad constant": lambda u: F.pad(u.exp(), (1, 2)),
    "pad reflect": lambda u: F.pad(u.exp()[:, None], (1, 2), mode="reflect"),
    "pad replicate": lambda u: F.pad(u.exp()[:, None], (1, 2), mode="replicate"),
    "pad circular": lambda u: F.pad(u.exp()[:, None], (1, 2), mode="circular"),
    "in place": lambda u: u.sin().mul_(u).add_(1.0),
    "pixel_shuffle": lambda u: F.pixel_shuffle(u.exp()[:, :4, None, None], 2),
    "block_diag": lambda u: torch.einsum("bi,ij->bij", u.exp(), torch.eye(6, dtype=u.dtype)),
}


def _write(u: Tensor) -> Tensor:
    result = u.sin()
    result[:, 1:3] = u.exp()[:, :2]
    return result


PRODUCTS: dict[str, Operation] = {
    "linear": lambda u: F.linear(u.sin(), _M, _M[:, 0]),
    "matmul": lambda u: u.sin() @ MATRIX,
    "addmm": lambda u: torch.addmm(u, u.sin(), MATRIX),
    "bmm": lambda u: torch.bmm(rows(u), rows(u.exp()).mT),
    "baddbmm": lambda u: torch.baddbmm(rows(u)[:, :, :1], rows(u), rows(u.exp()).mT),
    "matrix by vector": lambda u: (rows(u) @ u[:, :2, None].exp()).squeeze(-1),
    "outer": lambda u: u[:, :, None] * u[:, None],
    "einsum": lambda u: torch.einsum("bij,bkj,k->bi", rows(u), rows(u.exp()), VECTOR[:3]),
    "inner": lambda u: torch.inner(u.sin(), _M),
    "tensordot": lambda u: torch.tensordot(rows(u), _fixed_tensor(), dims=([1, 2], [0, 1])),
    "vecdot": lambda u: torch.linalg.vecdot(u, u.exp()),
    "cross": lambda u: torch.linalg.cross(u[:, :3], u[:, 3:]),
    "kron": lambda u: torch.stack([torch.kron(v[:2], v[2:4].exp()) for v in u]),
    "multi_dot": lambda u: torch.stack(
        [torch.linalg.multi_dot([rows(v[None])[0].T, rows(v[None])[0], MATRIX[:2]]) for v in u]
    ),
    "bilinear": lambda u: F.bilinear(u[:, :3].contiguous(), u[:, 3:].contiguous(), _BILINEAR),
    "conv1d": lambda u: F.conv1d(u.sin().unflatten(1, (2, 3)), _KERNEL1, padding=1),
    "conv2d": lambda u: F.conv2d(image(u.sin()), _KERNEL2),
    "conv3d": lambda u: F.conv3d(image(u.sin())[:, None], _KERNEL3),
    "conv grouped": lambda u: F.conv1d(u.sin().unflatten(1, (2, 3)), _KERNEL1[:, :1], groups=2, padding=1, dilation=1),
    "conv_transpose1d": lambda u: F.conv_transpose1d(u.sin().unflatten(1, (2, 3)), _TRANSPOSED1, stride=2),
    "conv_transpose2d": lambda u: F.conv_transpose2d(image(u.sin()), _TRANSPOSED2),
    "cdist": lambda u: torch.cdist(rows(u), 3 + rows(u.exp())),
    "cdist 1": lambda u: torch.cdist(rows(u), 9 + rows(u.exp()), p=1.0) * u[:, :1, None],
    "pairwise_distance": lambda u: F.pairwise_distance(u, 2 + u.exp()),
    "cosine_similarity": lambda u: F.cosine_similarity(u, u.exp(), 1),
    "normalize": lambda u: F.normalize(u, dim=1),
    "embedding of indices": lambda u: F.embedding(_INDEX, MATRIX).mean(0) * u,
    "pdist": lambda u: torch.stack([F.pdist(rows(v[None])[0]) for v in u]),
}


def _fixed_tensor() -> Tensor:
    return MATRIX[:3, :].unflatten(1, (2, 3))


def points(batch: int, seed: int = 0) -> Tensor:
    """Points [batch, 6] whose entries are at least 0.1 apart from each other and from their mirror images."""
    base = torch.tensor([-1.1, -0.7, -0.25, 0.4, 0.85, 1.3], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    order = torch.argsort(torch.rand(batch, WIDTH, generator=generator), 1)
    return base[order] + 0.05 * torch.randn(batch, WIDTH, generator=generator, dtype=torch.float64).clamp(-1, 1)
