"""The operation zoo, whole: with normalisations, attention, pooling, linear algebra, Fourier transforms and losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.zoo_elementary import (
    ACTIVATIONS,
    BINARY,
    ELEMENTWISE,
    MATRIX,
    PRODUCTS,
    REDUCTIONS,
    SHAPES,
    VECTOR,
    WIDTH,
    Operation,
    fixed,
    image,
    points,
    positive,
    rows,
    spd,
    square,
    tall,
)

__all__ = ["WIDTH", "ZOO", "points"]
_PICTURE = fixed(1, 1, 4, 4)


def _module(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(11)
    module = module.double().eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


_NORM = _module(nn.LayerNorm(WIDTH))
_BATCH = _module(nn.BatchNorm1d(WIDTH))
_GRU, _LSTM, _RNN = _module(nn.GRUCell(3, 3)), _module(nn.LSTMCell(3, 3)), _module(nn.RNNCell(3, 3))
_GRU_LAYER = _module(nn.GRU(2, 2, batch_first=True))
_LSTM_LAYER = _module(nn.LSTM(2, 2, batch_first=True))
_ATTENTION = _module(nn.MultiheadAttention(2, 1, batch_first=True))
_ENCODER = _module(nn.TransformerEncoderLayer(2, 1, 4, dropout=0.0, batch_first=True, activation="gelu"))
_DECODER = _module(nn.TransformerDecoderLayer(2, 1, 4, dropout=0.0, batch_first=True, activation="gelu"))


NORMS_AND_ATTENTION: dict[str, Operation] = {
    "layer_norm": lambda u: F.layer_norm(u, (WIDTH,)),
    "layer_norm affine": _NORM,
    "layer_norm small": lambda u: F.layer_norm(rows(u), (2,)),
    "rms_norm": lambda u: F.rms_norm(u, (WIDTH,)),
    "rms_norm affine": lambda u: F.rms_norm(u, (WIDTH,), VECTOR),
    "group_norm": lambda u: F.group_norm(u, 2, VECTOR, VECTOR.flip(0)),
    "instance_norm": lambda u: F.instance_norm(u.unflatten(1, (2, 3))),
    "batch_norm of one": lambda u: torch.cat(
        [F.batch_norm(v.reshape(3, 2), None, None, training=True).reshape(1, -1) for v in u]
    ),
    "batch_norm eval": _BATCH,
    "local_response_norm": lambda u: F.local_response_norm(u.unflatten(1, (3, 2)), 2, alpha=0.5),
    "attention": lambda u: F.scaled_dot_product_attention(
        rows(u)[:, None], rows(u.sin())[:, None], rows(u.exp())[:, None]
    ),
    "attention causal": lambda u: F.scaled_dot_product_attention(
        rows(u)[:, None], rows(u)[:, None], rows(u)[:, None], is_causal=True
    ),
    "attention mask": lambda u: F.scaled_dot_product_attention(
        rows(u)[:, None], rows(u)[:, None], rows(u)[:, None], attn_mask=MATRIX[:3, :3]
    ),
    "multihead": lambda u: _ATTENTION(rows(u), rows(u.sin()), rows(u), need_weights=False)[0],
    "multihead with weights": lambda u: _ATTENTION(rows(u), rows(u), rows(u))[0],
    "encoder layer": lambda u: _ENCODER(rows(u)),
    "decoder layer": lambda u: _DECODER(rows(u), rows(u.sin())),
    "gru cell": lambda u: _GRU(u[:, :3], u[:, 3:]),
    "lstm cell": lambda u: torch.cat(_LSTM(u[:, :3], (u[:, 3:], u[:, 3:])), 1),
    "rnn cell": lambda u: _RNN(u[:, :3], u[:, 3:]),
    "gru": lambda u: _GRU_LAYER(rows(u))[0],
    "lstm": lambda u: _LSTM_LAYER(rows(u))[0],
}

POOLING: dict[str, Operation] = {
    "avg_pool1d": lambda u: F.avg_pool1d(u.exp()[:, None], 2),
    "avg_pool2d": lambda u: F.avg_pool2d(image(u.exp()), 2, padding=1),
    "max_pool1d": lambda u: F.max_pool1d(u.exp()[:, None], 2),
    "max_pool2d": lambda u: F.max_pool2d(image(u.exp()), 2),
    "adaptive_avg_pool1d": lambda u: F.adaptive_avg_pool1d(u.exp()[:, None], 4),
    "adaptive_avg_pool2d": lambda u: F.adaptive_avg_pool2d(image(u.exp()), 2),
    "adaptive_max_pool1d": lambda u: F.adaptive_max_pool1d(u.exp()[:, None], 2),
    "lp_pool1d": lambda u: F.lp_pool1d(u[:, None], 3.0, 2),
    "interpolate nearest": lambda u: F.interpolate(u.exp()[:, None], scale_factor=2),
    "interpolate linear": lambda u: F.interpolate(u.exp()[:, None], scale_factor=2, mode="linear"),
    "interpolate bilinear": lambda u: F.interpolate(image(u.exp()), scale_factor=2, mode="bilinear"),
    "interpolate bicubic": lambda u: F.interpolate(image(u.exp()), scale_factor=2, mode="bicubic"),
    "grid_sample": lambda u: F.grid_sample(
        _PICTURE.expand(len(u), -1, -1, -1), 0.3 * torch.tanh(rows(u))[:, None] / 9 + 0.05, align_corners=True
    ),
    "unfold image": lambda u: F.unfold(image(u.exp()), 2),
    "fold": lambda u: F.fold(u.exp().unflatten(1, (2, 3)).repeat(1, 2, 1)[:, :, :2], (2, 3), 2),
}

LINALG: dict[str, Operation] = {
    "inv": lambda u: torch.linalg.inv(square(u)),
    "solve": lambda u: torch.linalg.solve(square(u), u[:, :2]),
    "solve right": lambda u: torch.linalg.solve(square(u), rows(u), left=False),
    "solve_triangular": lambda u: torch.linalg.solve_triangular(square(u).triu(), rows(u).mT, upper=True),
    "det": lambda u: torch.linalg.det(square(u)),
    "logdet": lambda u: torch.logdet(spd(u)),
    "slogdet": lambda u: torch.linalg.slogdet(square(u))[1],
    "cholesky": lambda u: torch.linalg.cholesky(spd(u)),
    "cholesky_solve": lambda u: torch.cholesky_solve(rows(u).mT, torch.linalg.cholesky(spd(u))),
    "cholesky_inverse": lambda u: torch.cholesky_inverse(torch.linalg.cholesky(spd(u))),
    "eigvalsh": lambda u: torch.linalg.eigvalsh(spd(u)),
    "svdvals": lambda u: torch.linalg.svdvals(square(u)),
    "eigh": lambda u: torch.linalg.eigh(spd(u))[1].square(),
    "eigvals": lambda u: torch.linalg.eigvals(spd(u)).real.sum(1),
    "svd": lambda u: torch.linalg.svd(square(u))[0].square(),
    "qr": lambda u: torch.linalg.qr(tall(u))[1].square(),
    "lu": lambda u: torch.linalg.lu(square(u))[2],
    "lu_factor and lu_solve": lambda u: torch.linalg.lu_solve(*torch.linalg.lu_factor(square(u)), rows(u).mT),
    "pinv": lambda u: torch.linalg.pinv(tall(u)),
    "lstsq": lambda u: torch.linalg.lstsq(tall(u), u[:, :3, None]).solution,
    "matrix_exp": lambda u: torch.linalg.matrix_exp(0.3 * square(u)),
    "matrix_power": lambda u: torch.linalg.matrix_power(square(u), 3),
    "matrix_power negative": lambda u: torch.linalg.matrix_power(square(u), -2),
    "matrix_norm": lambda u: torch.linalg.matrix_norm(square(u)),
    "matrix_norm 2": lambda u: torch.linalg.matrix_norm(square(u), 2),
    "matrix_norm nuclear": lambda u: torch.linalg.matrix_norm(square(u), "nuc"),
    "householder_product": lambda u: torch.linalg.householder_product(tall(u) / 9, u[:, :2]),
    "tensorsolve": lambda u: torch.stack([torch.linalg.tensorsolve(square(v[None])[0], v[:2]) for v in u]),
    "inv_ex": lambda u: torch.linalg.inv_ex(square(u))[0],
    "solve_ex": lambda u: torch.linalg.solve_ex(square(u), u[:, :2, None])[0],
    "trace": lambda u: torch.stack([torch.trace(square(v[None])[0] ** 2) for v in u]),
    "vander": lambda u: torch.linalg.vander(u, N=4),
    "cond": lambda u: torch.linalg.cond(square(u)),
    "diagonal of product": lambda u: (square(u) @ square(u)).diagonal(dim1=1, dim2=2),
}

FOURIER: dict[str, Operation] = {
    "fft": lambda u: torch.fft.fft(u.square()).real,
    "rfft": lambda u: torch.fft.rfft(u.square()).abs(),
    "irfft": lambda u: torch.fft.irfft(torch.fft.rfft(u.square()), n=6),
    "fft2": lambda u: torch.fft.fft2(rows(u.exp())).imag,
    "hfft": lambda u: torch.fft.hfft(torch.complex(u[:, :4], u[:, 2:])),
    "fftshift": lambda u: torch.fft.fftshift(u.exp(), 1),
    "stft": lambda u: torch.stft(
        u.exp(), 4, 2, window=torch.ones(4, dtype=u.dtype), center=False, return_complex=True
    ).abs(),
}

LOSSES: dict[str, Operation] = {
    "mse_loss": lambda u: F.mse_loss(u, u.exp(), reduction="none"),
    "huber_loss": lambda u: F.huber_loss(u, 0.1 * u.exp(), reduction="none", delta=30.0),
    "smooth_l1_loss": lambda u: F.smooth_l1_loss(u, 0.1 * u, reduction="none", beta=30.0),
    "l1_loss": lambda u: F.l1_loss(u, 9 + u.exp(), reduction="none"),
    "binary_cross_entropy": lambda u: F.binary_cross_entropy(
        torch.sigmoid(u), torch.full_like(u, 0.3), reduction="none"
    ),
    "bce with logits": lambda u: F.binary_cross_entropy_with_logits(u, torch.full_like(u, 0.3), reduction="none"),
    "cross_entropy": lambda u: F.cross_entropy(u, torch.full((len(u),), 2), reduction="none"),
    "nll_loss": lambda u: F.nll_loss(F.log_softmax(u, 1), torch.full((len(u),), 2), reduction="none"),
    "kl_div": lambda u: F.kl_div(F.log_softmax(u, 1), F.softmax(u.sin(), 1), reduction="none"),
    "poisson_nll_loss": lambda u: F.poisson_nll_loss(u, torch.ones_like(u), reduction="none"),
    "gaussian_nll_loss": lambda u: F.gaussian_nll_loss(u, u.sin(), positive(u), reduction="none"),
    "soft_margin_loss": lambda u: F.soft_margin_loss(u, torch.ones_like(u), reduction="none"),
    "cosine_embedding_loss": lambda u: F.cosine_embedding_loss(u, u.exp(), torch.ones(len(u)), reduction="none"),
    "triplet_margin_loss": lambda u: F.triplet_margin_loss(
        u[:, :2], 1 + u[:, 2:4], u[:, 4:], margin=9.0, reduction="none"
    ),
    "multilabel_soft_margin": lambda u: F.multilabel_soft_margin_loss(u, torch.ones_like(u), reduction="none"),
    "hinge_embedding_loss": lambda u: F.hinge_embedding_loss(
        u.exp(), -torch.ones_like(u), margin=30.0, reduction="none"
    ),
}

ZOO: dict[str, Operation] = {
    **ELEMENTWISE,
    **ACTIVATIONS,
    **BINARY,
    **REDUCTIONS,
    **SHAPES,
    **PRODUCTS,
    **NORMS_AND_ATTENTION,
    **POOLING,
    **LINALG,
    **FOURIER,
    **LOSSES,
}
