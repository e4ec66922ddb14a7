"""The papers' count of iterations against a map whose gaps are known."""

import math

import torch

from deq.evaluation.batch_stop import released_counts, whole_batch_iterations


def expected(first_gap, ratio, tol):
    """The first n with `first_gap ratio^(n - 1) < tol`."""
    return 1 + max(0, math.floor(math.log(tol / first_gap) / math.log(ratio)) + 1)


def test_the_norm_is_of_the_whole_batch_and_absolute():
    for batch, size, tol in ((1, 1, 1e-3), (64, 8, 1e-3), (64, 8, 3e-6)):
        start = torch.zeros(batch, size, dtype=torch.float64)
        gap = math.sqrt(batch * size)                   # f(0) - 0 = 1 in every entry, halved each time
        assert whole_batch_iterations(lambda z: 0.5 * z + 1, start, tol) == expected(gap, 0.5, tol)


def test_maps_side_by_side_stop_by_themselves_and_the_mean_is_told():
    rates = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)[:, None]
    start = torch.zeros(7, 3, 4, dtype=torch.float64)
    counts = [expected(math.sqrt(28), float(rate), 1e-4) for rate in rates]
    assert whole_batch_iterations(lambda z: rates * z + 1, start, 1e-4, 500, group=1) == torch.tensor(
        counts, dtype=torch.float32).mean()
    assert whole_batch_iterations(lambda z: rates * z + 1, start, 1e-4, 20) == 20        # not reached: max_iter


def test_a_warm_start_is_the_equilibrium_of_another_sample():
    x = torch.tensor([[1.0], [1.0], [4.0]], dtype=torch.float64)
    found = released_counts(lambda z: 0.5 * z + x, 2 * x, 1e-6)
    cold = expected(math.sqrt(18.0), 0.5, 1e-6)
    warm = expected(0.5 * math.sqrt(2 * 36.0), 0.5, 1e-6)          # off by 6, 0, 6 at first; f halves it
    assert found == {"iterations_released": cold, "iterations_released_warm": warm}
