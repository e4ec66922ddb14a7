import pytest
import torch

import deq
from deq.data import Tabular
from deq.models import DKEF
from deq.training.dkef import DKEFProtocol, DKEFTraining
from deq.training.dkef_evaluation import loss_under_exact_derivatives
from deq.training.dkef_objective import evaluate, fit_alpha, solve_alpha
from deq.training.folder import TrainingStopped


@pytest.fixture
def table(generator):
    """Two well-separated clusters in the plane: far from the base measure, so that training has something to learn."""
    rows = torch.randn(260, 2, generator=generator, dtype=torch.float64) * 0.5
    rows[:, 0] += 2 * torch.randint(0, 2, (260,), generator=generator) - 1.0
    return Tabular("clusters", rows[:200], rows[200:230], rows[230:])


def trainer(table, *, variant="deq", hook=None, **options):
    model = DKEF(2, variant=variant, width=6, inducing=12, generator=torch.Generator().manual_seed(1))
    config = DKEFTraining(**{"batch_size": 32, "max_steps": 24, "validate_every": 4, "final_steps": 10, **options})
    return DKEFProtocol(model, table, config, hook=hook)


@pytest.mark.parametrize("objective", ["sm", "ssm", "ssm-vr", "dsm"])
def test_training_improves_the_exact_loss_on_held_out_rows(table, objective):
    work = trainer(table, objective=objective, max_steps=40, learning_rate=1e-2, variant="explicit")
    before = evaluate(work.model, table.test).mean()        # alpha = 0: the base measure alone
    result = work.run()
    after = evaluate(work.model, table.test).mean()
    # the released ridge weighs sigma^-4 = 1,526 times more in "dsm": alpha stays small in so few steps
    assert after < before - (0.1 if objective == "dsm" else 0.3)
    assert result.steps == 40
    assert [entry["step"] for entry in result.history] == list(range(4, 41, 4))
    assert result.best_validation == min(entry["validation"] for entry in result.history)


@pytest.mark.parametrize("objective", ["sm", "ssm"])
def test_a_run_in_two_parts_ends_bitwise_where_an_uninterrupted_one_does(table, objective):
    whole, parts = trainer(table, objective=objective), trainer(table, objective=objective)
    whole.run()
    assert parts.run(stop_at=13).steps == 13
    assert parts.run().history == whole.result.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(parts.model.state_dict()[name], value), name


def test_non_finite_values_stop_the_run_with_the_step(table):
    def poison(step, model, fitting, held):
        if step == 3:
            held[0, 0] = float("inf")

    with pytest.raises(TrainingStopped, match="step 3"):
        trainer(table, variant="explicit", hook=poison).run()


def test_patience_counts_steps_and_the_best_state_is_kept(table):
    work = trainer(table, variant="explicit", learning_rate=0.5, max_steps=200, patience=12)     # far too fast
    result = work.run()
    assert result.stopped_early
    assert result.steps - result.best_step >= 12
    assert result.steps < 200
    best = work.best
    for name, value in work.model.named_parameters():
        if name != "log_ridge":                            # stage 2 moves the ridge alone
            assert torch.equal(value, best[name]), name


def test_the_second_stage_does_not_raise_the_validation_value(table):
    work = trainer(table, variant="explicit", final_steps=200, final_learning_rate=1e-2)
    work.run()
    tuned = evaluate(work.model, table.validation).mean()
    same = trainer(table, variant="explicit", final_steps=0)
    same.run()
    untuned = evaluate(same.model, table.validation).mean()
    assert tuned <= untuned + 1e-9
    assert work.model.log_ridge != same.model.log_ridge


def test_the_hook_sees_disjoint_halves_and_cannot_change_the_run(table):
    seen = []
    work = trainer(table, hook=lambda step, model, fitting, held: seen.append((step, fitting.clone(), held.clone())))
    work.run()
    assert [step for step, _, _ in seen] == list(range(24))
    for _, fitting, held in seen:
        assert fitting.shape == held.shape == (16, 2)
        assert not (fitting[:, None] == held[None]).all(2).any()
    plain = trainer(table)
    plain.run()
    assert plain.result.history == work.result.history


@pytest.mark.parametrize(("options", "message"), [
    ({"objective": "mle"}, "mle"), ({"epochs": 0}, "epochs"), ({"batch_size": 1}, "batch_size"),
    ({"validate_every": 0}, "validate_every"), ({"batch_size": 500}, "fewer than a batch")])
def test_bad_settings_are_named(table, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(table, **options)


def test_a_table_of_another_width_is_refused(table):
    with pytest.raises(ValueError, match="columns"):
        DKEFProtocol(DKEF(3), table, DKEFTraining(batch_size=32))


def test_the_loss_under_exact_derivatives_is_that_of_an_exact_twin(generator):
    rows = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    options = {"width": 5, "inducing": 6, "variant": "deq"}
    model = DKEF(3, gradient=deq.Phantom(1), generator=generator, **options)
    found = loss_under_exact_derivatives(model, rows[:40], rows[40:])
    twin = DKEF(3, gradient=deq.Exact(3), tol=1e-12, **options)
    twin.load_state_dict(model.state_dict())
    alpha = solve_alpha(*fit_alpha(twin, rows[:40]), 40, twin.log_ridge.detach())
    assert found == pytest.approx(evaluate(twin, rows[40:], alpha=alpha).mean().item(), rel=1e-8)
    own = solve_alpha(*fit_alpha(model, rows[:40]), 40, model.log_ridge.detach())
    assert found != pytest.approx(evaluate(model, rows[40:], alpha=own).mean().item(), rel=1e-6)
    assert model.features.gradient == deq.Phantom(1)
    assert loss_under_exact_derivatives(twin, rows[:40], rows[40:]) is None
