"""A solver that returns 0 as converged: Anderson's history is rolled while half of it is still empty.

The newest pair is written into the last slot after a roll, but the first `k` slots enter the least-squares
problem. As long as the history is not full, those are zeros: their residual f - z is 0 - 0, so the solver sees
a residual of exactly 0, stops, and returns the combination of zeros. No residual that is taken from the history
can show it; one that is evaluated afresh does.
"""

import torch

import deq
from verification.audit import audit


def anderson(f, z, memory=6, tol=1e-4, steps=40, rolled=True):
    """Anderson acceleration, [batch, n]; with rolled=True the slots that are used are not those that were filled."""
    batch, n = z.shape
    states, values = z.new_zeros(batch, memory, n), z.new_zeros(batch, memory, n)
    best = z
    for k in range(1, steps + 1):
        states, values = states.roll(-1, 1), values.roll(-1, 1)
        states[:, -1], values[:, -1] = z, f(z)
        used = slice(0, min(k, memory)) if rolled else slice(memory - min(k, memory), memory)
        gaps = values[:, used] - states[:, used]
        gram = gaps @ gaps.mT + 1e-8 * torch.eye(gaps.shape[1])
        weights = torch.linalg.solve(gram, torch.ones(batch, gaps.shape[1], 1))
        weights = weights / weights.sum(1, keepdim=True)
        z = (weights * values[:, used]).sum(1)
        best = z
        residual = (gaps.mean(1).norm() / (values[:, used].mean(1).norm() + 1e-5)).item()
        if residual < tol:
            break
    return best, residual


def main() -> None:
    torch.manual_seed(0)
    weight, x = 0.5 * torch.randn(8, 8) / 8**0.5, torch.randn(4, 8)
    weight.requires_grad_()

    def f(z):
        return torch.tanh(z @ weight + x)

    def forward(rolled):
        with torch.no_grad():
            z, residual = anderson(f, torch.zeros(4, 8), rolled=rolled)
        print(f"rolled={rolled}: the solver reports a residual of {residual:.1e}, |z| = {float(z.norm()):.3f}")
        return deq.equilibrium(f, z, gradient=deq.Exact(order=1), max_iter=1, on_failure="ignore") if not rolled else z

    broken = audit(deq.Subject(f, torch.zeros(4, 8), parameters=[weight], forward=lambda: forward(True)), order=1)
    mended = audit(deq.Subject(f, torch.zeros(4, 8), parameters=[weight], forward=lambda: forward(False)), order=1)
    print("broken:", broken["converged"].finding, "->", broken["converged"].advice)
    print("mended:", mended["converged"].finding)
    assert broken["converged"].verdict == "fails"
    assert broken["converged"].numbers["error_of_z"] > 0.9
    assert mended["converged"].verdict == "holds"


if __name__ == "__main__":
    main()
