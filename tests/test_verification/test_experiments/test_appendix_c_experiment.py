import json
import math

import pytest
import torch

import deq
from analysis import newton_equilibrium
from deq.data import Tabular
from deq.models import DKEF
from verification.claims.appendix_c import _law, _near_zero
from verification.context import Context, Scale
from verification.evidence import Outcome
from verification.experiments import appendix_c, dkef_rates, dkef_subject
from verification.experiments.dkef_routes import follow, jacobians, spectral_radii, unroll_steps
from verification.experiments.dkef_subject import Cell, equilibrium_features, trained_dkef


@pytest.fixture(scope="module")
def context():
    """A run at smoke scale on a small made-up table with a small model."""
    generator = torch.Generator().manual_seed(7)
    rows = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    table = Tabular("made-up", rows[:200], rows[200:230], rows[230:])
    patch = pytest.MonkeyPatch()
    patch.setattr(dkef_subject, "parkinson_or_stand_in", lambda folder: table)
    patch.setattr(dkef_subject, "DKEF", lambda dim, **options: DKEF(dim, width=6, inducing=12, **options))
    yield Context(scale=Scale.SMOKE)
    patch.undo()


def test_the_course_measures_without_disturbing_training(context):
    made = appendix_c.course(context, "sm")
    plain = dkef_subject.train_dkef(context, "sm")
    for name, value in plain.model.state_dict().items():
        assert torch.equal(made.subject.model.state_dict()[name], value), name
    assert made.steps == [0, 3]
    assert made.routes["K=2"].steps == [0, 3]
    assert made.routes["K=8"].steps == [0]
    assert trained_dkef(context, "sm") is made.subject


def test_errors_fall_with_the_number_of_steps_and_vanish_with_the_order(context):
    routes = appendix_c.course(context, "sm").routes
    worst = {name: max(route.gradient) for name, route in routes.items()}
    assert worst["K=1"] > worst["K=2"] > worst["K=4"] > worst["K=8"]
    assert worst["exact(3)"] < 1e-9 < worst["exact(2)"] < worst["exact(1)"]
    assert max(map(max, routes["exact(1)"].score_shared)) < 1e-9


def test_the_record_is_plain_data_and_keeps_small_angles(context):
    record = appendix_c.course_record(appendix_c.course(context, "sm"))
    assert json.loads(json.dumps(record)) == record
    deficits = [1 - c for c in record["routes"]["K=8"]["score_cosine"][0]]
    assert max(deficits) < 1e-9
    assert record["routes"]["K=2"]["gradient"][0] > 0


def test_the_truth_agrees_with_two_other_routes(context):
    differences = dkef_rates.independent_check(appendix_c.course(context, "sm").subject)
    assert set(differences) == {"loss", "gradient", "first", "laplacian"}
    assert max(differences.values()) < 1e-10


def test_cells_are_the_maps_of_the_model(context):
    subject = trained_dkef(context, "sm")
    x = subject.inputs[0]
    features = equilibrium_features(subject.model)
    radii = spectral_radii(subject.model, x[None])
    for r, cell in enumerate(subject.cells):
        z = newton_equilibrium(cell, x, torch.zeros(len(cell.b), dtype=x.dtype))
        with torch.no_grad():
            phi = features(x[None])[r, 0] - features.skip[r] @ x
        torch.testing.assert_close(z, phi, rtol=0, atol=1e-4)            # the layer solves to 5e-6
        jacobian = torch.func.jacrev(lambda z, cell=cell: cell(z, x))(z)
        assert torch.linalg.eigvals(jacobian).abs().max() == pytest.approx(float(radii[r, 0]), rel=1e-3)
        assert cell.W.norm() < 1


def test_scaled_errors_are_the_plain_ones_and_carry_the_factor_k():
    """Against the recursion of Proposition 2 where that is above rounding; then the power of K."""
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    W = 0.9 * (root + root.T) / torch.linalg.matrix_norm(root + root.T, 2)
    cell = Cell(W, torch.randn(4, 2, generator=generator, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))
    x = torch.randn(2, generator=generator, dtype=torch.float64)
    scaled, plain = dkef_rates.scaled_errors(cell, x, 400), dkef_rates.derivative_errors(cell, x, 6)
    for k in range(1, 7):
        assert scaled["first"][k] * scaled["radius"] ** k == pytest.approx(plain["first"][k - 1], rel=1e-8)
        assert scaled["second"][k] * scaled["radius"] ** k == pytest.approx(plain["second"][k - 1], rel=1e-8)
    first, second = dkef_rates.growth(scaled, 100)
    assert abs(first) < 0.05
    assert abs(second - 1) < 0.2


def test_routes_leave_the_model_as_it_was(context):
    subject = trained_dkef(context, "sm")
    model, x = subject.model, subject.table.test[:10]
    features = equilibrium_features(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = follow(model, deq.Exact(1), x, x, "ssm")
    assert model.features is features
    assert features.gradient == deq.Phantom(2)
    assert not features.allow_beyond_order
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert found.gradient.shape == (sum(p.numel() for p in model.parameters()),)
    assert unroll_steps(model, x) >= 10
    assert jacobians(model, x).shape == (3, 10, 6, 6)


def test_checkers_can_fail(context):
    one = appendix_c.course(context, "sm")
    far = appendix_c.Comparison(steps=[0], score=[[0.5] * 10], score_shared=[[0.5] * 10])
    assert _near_zero(one, far).outcome is Outcome.FAILS
    far.score = [[math.nan] * 10]
    assert _near_zero(one, far).outcome is Outcome.FAILS
    assert {evidence.outcome for evidence in _law(context, 3.0)} == {Outcome.FAILS}
