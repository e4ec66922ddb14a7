"""Planted faults are caught by the right check; sound subjects raise no alarm; nobody's model is changed."""

import importlib.util
import inspect
from pathlib import Path

import pytest
import torch

from verification.audit import AuditVerdict, audit
from verification.audit.checks import CHECKS

HERE = Path(__file__).parent


def module(name):
    spec = importlib.util.spec_from_file_location(f"audit_{name}", HERE / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    __import__("sys").modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


SOUND, FAULTY = module("sound_subjects"), module("faulty_subjects")
SOUND_NAMES = [name for name, value in vars(SOUND).items() if inspect.isfunction(value) and not name.startswith("_")
               and value.__module__ == SOUND.__name__]
#: One fault a check, and sound subjects of different kinds, at each run; all of them with `make test-slow`.
QUICK_FAULTS = {"in_place", "counter", "batchnorm_in_training", "three_iterations", "two_wells", "runs_away",
                "asked_for_too_much", "detached_bias", "phantom_near_one", "conserved_mean", "hook_hessian"}
QUICK_SOUND = {"dense_float64", "ours", "hook", "phantom_declared", "attention", "bfloat16", "tuple_state",
               "complex_state", "batchnorm_in_eval", "closure_over_the_batch"}


def sized(names, quick):
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in sorted(names)]


def test_the_sets_are_as_large_as_promised():
    assert len(SOUND_NAMES) >= 30
    assert len(FAULTY.EXPECTED) >= 25
    assert set(FAULTY.EXPECTED.values()) == {check.name for check in CHECKS}
    assert set(FAULTY.EXPECTED) >= QUICK_FAULTS
    assert set(SOUND_NAMES) >= QUICK_SOUND


@pytest.mark.parametrize("name", sized(FAULTY.EXPECTED, QUICK_FAULTS))
def test_a_planted_fault_is_caught_by_its_check(name):
    report = audit(getattr(FAULTY, name)(), order=2)
    assert report[FAULTY.EXPECTED[name]].verdict is AuditVerdict.FAILS
    assert report[FAULTY.EXPECTED[name]].advice


def test_wrong_second_derivatives_fail_where_they_are_asked_for():
    subject = FAULTY.hook_hessian()
    silent = audit(subject)["higher-order"]
    assert silent.verdict is AuditVerdict.UNDECIDED
    assert silent.numbers["by_order"]["second"]["relative_error"] > 0.1
    assert audit(subject, order=1)["higher-order"].verdict is AuditVerdict.NOT_APPLICABLE
    assert audit(FAULTY.in_place(), order=2).about["order"] == 2


@pytest.mark.parametrize("name", sized(SOUND_NAMES, QUICK_SOUND))
def test_a_sound_subject_raises_no_alarm(name):
    report = audit(getattr(SOUND, name)())
    assert [(check.name, check.finding) for check in report.failed] == []
    assert report["map"].verdict is AuditVerdict.HOLDS
    assert report["converged"].verdict is AuditVerdict.HOLDS


@pytest.mark.parametrize("name", ["batchnorm_in_training", "dropout_in_training", "in_place", "counter"])
def test_the_subject_is_left_as_it_was(name):
    subject = getattr(FAULTY, name)()
    modules = subject.parameters
    before = {key: value.clone() for key, value in modules.state_dict().items()}
    for parameter in modules.parameters():
        parameter.grad = torch.ones_like(parameter)
    inputs, start, state = [item.clone() for item in subject.inputs], subject.z0.clone(), torch.get_rng_state()
    audit(subject, budget=5.0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in modules.state_dict().items())
    assert all(bool((parameter.grad == 1).all()) for parameter in modules.parameters())
    assert all(torch.equal(a, b) for a, b in zip(subject.inputs, inputs, strict=True))
    assert torch.equal(subject.z0, start)
    assert modules.training
