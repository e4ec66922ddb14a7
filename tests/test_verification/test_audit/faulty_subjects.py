"""Subjects with one planted fault each; `EXPECTED` names the check that must fail."""

import itertools
import sys
from pathlib import Path

import torch
from torch import nn

import deq

sys.path.insert(0, str(Path(__file__).parent))
from owners import Attention, Tanh, contracting, hooked, phantom, picard, unrolled

EXPECTED = {
    "in_place": "map", "input_in_place": "map", "wrong_shape": "map", "wrong_dtype": "map", "not_a_number": "map",
    "loses_an_entry": "map", "shape_changes_with_calls": "map", "raises": "map",
    "dropout_in_training": "deterministic", "fresh_noise": "deterministic", "counter": "deterministic",
    "batchnorm_in_training": "independent", "mean_over_batch": "independent", "attention_over_batch": "independent",
    "three_iterations": "converged", "rolled_history": "converged", "one_sample_unsolved": "converged",
    "false_convergence": "converged", "chaotic": "converged", "forward_raises": "converged",
    "two_wells": "unique", "hopfield": "unique",
    "runs_away": "contraction", "rotation": "contraction",
    "asked_for_too_much": "precision", "half_inside": "precision",
    "undeclared_phantom": "gradient", "detached_bias": "gradient", "not_transposed": "gradient",
    "damping_left_out": "gradient", "sign_flipped": "gradient", "no_graph": "gradient", "truncated_adjoint": "gradient",
    "wrong_backward": "gradient", "detach_inside": "gradient", "other_phantom": "gradient",
    "phantom_near_one": "phantom", "phantom_points_away": "phantom",
    "conserved_mean": "adjoint", "no_graph_through_z": "adjoint",
    "hook_hessian": "higher-order", "detached_jacobian": "higher-order",
}


def _dense(norm=0.8, batch=6, dtype=torch.float32):
    torch.manual_seed(0)
    cell = Tanh(norm=norm, dtype=dtype)
    return cell, torch.randn(batch, 5, dtype=dtype), torch.zeros(batch, 12, dtype=dtype)


def _of(f, **more):
    cell, x, z0 = _dense()
    return deq.Subject(lambda z, x: f(cell, z, x), z0, (x,), parameters=cell, **more)


def in_place():
    return _of(lambda cell, z, x: z.mul_(0.5).add_(cell.u(x)))


def input_in_place():
    return _of(lambda cell, z, x: torch.tanh(cell.w(z) + cell.u(x.add_(0.0001))))


def wrong_shape():
    return _of(lambda cell, z, x: cell(z, x)[:, :11])


def wrong_dtype():
    return _of(lambda cell, z, x: cell(z, x).double())


def not_a_number():
    return _of(lambda cell, z, x: cell(z, x) + (z - 1).sqrt())


def loses_an_entry():
    x = torch.randn(3, 4)
    return deq.Subject(lambda z, x: (0.5 * z[1] + x,), (torch.zeros(3, 4), torch.zeros(3, 4)), (x,))


def shape_changes_with_calls():
    calls = itertools.count()
    return _of(lambda cell, z, x: cell(z, x) if next(calls) < 2 else cell(z, x)[:3])


def raises():
    return _of(lambda cell, z, x: cell(z, x[:, :3]))


def dropout_in_training():
    return _of(lambda cell, z, x: nn.functional.dropout(cell(z, x), 0.1))


def fresh_noise():
    return _of(lambda cell, z, x: cell(z, x) + 0.01 * torch.randn_like(z))


def counter():
    calls = itertools.count()
    return _of(lambda cell, z, x: cell(z, x) * (1 + 0.01 * (next(calls) % 7)))


def batchnorm_in_training():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    x = torch.randn(8, 6)
    return deq.Subject(lambda z, x: torch.tanh(0.3 * net(z) + x), torch.zeros(8, 6), (x,), parameters=net)


def mean_over_batch():
    return _of(lambda cell, z, x: cell(z, x) - 0.2 * z.mean(0))


def attention_over_batch():
    torch.manual_seed(2)
    block, x = Attention(damp=0.3), torch.randn(5, 4, 16)
    return deq.Subject(lambda z, x: block(z.transpose(0, 1), x.transpose(0, 1)).transpose(0, 1), torch.zeros(5, 4, 16),
                       (x,), parameters=block)


def three_iterations():
    cell, x, z0 = _dense(0.95)
    return deq.Subject(cell, z0, (x,), forward=lambda: hooked(lambda z: cell(z, x), picard(
        lambda z: cell(z, x), z0, steps=3)))


