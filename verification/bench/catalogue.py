"""All benchmarks by name."""

from __future__ import annotations

from verification.bench import cases_equivalents, cases_gradients, cases_kernels, cases_scale, cases_solvers
from verification.bench.case import Benchmark


def load_benchmarks() -> dict[str, Benchmark]:
    """In the order of the report."""
    modules = (cases_gradients, cases_solvers, cases_scale, cases_kernels, cases_equivalents)
    return {benchmark.name: benchmark for module in modules for benchmark in module.BENCHMARKS}
