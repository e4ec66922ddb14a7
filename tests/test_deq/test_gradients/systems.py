"""Random systems for the property test and the fuzz: a way to write f, a rule, an order and a way to differentiate."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacfwd, jacrev, vmap
from torch.utils.checkpoint import checkpoint

import deq
from deq import DEQError, Exact, Neumann

N, BATCH, STEPS = 3, 2, 60
Map = Callable[[Tensor], Tensor]
Solve = Callable[[Map, Tensor], Tensor]
# Contraction factors stay below 1/2: after 60 steps derivatives of order 3 are right to 60^3 / 2^60 = 2e-13.
TOLERANCE = 1e-8


class Squash(torch.autograd.Function):
    """An own operation, of the form that torch.func takes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, w: Tensor) -> Tensor:
        return torch.tanh(a @ w)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        a, w = ctx.saved_tensors
        inner = cotangent * (1 - torch.tanh(a @ w) ** 2)
        return inner @ w.T, a.T @ inner


class OldSquash(torch.autograd.Function):
    """The same in the old form."""

    @staticmethod
    def forward(ctx, a: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(a, w)
        return torch.tanh(a @ w)

    backward = Squash.backward


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(N, N, dtype=torch.float64))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.w + x)


def _rebound(solve: Solve, w: Tensor, x: Tensor, z0: Tensor) -> Tensor:
    for factor in (1.0, 0.5):
        x = solve(lambda z: torch.tanh(factor * z @ w + x), z0)  # noqa: B023
    return x


def _memo(solve: Solve, w: Tensor, x: Tensor, z0: Tensor) -> Tensor:
    kept: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        if not kept:
            kept.append((x @ w).sin())
        return torch.tanh(z @ w + kept[0])

    return solve(f, z0)


def _buffer(solve: Solve, w: Tensor, x: Tensor, z0: Tensor) -> Tensor:
    count = [0]

    def f(z: Tensor) -> Tensor:
        count[0] += 1
        return torch.tanh(z @ w + x)

    return solve(f, z0)


def _nested(solve: Solve, w: Tensor, x: Tensor, z0: Tensor) -> Tensor:
    return solve(lambda z: torch.tanh(0.5 * solve(lambda y: torch.tanh(0.5 * y @ w + z @ w), z0) + x), z0)


def _module(solve: Solve, w: Tensor, x: Tensor, z0: Tensor) -> Tensor:
    cell = Cell()
    return solve(lambda z: functional_call(cell, {"w": w}, (z, x)), z0)


def _energy(solve: Solve, w: Tensor, x: Tensor, z0: Tensor) -> Tensor:
    def energy(z: Tensor, x: Tensor) -> Tensor:
        return 0.3 * ((z @ w) * z).sum() + (x * z).sum()

    return solve(lambda z: torch.tanh(vmap(grad(energy))(z, x)), z0)


WAYS: dict[str, Callable[[Solve, Tensor, Tensor, Tensor], Tensor]] = {
    "plain": lambda solve, w, x, z0: solve(lambda z: torch.tanh(z @ w + x), z0),
    "rebound": _rebound,
    "own function": lambda solve, w, x, z0: solve(lambda z: Squash.apply(z, w) * 0.9 + x, z0),
    "own function, old form": lambda solve, w, x, z0: solve(lambda z: OldSquash.apply(z, w) * 0.9 + x, z0),
    "checkpoint": lambda solve, w, x, z0: solve(
        lambda z: checkpoint(lambda z: torch.tanh(z @ w + x), z, use_reentrant=False), z0),
    "memo": _memo,
    "python state": _buffer,
    "nested": _nested,
    "vmap inside": lambda solve, w, x, z0: solve(lambda z: vmap(lambda z, x: torch.tanh(z @ w + x))(z, x), z0),
    "energy": _energy,
    "module": _module,
    "constant": lambda solve, w, x, z0: solve(lambda z: torch.tanh(x @ w), z0),
    "captured": lambda solve, w, x, z0: solve(lambda z: x, z0),
    "norm in a sample": lambda solve, w, x, z0: solve(
        lambda z: torch.tanh(z @ w + x) / (1 + 0.1 * z.square().sum(1, keepdim=True)), z0),
    "coupled": lambda solve, w, x, z0: solve(lambda z: torch.tanh(z @ w + 0.1 * z.mean(0) + x), z0),
}
RULES = {"dense": lambda k: Exact(k, linear="dense"), "krylov": lambda k: Exact(k, linear="krylov"), "auto": Exact,
         "neumann": lambda k: Neumann(36, k)}