def rolled_history():
    """Anderson with a rolled history that is still half empty: zeros count as values, and z = 0 comes out."""
    cell, x, z0 = _dense()

    def solve():
        memory, history, values = 6, torch.zeros(6, 6, 12), torch.zeros(6, 6, 12)
        z = z0
        for _ in range(3):
            history, values = history.roll(1, 1), values.roll(1, 1)
            history[:, 0], values[:, 0] = z, cell(z, x)
            gaps = values - history
            weights = torch.zeros(6, memory)
            weights[:, gaps.norm(dim=2).argmin(1)] = 1  # an empty slot has residual 0
            z = torch.einsum("bm,bmn->bn", weights, values)
        return z.detach()

    return deq.Subject(cell, z0, (x,), forward=lambda: hooked(lambda z: cell(z, x), torch.zeros_like(solve()))
                       * 0 + solve())


def one_sample_unsolved():
    cell, x, z0 = _dense()

    def forward():
        z = picard(lambda z: cell(z, x), z0).clone()
        z[4] = 0.7 * z[4]
        return z

    return deq.Subject(cell, z0, (x,), forward=forward)


def false_convergence():
    """Stops when z moves by little; damped so much that it always does."""
    cell, x, z0 = _dense()
    damped = lambda z: 0.999 * z + 0.001 * cell(z, x)  # noqa: E731
    return deq.Subject(cell, z0, (x,), forward=lambda: picard(damped, z0, tol=1e-3))


def chaotic():
    torch.manual_seed(3)
    w = 3.0 * torch.randn(30, 30) / 30**0.5
    x = torch.randn(4, 30)
    f = lambda z, x: torch.tanh(z @ w + 0.1 * x)  # noqa: E731
    return deq.Subject(f, torch.zeros(4, 30), (x,), forward=lambda: unrolled(lambda z: f(z, x), torch.zeros(4, 30), 60))


def forward_raises():
    cell, x, z0 = _dense(3.0)
    return deq.Subject(cell, z0, (x,), forward=lambda: deq.equilibrium(lambda z: 1.5 * z + 1, z0))


def two_wells():
    x = torch.full((3, 2), 0.05)
    a = torch.tensor(2.0, requires_grad=True)
    return deq.Subject(lambda z, x: torch.tanh(a * z + x), torch.zeros(3, 2), (x,))


def hopfield():
    torch.manual_seed(4)
    patterns = torch.randn(3, 24).sign()
    weights = patterns.T @ patterns / 24 - torch.eye(24) * 3 / 24
    return deq.Subject(lambda z: torch.tanh(3 * z @ weights), 0.1 * torch.randn(2, 24))


def runs_away():
    torch.manual_seed(5)
    w, x = contracting(8, 1.0), torch.randn(3, 8)
    with torch.no_grad():
        w.weight.copy_(-1.3 * torch.eye(8))
    return deq.Subject(lambda z, x: w(z) + x, torch.zeros(3, 8), (x,), parameters=w)


def rotation():
    turn = torch.tensor([[0.0, -1.2], [1.2, 0.0]], requires_grad=True)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    return deq.Subject(lambda z, x: z @ turn + x, torch.zeros(3, 2), (x,), forward=lambda: deq.equilibrium(
        lambda z: z @ turn + x, torch.zeros(3, 2)))


def asked_for_too_much():
    cell, x, z0 = _dense()
    return deq.Subject(cell, z0, (x,), forward=lambda: hooked(lambda z: cell(z, x), picard(
        lambda z: cell(z, x), z0, tol=1e-12)))


def half_inside():
    torch.manual_seed(6)
    w, x = contracting(12, 0.97), torch.randn(4, 12)
    with torch.no_grad():
        w.weight.copy_(0.97 * torch.eye(12))
    f = lambda z, x: (w(z).bfloat16() + 0.02 * x.bfloat16()).float()  # noqa: E731
    return deq.Subject(f, torch.zeros(4, 12), (x,), parameters=w, tol=1e-6)


def _gradient(differentiate, norm=0.9, **more):
    cell, x, z0 = _dense(norm)
    f = lambda z: cell(z, x)  # noqa: E731
    return deq.Subject(cell, z0, (x,), parameters=cell, forward=lambda: differentiate(cell, f, picard(f, z0), x),
                       **more)


def undeclared_phantom():
    return _gradient(lambda cell, f, z, x: phantom(f, z, 1))


