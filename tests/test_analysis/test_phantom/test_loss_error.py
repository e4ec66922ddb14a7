"""Loss-error bounds against autograd through the phantom steps; least K; refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
import deq
from analysis.phantom.loss_error import (
    QUANTITIES,
    fisher_divergence_error,
    least_phantom_steps,
    loss_error_bounds,
    steps_for_rate,
)
from analysis.phantom.loss_gradient_error import LayerModel, gradient_error_bounds, smooth_derivatives
from analysis.phantom.majorants import Majorant

ACTIVATIONS = {"softplus": torch.nn.functional.softplus, "tanh": torch.tanh, "sin": torch.sin,
               "identity": lambda h: h}


def make_model(seed, size=5, inputs=3, gain=0.7, activation="softplus", quadratic=0.15):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(size, size))
    weight *= gain / np.linalg.norm(weight, 2)
    tensors = (torch.tensor(v) for v in (weight, rng.normal(size=(size, inputs)), rng.normal(size=size),
                                         rng.normal(size=size)))
    model = LayerModel(*tensors, ACTIVATIONS[activation], quadratic, 1.5)
    x = torch.tensor(rng.normal(size=inputs))
    return model, x, analysis.newton_equilibrium(model.step, x, torch.zeros(size, dtype=torch.float64))


def measured(model, x, z_star, steps):
    """Score, Hessian, loss and parameter gradient by autograd through explicit steps from a detached z*."""
    leaves = [t.clone().requires_grad_() for t in (model.weight, model.inputs, model.bias, model.linear)]
    moving = LayerModel(*leaves, model.activation, model.quadratic, model.base_width)
    point, z = x.clone().requires_grad_(), z_star
    for _ in range(steps):
        z = moving.step(z, point)
    score, = torch.autograd.grad(moving.log_density(z, point), point, create_graph=True)
    hessian = torch.stack([torch.autograd.grad(entry, point, create_graph=True)[0] for entry in score])
    loss = 0.5 * score @ score + hessian.trace()
    gradient = torch.autograd.grad(loss, leaves, allow_unused=True)
    flat = torch.cat([torch.zeros(1) if g is None else g.flatten() for g in gradient])
    return score.detach(), hessian.detach(), loss.detach(), flat


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 5), inputs=st.integers(1, 3), gain=st.floats(0.1, 0.5),
       activation=st.sampled_from(sorted(ACTIVATIONS)), quadratic=st.sampled_from([0.0, 0.3]))
def test_every_level_bounds_every_error(seed, size, inputs, gain, activation, quadratic):
    model, x, z = make_model(seed, size, inputs, gain, activation, quadratic)
    score, hessian, loss, gradient = measured(model, x, z, 60)  # 0.5^60 < 1e-18: the truth
    levels = ("sharp", "powers", "law")
    bounds = {level: loss_error_bounds(model.step, model.log_density, x, z, 4, level=level) for level in levels}
    gradients = {level: gradient_error_bounds(model, x, z, 4, level=level) for level in levels}
    v = torch.tensor(np.random.default_rng(seed).choice([-1.0, 1.0], size=inputs))
    sliced = 0.5 * (v @ score) ** 2 + v @ hessian @ v
    for steps in (1, 2, 4):
        rough, rough_hessian, rough_loss, rough_gradient = measured(model, x, z, steps)
        rough_sliced = 0.5 * (v @ rough) ** 2 + v @ rough_hessian @ v
        reduced = abs(0.5 * (rough @ rough - score @ score) + v @ (rough_hessian - hessian) @ v)
        for level in levels:
            bound = bounds[level][steps - 1]
            assert bound.steps == steps
            assert float((rough - score).norm()) <= bound.score
            assert abs(float((rough_hessian - hessian).trace())) <= bound.trace
            assert float(torch.linalg.matrix_norm(rough_hessian - hessian, 2)) <= bound.hessian
            assert abs(float(rough_loss - loss)) <= bound.score_matching
            assert abs(float(rough_sliced - sliced)) <= bound.sliced
            assert float(reduced) <= bound.variance_reduced
            assert float((rough_gradient - gradient).norm()) <= gradients[level][steps - 1].gradient
            assert float(gradient.norm()) <= gradients[level][steps - 1].size
            np.testing.assert_allclose(bound.exact_score, float(score.norm()), rtol=1e-9, atol=1e-9)
        ordered = [bounds[level][steps - 1] for level in levels]
        for smaller, larger in ((ordered[0], ordered[1]), (ordered[1], ordered[2])):
            # each level only weakens the one before; rounding apart
            assert smaller.score <= larger.score * (1 + 1e-9)
            assert smaller.score_matching <= larger.score_matching * (1 + 1e-9)


def test_sharp_bounds_are_close():
    model, x, z = make_model(1, gain=0.6)
    score, hessian, _, gradient = measured(model, x, z, 90)
    rough, rough_hessian, _, rough_gradient = measured(model, x, z, 3)
    bound = loss_error_bounds(model.step, model.log_density, x, z, 3)[-1]
    assert bound.score <= 1.0001 * float((rough - score).norm())
    assert bound.hessian <= 5 * float(torch.linalg.matrix_norm(rough_hessian - hessian, 2))
    assert gradient_error_bounds(model, x, z, 3)[-1].gradient <= 100 * float((rough_gradient - gradient).norm())


def test_bounds_decay_at_their_rates():
    model, x, z = make_model(2, gain=0.6)
    law = loss_error_bounds(model.step, model.log_density, x, z, 60, level="law")
    gradients = gradient_error_bounds(model, x, z, 60, level="law")
    # score like q^K exactly; trace and loss like K q^K; gradient like K^2 q^K: ratios K = 60 over K = 40
    for power, small, large in ((0, law[39].score, law[59].score), (1, law[39].trace, law[59].trace),
                                (2, gradients[39].gradient, gradients[59].gradient)):
        q = law[0].q
        if large > 1e-10:  # above the allowance for rounding
            assert large / small == pytest.approx(q**20 * 1.5**power, rel=0.25)
    assert law[5].score / law[4].score == pytest.approx(law[0].q, rel=1e-6)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_least_steps_promise_what_they_say(quantity):
    model, x, z = make_model(4)
    wanted = 1e-2
    steps = least_phantom_steps(wanted, model.step, model.log_density, x, z, quantity=quantity)
    bounds = loss_error_bounds(model.step, model.log_density, x, z, steps)
    scale = {"score": bounds[0].exact_score, "trace": bounds[0].exact_trace,
             "hessian": bounds[0].exact_trace}.get(quantity, bounds[0].exact_loss)
    assert getattr(bounds[-1], quantity) <= wanted * scale
    assert steps == 1 or getattr(bounds[-2], quantity) > wanted * scale
    call = (model.step, model.log_density, x, z)
    assert least_phantom_steps(wanted * scale, *call, quantity=quantity, relative=False) == steps
    assert least_phantom_steps(wanted, *call, quantity=quantity, level="law") >= steps


def test_batches_take_the_worst_sample():
    model, x, z = make_model(6)
    other = x + 1
    z_other = analysis.newton_equilibrium(model.step, other, z)
    single = [least_phantom_steps(1e-3, model.step, model.log_density, *pair) for pair in ((x, z), (other, z_other))]
    both = least_phantom_steps(1e-3, model.step, model.log_density, torch.stack([x, other]), torch.stack([z, z_other]))
    assert both == max(single)


def test_fisher_divergence_error_holds_for_random_scores(rng):
    for _ in range(20):
        data, score = rng.normal(size=(2, 50, 3))
        rough = score + rng.normal(size=score.shape) * rng.uniform(0, 1, size=(50, 1))
        exact, other = (0.5 * np.mean(np.sum((s - data) ** 2, axis=1)) for s in (score, rough))
        bound = fisher_divergence_error(exact, list(np.linalg.norm(rough - score, axis=1)))
        assert abs(other - exact) <= bound * (1 + 1e-12)
    with pytest.raises(ValueError, match="not negative"):
        fisher_divergence_error(-1.0, [0.0])
    with pytest.raises(ValueError, match="no samples"):
        fisher_divergence_error(1.0, [])


@given(q=st.floats(0.0, 0.999), accuracy=st.floats(1e-12, 0.999))
def test_steps_for_rate_is_least(q, accuracy):
    steps = steps_for_rate(accuracy, q)
    assert q**steps <= accuracy * (1 + 1e-9)
    assert steps == 1 or q ** (steps - 1) > accuracy * (1 - 1e-9)


@given(a=st.floats(0, 10), b=st.floats(0, 10), s=st.floats(-1, 1), t=st.floats(-1, 1))
def test_majorants_of_products(a, b, s, t):
    product = Majorant(a, abs(s)) * Majorant(b, abs(t))
    assert abs(a * b - (a - s) * (b - t)) <= product.error * (1 + 1e-12) + 1e-12
    total = (Majorant(a, 1.0) + Majorant(b, 2.0)).times(2.0)
    assert (total.size, total.error) == (2 * (a + b), 6.0)


def test_derivatives_of_activations():
    h = torch.linspace(-2, 2, 9, dtype=torch.float64)
    for found, wanted in zip(smooth_derivatives(torch.sin, h), (h.cos(), -h.sin(), -h.cos()), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-15)
    first, second, third = smooth_derivatives(lambda t: t * t, h)
    torch.testing.assert_close(first, 2 * h)
    assert (float(second.min()), float(third.abs().max())) == (2.0, 0.0)


def test_refusals():
    model, x, z = make_model(0)
    call = (model.step, model.log_density, x, z)
    for accuracy, message in ((0.0, "positive"), (float("nan"), "positive")):
        with pytest.raises(ValueError, match=message):
            least_phantom_steps(accuracy, *call)
    with pytest.raises(ValueError, match="quantity must be one of"):
        least_phantom_steps(0.1, *call, quantity="likelihood")
    with pytest.raises(ValueError, match="no K up to 3 promises"):
        least_phantom_steps(1e-14, *call, max_steps=3)
    with pytest.raises(ValueError, match="level must be"):
        loss_error_bounds(*call, 2, level="wild")
    with pytest.raises(TypeError, match="integer"):
        loss_error_bounds(*call, 2.0)
    with pytest.raises(ValueError, match="steps = 0"):
        gradient_error_bounds(model, x, z, 0)
    with pytest.raises(analysis.NotAFixedPointError):
        loss_error_bounds(model.step, model.log_density, x, z + 1, 2)
    for q, accuracy in ((1.0, 0.1), (-0.1, 0.1), (0.5, 1.0), (0.5, 0.0), (float("nan"), 0.1)):
        with pytest.raises(ValueError, match=r"lies in|sure to converge"):
            steps_for_rate(accuracy, q)


def test_the_library_rule_agrees_with_explicit_steps():
    model, x, z = make_model(8)
    point = x.clone().requires_grad_()

    def batched(state):
        return model.activation(state @ model.weight.T + model.inputs @ point + model.bias)

    attached = deq.equilibrium(batched, z[None], gradient=deq.Phantom(steps=2), solver="newton", tol=1e-13)[0]
    score, = torch.autograd.grad(model.log_density(attached, point), point)
    torch.testing.assert_close(score, measured(model, x, z, 2)[0], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("c", "m"), [(1.7, -0.6), (1.0, -3.0), (-1.0, 0.2)])
def test_each_term_of_the_trace_error_counts_in_closed_form(c, m):
    """z = a z + b x and log p = c z^2 / 2 + m z x: D = b / (1 - a), E = a^K D, trace error 2 E (c D + m) - c E^2."""
    a, b = 0.5, 0.8
    x = torch.tensor([0.9], dtype=torch.float64)
    slope = b / (1 - a)

    def log_density(z, u):
        return (0.5 * c * z * z + m * z * u).sum()

    for bound in loss_error_bounds(lambda z, u: a * z + b * u, log_density, x, slope * x, 4):
        error = a**bound.steps * slope
        truth = abs(2 * error * (c * slope + m) - c * error**2)
        assert bound.trace == pytest.approx(truth, rel=1e-9)  # one term, so the triangle inequality loses nothing
        assert bound.hessian == pytest.approx(truth, rel=1e-9)
