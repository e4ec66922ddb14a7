"""Comparing gradient rules must leave a run untouched and find exact rules exact."""

import torch

from deq import Exact, Neumann, Phantom
from deq.models import equilibrium_layers
from deq.training import load_config
from deq.training.start import make_task
from verification.experiments.gradient_comparison import compare_during_training, step_gradient

OVERRIDES = {"model": {"tol": 1e-12, "max_iter": 500}}


def test_many_phantom_steps_converge_to_the_exact_gradient():
    config = load_config("table4/deq-ssm", smoke=True, overrides=OVERRIDES)
    found = compare_during_training(config, {"60": Phantom(steps=60), "2": Phantom(steps=2)}, "model", (0, 2))
    assert [item.step for item in found] == [0, 0, 2, 2]
    # contraction about 0.35 here: 0.35^60 is far below the solver's tolerance, which is what is left
    assert all(item.relative_error < 1e-8 for item in found if item.rule == "60")
    assert all(item.relative_error > 1e-4 for item in found if item.rule == "2")


def test_a_comparison_changes_nothing():
    config = load_config("table4/deq-ssm", smoke=True, overrides=OVERRIDES)
    torch.manual_seed(0)
    task = make_task(config, torch.device("cpu"))
    task.module.double()
    before = {name: value.clone() for name, value in task.module.state_dict().items() if torch.is_tensor(value)}
    rules = [layer.gradient for layer in equilibrium_layers(task.module).values()]
    state = torch.get_rng_state()
    rows = torch.arange(4)
    first = step_gradient(task, rows, Exact(order=3), 5, "model")
    second = step_gradient(task, rows, Neumann(terms=2, order=3), 5, "model")
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(task.module.state_dict()[name], value) for name, value in before.items())
    assert [layer.gradient for layer in equilibrium_layers(task.module).values()] == rules
