"""An equilibrium under batch normalisation: the answer to one sample depends on its neighbours.

In training mode BatchNorm couples the samples of a batch, so there is one equilibrium of the whole batch and
none of a sample; solvers that stop sample by sample, and gradients that treat samples apart, are wrong there.
In eval mode, or with a normalisation over features, samples are their own.
"""

import torch
from torch import nn

import deq
from verification.audit import audit


def subject(norm: nn.Module, training: bool) -> deq.Subject:
    torch.manual_seed(0)
    w, x = nn.Linear(8, 8), torch.randn(6, 8)
    norm(torch.randn(200, 8))  # running statistics
    net = nn.Sequential(w, norm).train(training)
    return deq.Subject(lambda z, x: torch.tanh(0.4 * net(z) + x), torch.zeros(6, 8), (x,), parameters=net)


def main() -> None:
    reports = {"BatchNorm, training": audit(subject(nn.BatchNorm1d(8), True), order=1),
               "BatchNorm, eval": audit(subject(nn.BatchNorm1d(8), False), order=1),
               "LayerNorm, training": audit(subject(nn.LayerNorm(8), True), order=1)}
    for name, report in reports.items():
        print(f"{name}: {report['independent'].verdict}, {report['independent'].finding}")
    assert [report["independent"].verdict for report in reports.values()] == ["fails", "holds", "holds"]
    assert reports["BatchNorm, training"].about["systems"] == 1  # the audit then treats the batch as one system
    assert not reports["BatchNorm, eval"].failed


if __name__ == "__main__":
    main()
