"""The trained deep kernel model in balls, on a small untrained one: against the float model's own autograd."""

import numpy as np
import pytest
import torch

import deq
from analysis.phantom.equilibrium_point import newton_equilibrium
from analysis.rigorous import phantom_errors, working_precision
from deq.models import DKEF
from verification.experiments.certified_dkef import enclose_model, float_functions


@pytest.fixture
def model(generator):
    made = DKEF(2, variant="deq", width=4, inducing=3, kernels=2, gradient=deq.Exact(order=3), tol=1e-12,
                generator=generator)
    made.alpha.copy_(torch.randn(3, generator=generator, dtype=torch.float64))
    with torch.no_grad():
        made.mixture.copy_(torch.tensor([0.3, -0.4]))
    return made


def test_score_and_trace_are_those_of_the_float_model(model, rng):
    x = torch.tensor(rng.normal(size=2))
    with working_precision(128):
        enclosed = enclose_model(model)
        score, errors = phantom_errors(enclosed.equilibrium(x), enclosed.readout, (1, 2))

    def log_density(v):
        return model.log_density(v[None])[0]

    gradient = torch.autograd.functional.jacobian(log_density, x)
    hessian = torch.autograd.functional.hessian(log_density, x)
    np.testing.assert_allclose([float(v.mid()) for v in score.value.entries()], gradient.numpy(), atol=1e-10)
    np.testing.assert_allclose(float(score.second[0, 0].mid()), float(hessian.trace()), atol=1e-9)
    step, density = float_functions(model)
    z = newton_equilibrium(step, x, torch.zeros(8, dtype=torch.float64))
    assert float(density(z, x)) == pytest.approx(float(log_density(x).detach()), abs=1e-10)
    np.testing.assert_allclose([float(v.mid()) for v in enclosed.equilibrium(x).z.entries()], z.numpy(), atol=1e-12)
    model.features.gradient = deq.Phantom(2)
    rough = torch.autograd.functional.jacobian(log_density, x)
    assert float(errors[1].score.mid()) == pytest.approx(float((rough - gradient).norm()), rel=1e-6)


def test_other_models_are_refused(generator):
    for variant in ("explicit", "deq-released"):
        other = DKEF(2, variant=variant, width=4, inducing=3, kernels=2, generator=generator)
        with pytest.raises(TypeError, match="variant='deq'"):
            enclose_model(other)
