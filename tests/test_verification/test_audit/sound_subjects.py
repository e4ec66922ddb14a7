"""Sound subjects: no check may fail on any of them."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import conv2d, softplus

import deq

sys.path.insert(0, str(Path(__file__).parent))
from owners import (
    Attention,
    Tanh,
    anderson,
    contracting,
    hooked,
    implicit_once,
    phantom,
    picard,
    unrolled,
)


def _dense(norm=0.7, dtype=torch.float32, batch=6, **more):
    torch.manual_seed(0)
    cell = Tanh(norm=norm, dtype=dtype)
    return cell, torch.randn(batch, 5, dtype=dtype), torch.zeros(batch, 12, dtype=dtype)


def dense_no_forward():
    cell, x, z0 = _dense()
    return deq.Subject(cell, z0, inputs=(x,))


def dense_float64():
    cell, x, z0 = _dense(dtype=torch.float64)
    return deq.Subject(cell, z0, (x,), forward=lambda: implicit_once(lambda z: cell(z, x), picard(
        lambda z: cell(z, x), z0, tol=1e-12)))


def ours():
    cell, x, z0 = _dense()
    layer = deq.DEQ(cell, tol=1e-5)
    return deq.Subject(cell, z0, (x,), parameters=layer, forward=lambda: layer(x, z0=z0))


def hook():
    cell, x, z0 = _dense(0.9)
    return deq.Subject(cell, z0, (x,), parameters=cell, forward=lambda: hooked(lambda z: cell(z, x), picard(
        lambda z: cell(z, x), z0)))


def loose_tolerance():
    cell, x, z0 = _dense(0.6)
    return deq.Subject(cell, z0, (x,), forward=lambda: implicit_once(lambda z: cell(z, x), picard(
        lambda z: cell(z, x), z0, tol=1e-3)))


def accelerated():
    cell, x, z0 = _dense(0.95)
    return deq.Subject(cell, z0, (x,), forward=lambda: implicit_once(lambda z: cell(z, x), anderson(
        lambda z: cell(z, x), z0, tol=1e-5), steps=600))


def backpropagated():
    cell, x, z0 = _dense()
    return deq.Subject(cell, z0, (x,), forward=lambda: unrolled(lambda z: cell(z, x), z0, 40))


def phantom_declared():
    cell, x, z0 = _dense(0.5)
    return deq.Subject(cell, z0, (x,), declared="phantom:2", forward=lambda: phantom(
        lambda z: cell(z, x), picard(lambda z: cell(z, x), z0), 2))


def phantom_by_the_library():
    cell, x, z0 = _dense(0.6)
    return deq.Subject(cell, z0, (x,), declared="phantom:4", forward=lambda: deq.equilibrium(
        lambda z: cell(z, x), z0, gradient=deq.Phantom(4)))


def phantom_damped():
    cell, x, z0 = _dense(0.4)
    return deq.Subject(cell, z0, (x,), declared="phantom:5", forward=lambda: phantom(
        lambda z: cell(z, x), picard(lambda z: cell(z, x), z0), 5, damping=0.8))


def mean_loss():
    cell, x, z0 = _dense()
    y = torch.randn(6, 12)
    return deq.Subject(cell, z0, (x,), loss=lambda z, x: (z - y).square().mean(), forward=lambda: deq.equilibrium(
        lambda z: cell(z, x), z0))


def classification():
    cell, x, z0 = _dense()
    head, labels = nn.Linear(12, 4), torch.randint(0, 4, (6,))
    return deq.Subject(cell, z0, (x,), parameters=[*cell.parameters(), *head.parameters()],
                       loss=lambda z, x: nn.functional.cross_entropy(head(z), labels, reduction="none"),
                       forward=lambda: deq.equilibrium(lambda z: cell(z, x), z0))


def encoder_before():
    torch.manual_seed(1)
    encoder, w = nn.Sequential(nn.Linear(7, 20), nn.ReLU(), nn.Linear(20, 10)), contracting(10, 0.8)
    x = encoder(torch.randn(4, 7))
    return deq.Subject(lambda z, u: torch.relu(w(z) + u), torch.zeros(4, 10), (x,), forward=lambda: deq.equilibrium(
        lambda z: torch.relu(w(z) + x), torch.zeros(4, 10)))


def convolution():
    torch.manual_seed(2)
    cell = nn.Conv2d(4, 4, 3, padding=1)
    with torch.no_grad():
        cell.weight.mul_(0.12 / cell.weight.abs().mean() / 9)
    x = torch.randn(3, 4, 6, 6)
    return deq.Subject(lambda z, x: torch.tanh(cell(z) + x), torch.zeros_like(x), (x,), forward=lambda: deq.equilibrium(
        lambda z: torch.tanh(cell(z) + x), torch.zeros_like(x)))


class Residual(nn.Module):
    """A residual block with GroupNorm, tied over depth, as in multiscale equilibrium models."""

    def __init__(self, width=8):
        super().__init__()
        self.one, self.two = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(2, width) for _ in range(3))
        for convolution in (self.one, self.two):
            nn.init.normal_(convolution.weight, 0, 0.01)

    def forward(self, z, x):
        y = self.norms[0](torch.relu(self.one(z)))
        return self.norms[2](torch.relu(0.2 * z + self.norms[1](x + 0.2 * self.two(y))))


def resnet():
    torch.manual_seed(3)
    block, x = Residual(), torch.randn(3, 8, 5, 5)
    return deq.Subject(block, torch.zeros_like(x), (x,), parameters=block, forward=lambda: implicit_once(
        lambda z: block(z, x), anderson(lambda z: block(z, x), torch.zeros_like(x), tol=1e-5), steps=100))


def attention():
    torch.manual_seed(4)
    block, x = Attention(damp=0.3), torch.randn(3, 7, 16)
    return deq.Subject(block, torch.zeros_like(x), (x,), parameters=block, forward=lambda: deq.equilibrium(
        lambda z: block(z, x), torch.zeros_like(x), tol=1e-5))


def transformer_hook():
    torch.manual_seed(5)
    block, table = Attention(damp=0.3), nn.Embedding(50, 16)
    tokens = torch.randint(0, 50, (4, 9))
    f = lambda z, t: block(z, table(t))  # noqa: E731
    return deq.Subject(f, torch.zeros(4, 9, 16), (tokens,), forward=lambda: hooked(
        lambda z: f(z, tokens), picard(lambda z: f(z, tokens), torch.zeros(4, 9, 16), tol=1e-5)))


def library_transformer():
    torch.manual_seed(6)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    f = lambda z, x: 0.25 * layer(z) + x  # noqa: E731
    return deq.Subject(f, torch.zeros_like(x), (x,), parameters=layer)


def gru():
    torch.manual_seed(7)
    cell = nn.GRUCell(5, 8)
    with torch.no_grad():
        for p in cell.parameters():
            p.mul_(0.6)
    x = torch.randn(4, 5)
    return deq.Subject(lambda h, x: cell(x, h), torch.zeros(4, 8), (x,), forward=lambda: implicit_once(
        lambda h: cell(x, h), picard(lambda h: cell(x, h), torch.zeros(4, 8), tol=1e-7), steps=300))


def bfloat16():
    cell, x, z0 = _dense(0.5, torch.bfloat16)
    return deq.Subject(cell, z0, (x,), parameters=cell, forward=lambda: unrolled(lambda z: cell(z, x), z0, 25))


def half():
    cell, x, z0 = _dense(0.5, torch.float16)
    return deq.Subject(cell, z0, (x,), parameters=cell, forward=lambda: unrolled(lambda z: cell(z, x), z0, 25))


def tuple_state():
    torch.manual_seed(8)
    a, b, x = contracting(6, 0.4), nn.Linear(4, 6), torch.randn(5, 6)
    c = nn.Linear(6, 4)
    with torch.no_grad():
        b.weight.mul_(0.5)
        c.weight.mul_(0.5)

    def f(z, x):
        high, low = z
        return torch.tanh(a(high) + b(low) + x), torch.tanh(c(high))

    z0 = (torch.zeros(5, 6), torch.zeros(5, 4))
    return deq.Subject(f, z0, (x,), forward=lambda: _tuple_unrolled(f, z0, x))


def _tuple_unrolled(f, z, x):
    for _ in range(40):
        z = f(z, x)
    return z


def dict_state():
    torch.manual_seed(9)
    a, x = contracting(6, 0.5), torch.randn(5, 6)
    f = lambda z, x: {"h": torch.tanh(a(z["c"]) + x), "c": 0.5 * z["h"] + 0.1 * z["c"]}  # noqa: E731
    return deq.Subject(f, {"h": torch.zeros(5, 6), "c": torch.zeros(5, 6)}, (x,), parameters=a)


class Pair(NamedTuple):
    mean: torch.Tensor
    spread: torch.Tensor


def named_state():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor(0.3, requires_grad=True)
    return deq.Subject(lambda z, x: Pair(scale * z.spread + x, softplus(0.2 * z.mean)),
                       Pair(torch.zeros(3, 4), torch.ones(3, 4)), (x,))


@dataclass
class Carry:
    high: torch.Tensor
    low: torch.Tensor


def dataclass_state():
    torch.manual_seed(10)
    a, x = contracting(6, 0.5), torch.randn(4, 6)
    return deq.Subject(lambda z, x: Carry(torch.tanh(a(z.low)), torch.tanh(0.4 * z.high + x)),
                       Carry(torch.zeros(4, 6), torch.zeros(4, 6)), (x,))


def graph():
    torch.manual_seed(11)
    links = (torch.rand(10, 10) < 0.3).float()
    links = (links + links.T + torch.eye(10)).clamp(max=1)
    mean, w, x = links / links.sum(1, keepdim=True), contracting(6, 0.7), torch.randn(3, 10, 6)
    f = lambda z, x: torch.tanh(mean @ w(z) + x)  # noqa: E731
    return deq.Subject(f, torch.zeros(3, 10, 6), (x,), forward=lambda: hooked(
        lambda z: f(z, x), picard(lambda z: f(z, x), torch.zeros(3, 10, 6))))


def one_graph():
    torch.manual_seed(12)
    links = torch.softmax(torch.randn(8, 8), 1)
    w, x = contracting(5, 0.8), torch.randn(1, 8, 5)
    return deq.Subject(lambda z: torch.relu(links @ w(z) * 0.9 + x), torch.zeros(1, 8, 5))


def dropout_in_eval():
    torch.manual_seed(13)
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.5)).eval()
    x = torch.randn(4, 6)
    return deq.Subject(lambda z, x: 0.5 * net(z) + x, torch.zeros(4, 6), (x,))


def batchnorm_in_eval():
    torch.manual_seed(14)
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh())
    net(torch.randn(64, 6))
    net.eval()
    x = torch.randn(4, 6)
    return deq.Subject(lambda z, x: 0.4 * net(z) + x, torch.zeros(4, 6), (x,), parameters=net)


def instance_norm_in_training():
    torch.manual_seed(15)
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.InstanceNorm2d(3, affine=True))
    x = torch.randn(2, 3, 5, 5)
    return deq.Subject(lambda z, x: torch.tanh(0.2 * net(z) + x), torch.zeros_like(x), (x,), parameters=net)


def spectral_norm_in_eval():
    torch.manual_seed(16)
    w = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8), n_power_iterations=20).eval()
    x = torch.randn(4, 8)
    return deq.Subject(lambda z, x: torch.tanh(0.9 * w(z) + x), torch.zeros(4, 8), (x,), parameters=w)


def weight_norm():
    torch.manual_seed(17)
    w = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    with torch.no_grad():
        w.parametrizations.weight.original0.mul_(0.3)
    x = torch.randn(4, 8)
    return deq.Subject(lambda z, x: torch.tanh(w(z) + x), torch.zeros(4, 8), (x,), parameters=w)


def frobenius_by_the_library():
    torch.manual_seed(18)
    cell = deq.DenseCell(input_size=5, state_size=16)
    layer = deq.DEQ(cell, gradient=deq.Exact(order=3))
    x = torch.randn(6, 5)
    return deq.Subject(cell, torch.zeros(6, 16), (x,), parameters=layer, forward=lambda: layer(x))


def complex_state():
    torch.manual_seed(19)
    w = nn.Parameter(0.2 * torch.randn(5, 5, dtype=torch.complex64))
    x = torch.randn(3, 5, dtype=torch.complex64)
    return deq.Subject(lambda z, x: (z @ w) / (1 + z.abs()) + x, torch.zeros(3, 5, dtype=torch.complex64), (x,))


def scalar_state():
    a, x = torch.tensor(0.6, requires_grad=True), torch.linspace(-1, 1, 5)
    return deq.Subject(lambda z, x: torch.cos(a * z) + x, torch.zeros(5), (x,), forward=lambda: deq.equilibrium(
        lambda z: torch.cos(a * z) + x, torch.zeros(5)))


def slow():
    torch.manual_seed(20)
    w, x = contracting(10, 0.99, torch.float64), torch.randn(3, 10, dtype=torch.float64)
    w.weight.data = 0.5 * (w.weight.data + w.weight.data.T)
    return deq.Subject(lambda z, x: torch.tanh(w(z) + 0.01 * x), torch.zeros_like(x), (x,))


def root_of_a_function():
    """z = z - 0.3 (z + z^3 / 3 - x): a relaxation whose equilibrium is a root."""
    x = torch.linspace(-1, 1, 6).reshape(3, 2)
    b = torch.tensor(1.0, requires_grad=True)
    return deq.Subject(lambda z, x: z - 0.3 * (b * z + z**3 / 3 - x), torch.zeros(3, 2), (x,))


def positive_domain():
    """The square root of x by Heron's rule: NaN for negative z would be no fault at the start that is given."""
    x = torch.tensor([[2.0, 3.0], [5.0, 0.5]], requires_grad=True)
    return deq.Subject(lambda z: 0.5 * (z + x / z.clamp_min(0.05)), torch.ones(2, 2))


