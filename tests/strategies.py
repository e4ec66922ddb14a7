"""Random equilibrium problems: dense, several-block and convolutional maps of a drawn contraction factor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": functional.softplus,
    "tanh": torch.tanh,
    # elu and swish have slopes up to 1 and 1.0999; the draw divides by the latter.
    "elu": functional.elu,
    "swish": lambda x: x * torch.sigmoid(x) / 1.1,
}


@dataclass(frozen=True)
class Case:
    """z = f(z, x; parameters), batched; `name` shows in failures."""

    name: str
    f: Callable[..., Tensor]
    x: Tensor
    parameters: tuple[Tensor, ...]
    state_shape: tuple[int, ...]
    contraction: float

    def start(self) -> Tensor:
        return self.x.new_zeros((len(self.x), *self.state_shape))

    def unroll(self, x: Tensor, *parameters: Tensor, steps: int | None = None) -> Tensor:
        """Long unroll with autograd on: the independent truth. Error at most q^steps / (1 - q) of |f(0)|."""
        if steps is None:
            # Smooth derivatives of order j converge like steps^j q^steps: 12 orders beyond 1e-18.
            steps = int(70 / -torch.tensor(self.contraction).log().item()) + 12
        z = x.new_zeros((len(x), *self.state_shape))
        for _ in range(steps):
            z = self.f(z, x, *parameters)
        return z

    def __repr__(self) -> str:
        return self.name


def scaled(weight: Tensor, norm: float) -> Tensor:
    if len(weight) > 600:  # an SVD would take minutes; a Gaussian matrix has norm about 2 sqrt(n)
        return weight * (norm / (2.1 * len(weight) ** 0.5))
    return weight * (norm / torch.linalg.matrix_norm(weight, 2))


def dense_case(n: int, d: int, batch: int, q: float, activation: str, seed: int, dtype: torch.dtype = torch.float64,
               symmetric: bool = False) -> Case:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n, n, generator=generator, dtype=torch.float64)
    weight = scaled(weight + weight.T if symmetric else weight, q)
    injection = torch.randn(n, d, generator=generator, dtype=torch.float64) / d**0.5
    bias = torch.randn(n, generator=generator, dtype=torch.float64)
    x = torch.randn(batch, d, generator=generator, dtype=torch.float64)
    phi = SMOOTH[activation]
    weight, injection, bias, x = (tensor.to(dtype) for tensor in (weight, injection, bias, x))
    return Case(f"dense n={n} d={d} batch={batch} q={q:.3g} {activation} seed={seed}",
                lambda z, x, w, u, b: phi(z @ w.T + x @ u.T + b), x, (weight, injection, bias), (n,), q)


def block_case(n: int, d: int, batch: int, q: float, activation: str, seed: int) -> Case:
    """Two coupled blocks: z = phi(W2 phi(W1 z + U x))."""
    base = dense_case(n, d, batch, q, activation, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    second = scaled(torch.randn(n, n, generator=generator, dtype=torch.float64), 1.0)
    phi = SMOOTH[activation]
    return Case(f"blocks n={n} d={d} batch={batch} q={q:.3g} {activation} seed={seed}",
                lambda z, x, w, u, b, v: phi(phi(z @ w.T + x @ u.T + b) @ v.T),
                base.x, (*base.parameters, second), (n,), q)


def convolution_case(channels: int, size: int, batch: int, q: float, activation: str, seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(channels, channels, 3, 3, generator=generator, dtype=torch.float64)
    # Sum over offsets of the channel matrices' norms: a proven bound of the operator norm.
    kernel = kernel * (q / torch.linalg.matrix_norm(kernel.permute(2, 3, 0, 1), 2).sum())
    injection = torch.randn(channels, 1, 3, 3, generator=generator, dtype=torch.float64) / 3
    x = torch.randn(batch, 1, size, size, generator=generator, dtype=torch.float64)
    phi = SMOOTH[activation]
    return Case(f"convolution c={channels} size={size} batch={batch} q={q:.3g} {activation} seed={seed}",
                lambda z, x, k, g: phi(functional.conv2d(z, k, padding=1) + functional.conv2d(x, g, padding=1)),
                x, (kernel, injection), (channels, size, size), q)


@st.composite
def cases(draw: st.DrawFn, max_contraction: float = 0.9) -> Case:
    kind = draw(st.sampled_from(("dense", "blocks", "convolution")))
    q = draw(st.floats(0.05, max_contraction))
    activation = draw(st.sampled_from(sorted(SMOOTH)))
    batch, seed = draw(st.integers(1, 3)), draw(st.integers(0, 2**16))
    if kind == "convolution":
        return convolution_case(draw(st.integers(1, 3)), draw(st.integers(2, 4)), batch, q, activation, seed)
    make = dense_case if kind == "dense" else block_case
    return make(draw(st.integers(1, 8)), draw(st.integers(1, 4)), batch, q, activation, seed)
