"""Iteration counts of solvers on models in training."""

from deq.training import load_config
from verification.experiments.solver_counts import solver_counts


def test_counts_of_a_tiny_model():
    config = load_config("table4/deq-ssm", smoke=True, overrides={"model": {"tol": 1e-8}})
    tight, loose = (solver_counts(config, ("picard", "anderson"), 1, tol) for tol in (1e-10, 1e-3))
    assert [count.solver for count in tight] == ["picard", "anderson", "printed stop"]
    assert all(count.converged == 1 for count in tight + loose)
    assert all(a.iterations > b.iterations for a, b in zip(tight, loose, strict=True))
    assert all(count.evaluations >= count.iterations for count in tight)
