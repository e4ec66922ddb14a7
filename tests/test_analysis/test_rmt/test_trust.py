"""The error of the paper's equivalent, predicted without an exact kernel, against the measured one."""

import numpy as np
import pytest

import analysis
from verification.experiments.equivalent_limits import held_out, two_classes


@pytest.mark.parametrize("kind", ["ck", "ntk"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_prediction_is_the_measured_error(activation, kind):
    error = analysis.equivalent_error(activation, 0.4, two_classes(80, 60, 5.0), kind=kind, exact=True)
    # what orders beyond the third add is a fraction of what the third adds to the second
    assert np.all(np.abs(error.measured - error.predicted) <= error.uncertainty)
    assert np.all(error.uncertainty < 0.1 * error.predicted)
    low, high = error.range
    assert low <= error.measured.min()
    assert error.measured.max() <= high
    assert error.trusted(1.01 * high) is True
    assert error.trusted(0.99 * low) is False
    assert error.trusted((low + high) / 2) is None
    assert np.all(error.diagonal <= error.predicted)


def test_decisions_on_settings_that_nothing_was_tuned_on(rng):
    for setting, error in held_out(rng, 8, 90):
        for tolerance in (0.01, 0.05, 0.1, 0.2):
            said = error.trusted(tolerance)
            if said is not None:
                assert np.all((error.measured <= tolerance) == said), setting


def test_it_grows_with_separation_and_falls_with_the_dimension():
    def predicted(p, separation):
        mixture = two_classes(p, p, separation)
        return analysis.equivalent_error("relu", 0.3, mixture, draws=2).predicted.mean()

    assert predicted(60, 8.0) > predicted(60, 2.0)
    assert predicted(240, 4.0) < 0.7 * predicted(60, 4.0)  # p^(-1/2) halves it


def test_without_centring_the_rank_one_term_does_it(rng):
    sample = two_classes(120, 90, 3.0).sample(rng)
    eq = analysis.solve_equations("softplus", 0.3, sample.statistics.tau0)
    exact = analysis.deq_kernels(sample.x, "softplus", 0.3).ck
    size = np.linalg.norm(exact, 2)
    with_term = analysis.refined_equivalent(eq, sample, centred=False)
    assert np.linalg.norm(exact - with_term, 2) < 1e-3 * size
    assert np.linalg.norm(exact - analysis.equivalent_kernel(eq, sample), 2) > 0.5 * size


def test_what_is_asked_wrongly_is_refused():
    mixture = two_classes(30, 20, 1.0)
    with pytest.raises(ValueError, match="draws"):
        analysis.equivalent_error("relu", 0.2, mixture, draws=0)
    with pytest.raises(ValueError, match="nngp"):
        analysis.equivalent_error("relu", 0.2, mixture, kind="nngp")
    with pytest.raises(ValueError, match="tolerance"):
        analysis.equivalent_error("relu", 0.2, mixture, draws=1).trusted(0)
