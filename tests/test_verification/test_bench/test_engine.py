"""The engine: a check before the clock, wrong and failing contestants shown as such, floors and memory from truth."""

import pytest
import torch
from torch import Tensor

from verification.bench.asks import ASKS
from verification.bench.case import Absent, Benchmark, Contestant, Role, Round, Settings, Work
from verification.bench.catalogue import load_benchmarks
from verification.bench.engine import relative_error, run_benchmark, summary
from verification.bench.floor import Machine, measure_machine
from verification.bench.table import text_table

SETTINGS = Settings(repeats=3, warmups=1, threads=1)
MACHINE = Machine(operations=1e9, bandwidth=1e9)


def benchmark() -> Benchmark:
    order: list[str] = []

    def run(name: str, factor: float):
        def action() -> Tensor:
            order.append(name)
            return factor * torch.ones(3, dtype=torch.float64)
        return action

    def broken() -> Tensor:
        raise NotImplementedError("no second derivative")

    def build(size: int, settings: Settings) -> Round:
        if size == 3:
            raise Absent("no such device")
        contestants = [Contestant("right", Role.OURS, run("right", 1.0)),
                       Contestant("wrong", Role.PEER, run("wrong", 1.5)),
                       Contestant("rough", Role.BASELINE, run("rough", 1.1), approximate=True),
                       Contestant("clocked", Role.PEER, run("clocked", 1.0), clock=lambda: 0.25),
                       Contestant("broken", Role.PEER, broken)]
        return Round(contestants, torch.ones(3, dtype=torch.float64), 1e-12, Work(2e6, 1e6), {"other": "not installed"},
                     memory=True, facts={"order": order})

    return Benchmark("demo", "A demonstration", "size n", (1, 2, 3, 100), build, "clocked", "about",
                     (("right", 1.0, "clocked"), ("clocked", 0.5, "clocked")))


def test_a_run_tells_right_from_wrong_and_takes_turns():
    result = run_benchmark(benchmark(), Settings(repeats=3, warmups=1, threads=1, largest=50), MACHINE)
    rows = {(row["size"], row["name"]): row for row in result["rows"]}
    assert {size for size, _ in rows} == {1, 2}
    assert rows[1, "right"]["right"] is True
    assert rows[1, "wrong"]["right"] is False
    assert rows[1, "wrong"]["error"] == pytest.approx(0.5)
    assert rows[1, "rough"]["approximate"] is True
    assert "no second derivative" in rows[1, "broken"]["problem"]
    assert rows[1, "broken"]["median"] is None
    assert rows[1, "clocked"]["median"] == 0.25
    assert rows[1, "clocked"]["ratio"] == 1.0
    assert len(rows[1, "right"]["seconds"]) == 3
    assert rows[1, "right"]["peak_bytes"] >= 24
    first = result["rounds"][0]
    assert first["floor"] == pytest.approx(2e-3)
    assert first["order"][-6:] == ["right", "wrong", "rough"] * 2  # in turns, not one after the other
    assert result["rounds"][2]["absent"] == {"all": "no such device"}
    met = {want["name"]: want["met"] for want in result["wanted"] if want["size"] == 1}
    assert met == {"right": True, "clocked": False}
    table = text_table(result)
    assert "absent: other (not installed)" in table
    assert "NO" in table
    assert "NOT MET" in table


def test_summary_and_error():
    assert summary([]) == {"median": None, "low": None, "high": None}
    assert summary([3.0, 1.0, 2.0, 5.0, 4.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}
    with pytest.raises(ValueError, match="2 numbers where the truth has 3"):
        relative_error(torch.ones(2), torch.ones(3))


def test_the_machine_is_measured():
    machine = measure_machine(SETTINGS, size=64, megabytes=1, repeats=1)
    assert machine.operations > 0
    assert machine.bandwidth > 0
    assert MACHINE.floor(Work(3e9, 1e9)) == 3.0
    assert MACHINE.floor(Work(0, 2e9)) == 2.0


def test_the_catalogue_names_every_benchmark_once():
    known = load_benchmarks()
    assert {"sm-loss", "sm-loss-hard", "gradient", "solve", "convolution", "memory", "trace", "kernels"} <= set(known)
    assert all(list(item.sizes) == sorted(item.sizes) for item in known.values())
    assert len({ask.thread for ask in ASKS}) == len(ASKS) == 30


def test_the_equivalent_kernel_nears_the_exact_one():
    chosen = load_benchmarks()["equivalent"]
    errors = []
    for size in (100, 400):
        current = chosen.build(size, SETTINGS)
        exact, equivalent, prepared = (relative_error(who.run(), current.truth) for who in current.contestants)
        assert exact <= current.tolerance
        assert equivalent == prepared
        errors.append(equivalent)
    assert errors[1] < 0.75 * errors[0] < 0.2  # n^(-1/2) would halve it; three standard deviations of a draw are 0.1


@pytest.mark.parametrize("name", ["gradient", "trace", "matching"])
def test_every_way_of_ours_is_right_at_a_small_size(name: str):
    """The benchmark's own truth, at its smallest size; peers take part where they are installed."""
    chosen = load_benchmarks()[name]
    current = chosen.build(chosen.sizes[0], SETTINGS)
    try:
        ours = [contestant for contestant in current.contestants if contestant.role is Role.OURS]
        assert ours
        for contestant in ours:
            assert relative_error(contestant.run(), current.truth) <= current.tolerance, contestant.name
        phantom = next(contestant for contestant in current.contestants if contestant.approximate)
        assert relative_error(phantom.run(), current.truth) > current.tolerance  # the truth tells them apart
    finally:
        current.close()
