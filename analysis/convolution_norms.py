"""Operator norm of a convolution and bounds that hold, where the Frobenius norm of the kernel ([SM] §3.2) does not.

For stride-1 "same" convolution with zero padding on h x w images, with k_s the [out, in] matrix of shift s and k_hat
its Fourier transform:  |conv|_2 <= max_w |k_hat(w)|_2 <= sum_s |k_s|_2 <= sqrt(number of shifts) |k|_F.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, svds
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class ConvolutionNorms:
    """Norms of one kernel on one image size, in increasing order but for `frobenius`.

    Attributes:
        operator: the operator 2-norm itself, by Lanczos (an estimate from below, to about 1e-10).
        fourier: max_w |k_hat(w)|_2 on the grid of a torus that contains the padded image: an upper bound for this size.
        shifts: sum_s |k_s|_2: an upper bound for every image size.
        frobenius_bound: sqrt(kh kw) |k|_F: an upper bound for every image size.
        frobenius: |k|_F, which [SM] divides by: no bound.
    """

    operator: float
    fourier: float
    shifts: float
    frobenius_bound: float
    frobenius: float


def convolution_norms(kernel: Tensor, height: int, width: int) -> ConvolutionNorms:
    """All norms of a kernel [out, in, kh, kw] acting on [in, height, width] images, zero padding, stride 1.

    Args:
        kernel: float64, odd kh and kw.
        height: image height, at least 1.
        width: image width, at least 1.

    Raises:
        ValueError: another rank or dtype, an even kernel size, NaN, or an empty image.

    Example:
        >>> import torch, analysis
        >>> norms = analysis.convolution_norms(torch.ones(1, 1, 1, 1, dtype=torch.float64), 4, 4)
        >>> round(float(norms.operator), 6)  # a copy
        1.0
    """
    _check(kernel, height, width)
    return ConvolutionNorms(
        operator=convolution_operator_norm(kernel, height, width),
        fourier=fourier_bound(kernel, height, width),
        shifts=float(torch.linalg.matrix_norm(kernel.permute(2, 3, 0, 1), 2).sum()),
        frobenius_bound=float((kernel.shape[2] * kernel.shape[3]) ** 0.5 * torch.linalg.vector_norm(kernel)),
        frobenius=float(torch.linalg.vector_norm(kernel)))


def fourier_bound(kernel: Tensor, height: int, width: int) -> float:
    """max_w |k_hat(w)|_2 over the Fourier grid of size (height + kh - 1) x (width + kw - 1).

    On a torus of that size no shift wraps round onto the image, so zero-padded convolution is the circular one between
    an embedding and a restriction, both of norm 1; and the circular one is block diagonal in Fourier space.
    """
    _check(kernel, height, width)
    size = (height + kernel.shape[2] - 1, width + kernel.shape[3] - 1)
    transform = torch.fft.fft2(kernel, s=size)
    return float(torch.linalg.matrix_norm(transform.permute(2, 3, 0, 1), 2).max())


def convolution_operator_norm(kernel: Tensor, height: int, width: int) -> float:
    """The operator 2-norm by Lanczos on products with the convolution and its transpose."""
    _check(kernel, height, width)
    out, into = kernel.shape[:2]
    padding = (kernel.shape[2] // 2, kernel.shape[3] // 2)
    with torch.no_grad():
        kernel = kernel.detach()

        def forward(vector: np.ndarray) -> np.ndarray:
            image = torch.from_numpy(np.array(vector, dtype=float)).reshape(1, into, height, width)
            return functional.conv2d(image, kernel, padding=padding).reshape(-1).numpy()

        def backward(vector: np.ndarray) -> np.ndarray:
            image = torch.from_numpy(np.array(vector, dtype=float)).reshape(1, out, height, width)
            return functional.conv_transpose2d(image, kernel, padding=padding).reshape(-1).numpy()

        shape = (out * height * width, into * height * width)
        def dense() -> float:
            return float(np.linalg.norm(np.stack([forward(row) for row in np.eye(shape[1])], axis=1), 2))

        if min(shape) <= 64 or not bool(kernel.any()):
            return dense()
        operator = LinearOperator(shape, matvec=forward, rmatvec=backward, dtype=float)
        start = np.random.default_rng(0).standard_normal(min(shape))
        try:
            return float(svds(operator, k=1, v0=start, tol=1e-10, return_singular_vectors=False)[0])
        except ArpackError:  # the Krylov space broke down, as it can for kernels of low rank
            return dense()


def _check(kernel: Tensor, height: int, width: int) -> None:
    if kernel.dim() != 4 or kernel.dtype != torch.float64:
        raise ValueError(f"kernel must be float64 [out, in, kh, kw], not {kernel.dtype} {tuple(kernel.shape)}")
    if kernel.shape[2] % 2 == 0 or kernel.shape[3] % 2 == 0:
        raise ValueError(f"kernel sizes must be odd for 'same' padding, not {tuple(kernel.shape[2:])}")
    if not bool(torch.isfinite(kernel).all()):
        raise ValueError("kernel has NaN or infinite entries")
    if height < 1 or width < 1:
        raise ValueError(f"image must be at least 1 x 1, not {height} x {width}")
