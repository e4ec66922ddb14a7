"""A recursive reasoner trained with a one-step gradient, audited before and after training.

Two states, slow and fast, are iterated to an equilibrium; only the last step carries a gradient, as in many
recursive reasoners. The task is to add three digits modulo four, given as tokens. Before training the map
contracts strongly and one step is nearly the whole gradient; training raises the spectral radius, and the same
one step means less and less.
"""

import torch
from torch import nn

import deq
from verification.audit import audit

WIDTH, DIGITS, LENGTH = 16, 4, 3


class Reasoner(nn.Module):
    """One step of both states; `tokens` [batch, LENGTH]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(DIGITS * LENGTH, WIDTH)
        self.slow, self.fast = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, DIGITS)
        with torch.no_grad():
            self.slow.weight.mul_(0.7)
            self.fast.weight.mul_(0.7)

    def step(self, z: tuple[torch.Tensor, torch.Tensor], tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.table(tokens + DIGITS * torch.arange(LENGTH)).sum(1)
        slow, fast = z
        fast = torch.tanh(self.fast(torch.cat([fast, slow], 1)) + x)
        return torch.tanh(self.slow(torch.cat([slow, fast], 1))), fast

    def solve(self, tokens: torch.Tensor, steps: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
        """The last step alone carries a gradient."""
        z = start(len(tokens))
        with torch.no_grad():
            for _ in range(steps):
                z = self.step(z, tokens)
        return self.step(z, tokens)


def start(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(batch, WIDTH), torch.zeros(batch, WIDTH)


def subject(model: Reasoner, tokens: torch.Tensor) -> deq.Subject:
    answers = tokens.sum(1) % DIGITS
    return deq.Subject(
        model.step, start(len(tokens)), (tokens,), parameters=model, declared="phantom:1",
        loss=lambda z, t: nn.functional.cross_entropy(model.head(z[0]), answers, reduction="none"),
        forward=lambda: model.solve(tokens), name="recursive reasoner")


def main() -> None:
    torch.manual_seed(0)
    model, tokens = Reasoner(), torch.randint(0, DIGITS, (8, LENGTH))
    early = audit(subject(model, tokens), steps=(1, 2, 4), order=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        batch = torch.randint(0, DIGITS, (64, LENGTH))
        loss = nn.functional.cross_entropy(model.head(model.solve(batch, 12)[0]), batch.sum(1) % DIGITS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    late = audit(subject(model, tokens), steps=(1, 2, 4), order=1)
    for name, report in (("early", early), ("late", late)):
        one = report["phantom"].numbers["by_steps"][0]
        print(f"{name}: radius {report['contraction'].numbers['radius']:.2f}, one step has error "
              f"{one['relative_error']:.0%} and cosine {one['cosine']:.3f}")
    radius = [report["contraction"].numbers["radius"] for report in (early, late)]
    error = [report["phantom"].numbers["by_steps"][0]["relative_error"] for report in (early, late)]
    assert radius[1] > radius[0]
    assert error[1] > error[0]


if __name__ == "__main__":
    main()
