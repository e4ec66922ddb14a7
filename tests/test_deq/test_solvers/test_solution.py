"""Status, errors and the solution record."""

import dataclasses

import pytest
import torch

from deq.solution import Solution
from deq.status import DEQError, DerivativeOrderError, LinearSolveError, NotConverged, SolveStatus


def example(*statuses: SolveStatus, residual: list[float]) -> Solution:
    codes = torch.tensor([status.code for status in statuses])
    count = len(statuses)
    return Solution(z=torch.zeros(count, 2), converged=codes == 0, residual=torch.tensor(residual),
                    iterations=torch.arange(count), evaluations=torch.arange(count) + 1, status=codes,
                    tolerance=torch.full((count,), 1e-6), solver="picard")


def test_codes_and_texts():
    assert SolveStatus.CONVERGED.code == 0
    assert [SolveStatus.from_code(status.code) for status in SolveStatus] == list(SolveStatus)
    assert len({status.value for status in SolveStatus}) == len(SolveStatus)


def test_solution_is_frozen_and_has_a_summary():
    solution = example(SolveStatus.CONVERGED, SolveStatus.CYCLING, SolveStatus.CYCLING, residual=[1e-7, 2.0, 1.0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        solution.solver = "x"
    assert solution.worst() == 1
    assert solution.counts() == {SolveStatus.CYCLING: 2, SolveStatus.CONVERGED: 1}
    assert solution.statuses()[0] is SolveStatus.CONVERGED
    assert "\n" not in solution.summary()
    for part in ("picard", "2 CYCLING", "1 CONVERGED", "2.00e+00", "1.00e-06"):
        assert part in solution.summary()
    assert "Solution(z=(3, 2)" in repr(solution)


def test_worst_prefers_nan():
    assert example(SolveStatus.CYCLING, SolveStatus.NON_FINITE, residual=[2.0, float("nan")]).worst() == 1
    with pytest.raises(ValueError, match="empty batch"):
        example(residual=[]).worst()


def test_raise_if_failed_carries_the_solution():
    solution = example(SolveStatus.CONVERGED, SolveStatus.MAX_ITERATIONS, residual=[1e-7, 1e-3])
    with pytest.raises(NotConverged, match="1 MAX_ITERATIONS") as caught:
        solution.raise_if_failed()
    assert caught.value.solution is solution
    assert SolveStatus.MAX_ITERATIONS.value in str(caught.value)
    good = example(SolveStatus.CONVERGED, residual=[0.0])
    assert good.raise_if_failed() is good


def test_hierarchy_of_errors():
    assert issubclass(NotConverged, DEQError)
    assert issubclass(NotConverged, RuntimeError)
    assert issubclass(LinearSolveError, (DEQError, RuntimeError))
    assert issubclass(DerivativeOrderError, DEQError)
