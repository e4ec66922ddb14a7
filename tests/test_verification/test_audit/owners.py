"""Solvers and gradients as users write them, without the library: what the subjects of the tests are made of."""

import torch
from torch import nn


def picard(f, z, tol=1e-6, steps=400):
    """Iterate until every sample meets the tolerance."""
    with torch.no_grad():
        for _ in range(steps):
            new = f(z)
            gap = (new - z).flatten(1).norm(dim=1) / new.flatten(1).norm(dim=1).clamp_min(1e-12)
            z = new
            if bool((gap < tol).all()):
                break
    return z


def anderson(f, z, tol=1e-6, steps=200, memory=6):
    """Anderson acceleration for one flat batch, per sample, regularised."""
    shape, batch = z.shape, len(z)
    with torch.no_grad():
        xs, fs = [z.reshape(batch, -1)], [f(z).reshape(batch, -1)]
        for _ in range(steps):
            gaps = torch.stack([b - a for a, b in zip(xs, fs, strict=True)], 1)
            m = gaps.shape[1]
            gram = gaps @ gaps.transpose(1, 2)
            scale = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp_min(1e-300)
            gram = gram / scale + 1e-10 * torch.eye(m, dtype=z.dtype)
            weights = torch.linalg.solve(gram, torch.ones(batch, m, 1, dtype=z.dtype)).squeeze(2)
            weights = weights / weights.sum(1, keepdim=True)
            new = (weights[:, :, None] * torch.stack(fs, 1)).sum(1)
            value = f(new.reshape(shape)).reshape(batch, -1)
            xs, fs = [*xs, new][-memory:], [*fs, value][-memory:]
            if bool(((value - new).norm(dim=1) < tol * value.norm(dim=1).clamp_min(1e-12)).all()):
                break
    return xs[-1].reshape(shape)


def hooked(f, z, tol=1e-6, steps=300, scale=1.0, transpose=True):
    """Implicit gradient by a hook, the usual recipe: one step with grad, the cotangent replaced by the adjoint's."""
    point = z.detach().clone().requires_grad_()
    value = f(point)
    out = f(z.detach())

    def adjoint(c):
        u = c
        for _ in range(steps):
            new = c + torch.autograd.grad(value, point, u, retain_graph=True)[0]
            if float((new - u).norm()) <= tol * float(new.norm()):
                break
            u = new
        return scale * new

    if out.requires_grad:
        out.register_hook(adjoint)
    return out


class OnceOnly(torch.autograd.Function):
    """z with its adjoint as backward; refuses to be differentiated twice."""

    @staticmethod
    def forward(ctx, value, point, steps, reenter):
        ctx.value, ctx.point, ctx.steps, ctx.reenter = value, point, steps, reenter
        return value.detach().clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, c):
        u = c
        with torch.enable_grad():
            value = ctx.reenter(ctx.point)
        for _ in range(ctx.steps):
            u = c + torch.autograd.grad(value, ctx.point, u, retain_graph=True)[0]
        return u, None, None, None


def implicit_once(f, z, steps=200):
    """An implicit gradient that says no to second derivatives."""
    point = z.detach().clone().requires_grad_()
    return OnceOnly.apply(f(z.detach()), point, steps, f)


def unrolled(f, z, steps):
    """Backpropagation through the solver."""
    for _ in range(steps):
        z = f(z)
    return z


def phantom(f, z, steps, damping=1.0):
    """K differentiated steps from z*."""
    z = z.detach()
    for _ in range(steps):
        z = (1 - damping) * z + damping * f(z)
    return z


def contracting(n, norm, dtype=torch.float32):
    """A random linear map of this 2-norm."""
    layer = nn.Linear(n, n, dtype=dtype)
    with torch.no_grad():
        layer.weight.mul_(norm / float(torch.linalg.matrix_norm(layer.weight.double(), 2)))
    return layer


class Tanh(nn.Module):
    """tanh(W z + U x), |W| = norm."""

    def __init__(self, n=12, d=5, norm=0.7, dtype=torch.float32):
        super().__init__()
        self.w, self.u = contracting(n, norm, dtype), nn.Linear(d, n, dtype=dtype)

    def forward(self, z, x):
        return torch.tanh(self.w(z) + self.u(x))


class Attention(nn.Module):
    """A transformer block with input injection, tied over depth, post-norm; damped so that it contracts."""

    def __init__(self, width=16, heads=2, hidden=32, damp=0.5):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.heads, self.damp = heads, damp

    def forward(self, z, x):
        b, t, n = z.shape
        q, k, v = (part.reshape(b, t, self.heads, -1).transpose(1, 2) for part in self.qkv(z).chunk(3, 2))
        weights = torch.softmax(q @ k.transpose(2, 3) / (n / self.heads) ** 0.5, 3)
        mixed = self.out((weights @ v).transpose(1, 2).reshape(b, t, n))
        h = self.norms[0](x + self.damp * (z + mixed))
        return self.norms[1](x + self.damp * (h + self.second(torch.nn.functional.gelu(self.first(h)))))