def detached_bias():
    return _gradient(lambda cell, f, z, x: hooked(
        lambda z: torch.tanh(nn.functional.linear(z, cell.w.weight, cell.w.bias.detach()) + cell.u(x)), z))


def not_transposed():
    """The adjoint solved with J where J^T belongs."""
    def differentiate(cell, f, z, x):
        out = f(z)
        jacobian = torch.stack([torch.autograd.functional.jacobian(lambda v, i=i: cell(v[None], x[i:i + 1])[0],
                                                                   z[i]) for i in range(len(z))])
        out.register_hook(lambda c: torch.linalg.solve(torch.eye(12) - jacobian, c[..., None])[..., 0])
        return out

    return _gradient(differentiate)


def damping_left_out():
    """The equilibrium of 0.5 z + 0.5 f(z), differentiated once through the damped map, with the adjoint of f."""
    def differentiate(cell, f, z, x):
        out = hooked(f, z)
        return 0.5 * z + 0.5 * out

    return _gradient(differentiate)


def sign_flipped():
    return _gradient(lambda cell, f, z, x: hooked(f, z, scale=-1.0))


def no_graph():
    return _gradient(lambda cell, f, z, x: z)


def truncated_adjoint():
    return _gradient(lambda cell, f, z, x: hooked(f, z, steps=2))


class WrongSine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return torch.sin(v)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos() * 1.1


def wrong_backward():
    cell, x, z0 = _dense(0.7)
    f = lambda z: WrongSine.apply(cell.w(z) + cell.u(x))  # noqa: E731
    return deq.Subject(f, z0, parameters=cell, forward=lambda: hooked(f, picard(f, z0)))


def detach_inside():
    cell, x, z0 = _dense(0.7)
    f = lambda z: torch.tanh(cell.w(z) + cell.u(x) + 0.3 * z.detach())  # noqa: E731
    return deq.Subject(f, z0, parameters=cell, forward=lambda: hooked(f, picard(f, z0)))


def other_phantom():
    return _gradient(lambda cell, f, z, x: phantom(f, z, 1), declared="phantom:6")


def _near_one(steps):
    torch.manual_seed(7)
    w, x = contracting(10, 1.0), 0.1 * torch.randn(4, 10)
    a = torch.randn(10, 10)
    with torch.no_grad():
        w.weight.copy_(0.98 * torch.eye(10) - 0.001 * a @ a.T / 10)
    f = lambda z: w(z) + x  # noqa: E731
    return deq.Subject(f, torch.zeros(4, 10), parameters=w, declared=f"phantom:{steps}", forward=lambda: phantom(
        f, picard(f, torch.zeros(4, 10), tol=1e-7, steps=3000), steps))


def phantom_near_one():
    return _near_one(1)


def phantom_points_away():
    """Nearly a rotation by ninety degrees: one step says little of where the gradient points."""
    turn = torch.tensor([[0.0, -0.98], [0.98, 0.0]])
    w = nn.Parameter(torch.block_diag(*[turn] * 5))
    x = torch.randn(4, 10, generator=torch.Generator().manual_seed(1))
    f = lambda z: z @ w + x  # noqa: E731
    return deq.Subject(f, torch.zeros(4, 10), parameters=[w], declared="phantom:2", forward=lambda: phantom(
        f, picard(f, torch.zeros(4, 10), tol=1e-7, steps=3000), 2))


def conserved_mean():
    """A random walk without restart: the mean is carried along, I - J is singular."""
    torch.manual_seed(8)
    walk = torch.softmax(torch.randn(8, 8), 1).requires_grad_()
    return deq.Subject(lambda z: z @ walk.T, torch.ones(2, 8), parameters=[walk])


def no_graph_through_z():
    cell, x, z0 = _dense(0.7)
    return deq.Subject(lambda z, x: torch.tanh(cell.w(z).detach() + cell.u(x)), z0, (x,), parameters=cell)


def hook_hessian():
    return _gradient(lambda cell, f, z, x: hooked(f, z))


def detached_jacobian():
    """Right to first order by one Newton step whose inverse is held fixed; the second derivative lacks terms."""
    def differentiate(cell, f, z, x):
        eye = torch.eye(12)
        inverse = torch.stack([torch.linalg.inv(eye - torch.autograd.functional.jacobian(
            lambda v, i=i: cell(v[None], x[i:i + 1])[0], z[i])) for i in range(len(z))])
        return z + torch.einsum("bij,bj->bi", inverse, f(z) - z)

    return _gradient(differentiate)
