"""The doctor: probes tell right from wrong, processes that hang or die are survived, every fault has its probe."""

import subprocess
import sys
import textwrap

import pytest
import torch

from deq.interop.doctor import FAULTS, Fault, State, diagnose, probes
from deq.interop.doctor import run as module
from verification import doctor

QUICK = [fault for fault in FAULTS if fault.name not in ("batched_lu", "batched_cholesky")]


def test_every_fault_has_a_probe_and_an_answer():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert callable(getattr(probes, fault.name))
        assert all((fault.title, fault.source, fault.answer))


def test_the_measure_of_second_derivatives_knows_right_from_wrong():
    u, v = torch.linspace(0.2, 1.0, 4, dtype=torch.float64), torch.tensor([0.2, -0.1, 0.3, 0.1], dtype=torch.float64)
    assert probes._second_along(lambda a: torch.sin(a).prod(), u, v) < 1e-9

    class Wrong(torch.autograd.Function):
        """x^3, whose first derivative in forward mode is right and whose second is not."""

        @staticmethod
        def forward(x):
            return x**3

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_forward(*inputs)

        @staticmethod
        def jvp(ctx, tangent):
            (x,) = ctx.saved_tensors
            return 3 * x.detach() ** 2 * tangent

    assert probes._second_along(lambda a: Wrong.apply(a).sum(), u, v) > 0.1


def test_this_machine_answers_and_the_findings_are_plain_data():
    findings = diagnose(QUICK, seconds=60)
    assert [finding.fault for finding in findings] == QUICK
    assert {finding.state for finding in findings} <= {State.RIGHT, State.WRONG, State.RAISES}
    states = {finding.fault.name: finding.state for finding in findings}
    assert states["convolution_vmap"] is State.RIGHT
    if torch.__version__.startswith("2.13."):  # the version that the project pins; its faults are no matter of hardware
        assert [name for name, state in states.items() if state is State.WRONG] == [
            "layer_norm", "batch_norm", "instance_norm", "linalg_solve", "logdet", "vmap_solve"]
    shown = doctor.terminal(doctor.record(findings))
    assert all(finding.fault.title in shown for finding in findings)


SLEEPER = """
import json, os, sys, time
for name in sys.argv[3:]:
    print(json.dumps({"begins": name}), flush=True)
    print("a library's own words", flush=True)
    if name == "hangs": time.sleep(60)
    if name == "dies": os._exit(7)
    print(json.dumps({"name": name, **ANSWERS[name]}), flush=True)
"""
ANSWERS = {"right": {"error": 1e-12}, "wrong": {"error": 0.2}, "nan": {"error": float("nan")},
           "raises": {"raised": "RuntimeError: no"}, "breaks": {"broken": "KeyError: x"}}


@pytest.fixture
def made_up(monkeypatch):
    """Processes that answer from a table."""
    text = f"nan = float('nan')\nANSWERS = {ANSWERS!r}\n" + textwrap.dedent(SLEEPER)
    start = subprocess.Popen

    def popen(command, **settings):
        return start([sys.executable, "-c", text, *command[1:]], **settings)

    monkeypatch.setattr(module.subprocess, "Popen", popen)


def test_processes_that_hang_or_die_cost_only_their_probe(made_up):
    names = ["right", "hangs", "wrong", "dies", "nan", "raises", "breaks", "hangs"]
    findings = diagnose([Fault(name, name, "s", "a") for name in names], seconds=1)
    assert [str(finding.state) for finding in findings] == [
        "right", "hangs", "wrong", "crashes", "wrong", "raises", "unknown", "hangs"]
    assert [findings[index].detail for index in (1, 3, 5)] == [
        "no answer in 1 s", "the process ended with status 7", "RuntimeError: no"]
    shown = doctor.terminal(doctor.record(findings))
    assert shown.endswith("6 of 8 known faults are present; 1 could not be probed")


def test_a_broken_probe_is_told_and_a_limit_must_be_positive(monkeypatch):
    monkeypatch.setattr(probes, "silu_backward", lambda: 1 / 0)
    assert "ZeroDivisionError" in probes.measure("silu_backward")["broken"]
    with pytest.raises(ValueError, match="must be positive"):
        diagnose(seconds=0)
