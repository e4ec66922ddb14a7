"""A Jacobian penalty without a gradient: it is logged, it falls or rises, and it trains nothing.

Hutchinson's estimate |v^T J|^2 needs `create_graph=True` where it is computed: without it the number is right
and a constant to autograd. `deq.jacobian_penalty` has a gradient. Two trainings from the same weights, penalty
alone, show the difference; the audit measures the spectral radius that each leaves.
"""

import torch
from torch import nn

import deq
from verification.audit import audit


def penalty_without_gradient(f, z):
    """As it is often written."""
    z = z.detach().requires_grad_()
    v = torch.randn_like(z)
    product = torch.autograd.grad(f(z), z, v)[0]
    return product.square().mean()


def train(penalty) -> tuple[float, bool]:
    """A few steps on the penalty alone; the radius that the audit finds, and whether the penalty had a gradient."""
    torch.manual_seed(0)
    w, x = nn.Linear(8, 8), torch.randn(6, 8)
    with torch.no_grad():
        w.weight.mul_(1.5)

    def f(z):
        return torch.tanh(w(z) + x)

    optimizer = torch.optim.SGD(w.parameters(), lr=0.5)
    carries = False
    for _ in range(25):
        z = deq.equilibrium(f, torch.zeros(6, 8), gradient=deq.Exact(order=1))
        term = penalty(f, z)
        carries = term.requires_grad
        optimizer.zero_grad()
        (0 * z.square().mean() + term.mean()).backward()
        optimizer.step()
    report = audit(deq.Subject(f, torch.zeros(6, 8), parameters=w), order=1)
    return report["contraction"].numbers["radius"], carries


def main() -> None:
    without, silent = train(penalty_without_gradient)
    having, carried = train(deq.jacobian_penalty)
    print(f"radius after training without a gradient of the penalty: {without:.3f}; with one: {having:.3f}")
    assert not silent
    assert carried
    assert having < 0.8 * without


if __name__ == "__main__":
    main()