def optimizer_map():
    torch.manual_seed(21)
    a = torch.randn(6, 6, dtype=torch.float64)
    matrix = a @ a.T / 6 + torch.eye(6, dtype=torch.float64)
    theta = torch.randn(6, dtype=torch.float64, requires_grad=True)
    return deq.Subject(lambda z: z - 0.2 * (z @ matrix - theta), torch.zeros(2, 6, dtype=torch.float64),
                       parameters=[theta])


def functional_convolution():
    torch.manual_seed(22)
    kernel = (0.03 * torch.randn(4, 4, 3, 3)).requires_grad_()
    x = torch.randn(2, 4, 5, 5)
    return deq.Subject(lambda z, x: torch.tanh(conv2d(z, kernel, padding=1) + x), torch.zeros_like(x), (x,))


def closure_over_the_batch():
    cell, x, _ = _dense()
    x = torch.cat([x] * 5)
    return deq.Subject(lambda z: cell(z, x), torch.zeros(30, 12), parameters=cell)


def custom_function():
    torch.manual_seed(23)
    w, x = contracting(6, 0.7), torch.randn(3, 6)
    return deq.Subject(lambda z, x: Halved.apply(w(z)) + x, torch.zeros(3, 6), (x,))


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return torch.sin(v) / 2

    @staticmethod
    def backward(ctx, g):
        (v,) = ctx.saved_tensors
        return g * torch.cos(v) / 2