def _nest(kinds: list[Callable], value: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    for kind in kinds:
        value = kind(value)
    return value


def _by_autograd(value: Callable[[Tensor], Tensor], t: Tensor, order: int) -> Tensor:
    t = t.clone().requires_grad_()
    result = value(t)
    for _ in range(order):
        if not result.requires_grad:
            return torch.zeros_like(t)
        (found,) = torch.autograd.grad(result, t, create_graph=True, allow_unused=True)
        result = torch.zeros_like(t) if found is None else found
    return result.detach()


def trial(seed: int) -> tuple[str, str]:
    """One random system: "right", "refused" or "wrong", and what it was."""
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    way, rule = draw.choice(sorted(WAYS)), draw.choice(sorted(RULES))
    limit, order = draw.randint(1, 3), draw.randint(1, 3)
    nesting = draw.choice(["autograd", "autograd", "vmap outside", *(["transforms"] * 2)])
    if way == "nested":  # solves in solves: seconds, under transforms minutes
        nesting, order = "autograd", min(order, 2)
    kinds = [draw.choice([grad, jacrev, jacfwd]) for _ in range(order)]
    what = f"seed {seed}: {way}, {rule} of order {limit}, derivative {order} by {nesting} " \
           f"{[k.__name__ for k in kinds] if nesting == 'transforms' else ''}"

    w, dw = torch.randn(2, N, N, generator=generator, dtype=torch.float64)
    w = w * (draw.uniform(0.05, 0.45) / torch.linalg.matrix_norm(w, 2))
    dw = dw * 0.1
    x, dx, weights = torch.randn(3, BATCH, N, generator=generator, dtype=torch.float64)
    start = torch.randn(BATCH, N, generator=generator, dtype=torch.float64) * draw.choice([0, 1])
    gradient = RULES[rule](limit)

    def value(solve: Solve, t: Tensor) -> Tensor:
        return (WAYS[way](solve, w + t * dw, x + t * dx, start).sin() * weights).sum()

    def by_rule(t: Tensor) -> Tensor:
        return value(lambda f, z0: deq.equilibrium(f, z0, gradient=gradient, tol=1e-12, max_iter=100,
                                                   on_failure="ignore"), t)

    def by_unroll(t: Tensor) -> Tensor:
        def solve(f: Map, z: Tensor) -> Tensor:
            for _ in range(STEPS if way != "nested" else 40):
                z = f(z)
            return z
        return value(solve, t)

    t = torch.tensor(draw.uniform(-0.1, 0.1), dtype=torch.float64)
    truth = _by_autograd(by_unroll, t, order)
    try:
        if nesting == "autograd":
            found = _by_autograd(by_rule, t, order)
        elif nesting == "vmap outside":
            found = _by_autograd(lambda t: vmap(by_rule)(torch.stack((t, t)))[0], t, order)
        else:
            found = _nest(kinds, by_rule)(t)
    except (DEQError, RuntimeError, NotImplementedError, ValueError) as error:
        plain = nesting == "autograd" and order <= limit and not (way == "coupled" and rule == "dense")
        return ("wrong" if plain else "refused"), f"{what}: {type(error).__name__}: {error}"
    right = bool((found.detach() - truth).abs() <= TOLERANCE * (1 + truth.abs()))
    return ("right" if right else "wrong"), f"{what}: {float(found.detach())!r} for {float(truth)!r}"
