"""The forward sweep of NICE's exact loss against d backward passes."""

import pytest
import torch

import deq
from deq.evaluation.diagonal import diagonal_gaussian
from deq.evaluation.likelihood import score_matching_values
from deq.evaluation.nice_loss import nice_score_matching_values
from deq.models import NICE


@pytest.mark.parametrize("options", [
    {}, {"layers": 2, "couplings": 1}, {"couplings": 3}, {"variant": "deq", "gradient": deq.Phantom(2)},
    {"variant": "deq", "gradient": deq.Phantom(4)}, {"variant": "deq", "gradient": deq.Exact(3)},
    {"variant": "deq-released", "gradient": deq.Phantom(2)}], ids=str)
def test_one_sweep_is_d_backward_passes(generator, options):
    torch.manual_seed(0)
    model = NICE(6, width=5, tol=1e-13, **options).double()
    with torch.no_grad():
        model.scale.copy_(torch.randn(6, generator=generator, dtype=torch.float64))
    x = torch.randn(11, 6, generator=generator, dtype=torch.float64)
    got = nice_score_matching_values(model, x, chunk=4)
    expected = score_matching_values(model.log_density, x)
    # sums of 6 x 6 squares through four nets a few units wide: some thousand roundings, and the solve's 1e-13
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11 * float(expected.abs().max()))


def test_a_diagonal_gaussian_has_its_closed_form(generator):
    model = NICE(4, width=3).double()
    with torch.no_grad():
        for shift in model.shifts:
            shift[-1].weight.zero_()
            shift[-1].bias.zero_()
        model.scale.copy_(torch.tensor([0.3, -0.2, 0.5, 0.0]))
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    precision = (2 * model.scale.detach()).exp()
    y = torch.cat([x[:, 0::2], x[:, 1::2]], 1)
    expected = 0.5 * (y * precision).square().sum(1) - precision.sum()
    torch.testing.assert_close(nice_score_matching_values(model, x), expected, rtol=1e-13, atol=1e-13)


def test_the_diagonal_gaussian_is_such_a_nice_and_no_scale_beats_it(generator):
    """Loss and likelihood are those of the NICE whose scales are the precisions' roots; other scales are worse."""
    x = torch.randn(400, 4, generator=generator, dtype=torch.float64) * torch.tensor([0.3, 1.0, 2.0, 0.7])
    x = x - x.mean(0)
    found = diagonal_gaussian(x, x)
    model = NICE(4, width=3).double()
    with torch.no_grad():
        for shift in model.shifts:
            shift[-1].weight.zero_()
            shift[-1].bias.zero_()
        roots = x.var(0, correction=0).rsqrt().log()
        best = torch.cat([roots[0::2], roots[1::2]])
        model.scale.copy_(best)
        assert model.log_density(x).mean() == pytest.approx(found["test_log_likelihood"], rel=1e-12)
    assert nice_score_matching_values(model, x).mean() == pytest.approx(found["test_sm_loss"], rel=1e-12)
    for step in (-0.05, 0.05):
        with torch.no_grad():
            model.scale.copy_(best + step)
            assert model.log_density(x).mean() < found["test_log_likelihood"]
        assert nice_score_matching_values(model, x).mean() > found["test_sm_loss"]
    with pytest.raises(ValueError, match="1 columns are constant"):
        diagonal_gaussian(torch.tensor([[1.0, 2.0], [1.0, 3.0]]), x[:, :2])
