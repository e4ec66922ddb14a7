import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import deq
from deq import losses
from deq.models import DKEF, count_parameters
from deq.training.dkef_objective import evaluate, fit_alpha, halves_loss, quadratic, solve_alpha, validation_mean

from .dkef_reference import plain_quadratic

EPS = torch.finfo(torch.float64).eps
SOLVED = 1e-13
RULES = [deq.Phantom(1), deq.Phantom(2), deq.Phantom(3, damping=0.7), deq.Neumann(2, 3), deq.Exact(3)]


def model_and_rows(seed, rows=6, dim=4, **options):
    generator = torch.Generator().manual_seed(seed)
    model = DKEF(dim, **{"width": 5, "inducing": 7, "tol": SOLVED, "generator": generator, **options})
    with torch.no_grad():
        model.alpha.copy_(torch.randn(7, generator=generator, dtype=torch.float64))
    return model, torch.randn(rows, dim, generator=generator, dtype=torch.float64), generator


def close(a, b, factor=1e4):
    """Third derivatives of nets a few units wide: some thousand roundings of the largest entry, and the solve's 1e-13.

    Routes attach the same solve in different ways, so they differ by that tolerance times |z| / (1 - q) (about ten)
    times the growth of a third derivative (about ten). A wrong rule would show in the first digits.
    """
    scale = max(float(b.detach().abs().max()), 1e-3)
    torch.testing.assert_close(a, b, rtol=0, atol=(factor * EPS + 100 * SOLVED) * scale)


@pytest.mark.parametrize(("variant", "layers", "dim", "expected"), [
    ("explicit", 3, 15, 10_279), ("explicit", 8, 15, 26_119), ("explicit", 16, 15, 51_463),
    ("explicit", 3, 11, 9_255), ("explicit", 8, 11, 25_095), ("explicit", 16, 11, 50_439),
    ("deq", 1, 15, 7_015), ("deq", 1, 11, 5_991)])
def test_parameter_counts_are_those_counted_by_hand(variant, layers, dim, expected):
    assert count_parameters(DKEF(dim, variant=variant, layers=layers)) == expected


def test_an_output_layer_gives_the_counts_table_2_prints():
    assert [count_parameters(DKEF(d, variant="deq", output_layer=True)) for d in (15, 11)] == [10_183, 9_159]


def test_high_dimensional_counts_do_not_match_table_3():
    """First layer and skip d h each, k - 1 layers h (h + 1), 3 kernels, 200 d, 7; the table prints 22k, 41k, 66k"""
    counts = [count_parameters(DKEF(100, layers=k, inducing=200)) for k in (3, 8, 16)]
    first = 2 * 3 * 100 * 32 + 3 * 32 + 200 * 100 + 7
    assert counts == [first + (k - 1) * 3 * 32 * 33 for k in (3, 8, 16)]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_jets_through_the_equilibrium_agree_with_autograd_through_it(seed, rule):
    """Loss and parameter gradient by forward jets and one backward pass, against nested autograd of log p."""
    model, x, _ = model_and_rows(seed, variant="deq", gradient=rule)
    parameters = [p for p in model.parameters() if p is not model.log_ridge]
    expected = losses.score_matching(model.log_density, x, reduction="none")
    got = quadratic(model, x).values(model.alpha)
    close(got, expected)
    for a, b in zip(torch.autograd.grad(got.mean(), parameters), torch.autograd.grad(expected.mean(), parameters),
                    strict=True):
        close(a, b)


@given(seed=st.integers(0, 2**20), layers=st.integers(1, 4), skip=st.booleans(),
       objective=st.sampled_from(["sm", "ssm", "ssm-vr", "dsm"]))
def test_every_objective_is_the_general_one_on_explicit_features(seed, layers, skip, objective):
    model, x, generator = model_and_rows(seed, layers=layers, skip=skip)
    v = losses.draw_projections(x, generator=generator)[0]
    got = quadratic(model, x, objective, projections=v, sigma=0.3).values(model.alpha)
    if objective == "sm":
        expected = losses.score_matching(model.log_density, x, reduction="none")
    elif objective == "dsm":
        expected = 0.3**4 * losses.denoising_score_matching(model.log_density, x, 0.3, noise=v, reduction="none")
    else:
        expected = losses.sliced_score_matching(model.log_density, x, variance_reduced=objective == "ssm-vr",
                                                projections=v, reduction="none")
    close(got, expected)


@pytest.mark.parametrize("objective", ["sm", "ssm", "ssm-vr", "dsm"])
@pytest.mark.parametrize(("dim", "options"), [
    (3, {"variant": "deq"}), (4, {"layers": 1}), (5, {"layers": 3}),
    (7, {"variant": "deq", "output_layer": True}), (11, {"variant": "deq", "skip": False}), (19, {"layers": 1}),
    (19, {"layers": 3, "skip": False}), (19, {"variant": "deq-released"}),
    (19, {"variant": "deq", "gradient": deq.Exact(3)})], ids=str)
def test_fast_forms_are_the_plain_formulas(seed, objective, dim, options):
    """Normal equations, values and the whole loss's gradient, alpha's graph included, written out and factored.

    Five wide, three kernels: slopes are factored above dim 5, G comes from Gram matrices above dim 15.
    """
    model, x, generator = model_and_rows(seed, rows=12, dim=dim, **options)
    draws = losses.draw_projections(x, generator=generator)[0].split(6)
    parameters = [p for p in model.parameters() if p is not model.log_ridge]

    def everything(form):
        fit, held = (form(model, rows, objective, draw) for rows, draw in zip(x.split(6), draws, strict=True))
        gram, linear = fit.normal_equations()
        alpha = solve_alpha(gram, linear, 6, model.log_ridge)
        loss = held.values(alpha).mean()
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        # gradients together: some are zero by symmetry, and rounding knows the size of the others only
        return [gram, linear, held.values(model.alpha), alpha, loss, torch.cat([g.flatten() for g in gradients])]

    got = everything(lambda model, rows, kind, v: quadratic(model, rows, kind, projections=v))
    for a, b in zip(got, everything(plain_quadratic), strict=True):
        close(a, b)


def test_released_variant_agrees_with_autograd_too(seed):
    model, x, _ = model_and_rows(seed, variant="deq-released", gradient=deq.Phantom(3))
    parameters = [p for p in model.parameters() if p is not model.log_ridge]
    got = quadratic(model, x).values(model.alpha).mean()
    expected = losses.score_matching(model.log_density, x)
    for a, b in zip(torch.autograd.grad(got, parameters), torch.autograd.grad(expected, parameters), strict=True):
        close(a, b)


def test_exact_rule_is_a_long_unroll(seed):
    """The truth of the equilibrium model: 200 applications of f with autograd on, |W|_F < 1."""
    model, x, _ = model_and_rows(seed, variant="deq", gradient=deq.Exact(3), tol=1e-14)
    parameters = [p for p in model.parameters() if p is not model.log_ridge]
    got = torch.autograd.grad(quadratic(model, x).values(model.alpha).mean(), parameters)
    model.features.gradient = deq.Phantom(60)       # from the fixed point: q^60 with q about 0.4 is below 1e-20
    unrolled = torch.autograd.grad(quadratic(model, x).values(model.alpha).mean(), parameters)
    for a, b in zip(got, unrolled, strict=True):
        close(a, b, 1e5)
    model.features.gradient = deq.Phantom(1)
    phantom = torch.autograd.grad(quadratic(model, x).values(model.alpha).mean(), parameters)
    gaps = [float((a - b).norm() / b.norm()) for a, b in zip(phantom, unrolled, strict=True) if b.norm() > 1e-6]
    assert max(gaps) > 1e-2


def test_alpha_minimises_the_objective_plus_ridge(seed):
    model, x, _ = model_and_rows(seed, rows=30)
    form = quadratic(model, x)
    alpha = solve_alpha(*form.normal_equations(), len(x), model.log_ridge).detach().requires_grad_()
    total = form.values(alpha).mean() + 0.5 * 10**model.log_ridge * alpha.square().sum()
    slope, = torch.autograd.grad(total, alpha)
    size = torch.autograd.grad(form.values(torch.zeros_like(alpha).requires_grad_()).mean(), model.inducing)[0].norm()
    assert slope.norm() < 1e6 * EPS * (1 + size)          # condition of G + 1e-2 I is below 1e6 here


def test_the_ridge_of_denoising_stands_beside_the_scaled_objective_as_released(seed):
    """Alpha minimises `0.5 |sigma^2 s + sigma e|^2 + ridge / 2 |alpha|^2`, by autograd of the general loss."""
    model, x, generator = model_and_rows(seed, rows=30)
    noise, sigma = torch.randn(x.shape, generator=generator, dtype=x.dtype), 0.16
    form = quadratic(model, x, "dsm", projections=noise, sigma=sigma)
    alpha = solve_alpha(*form.normal_equations(), len(x), model.log_ridge).detach().requires_grad_()

    def slope(alpha):
        loss = losses.denoising_score_matching(lambda rows: model.log_density(rows, alpha), x, sigma, noise=noise)
        return torch.autograd.grad(sigma**4 * loss + 0.5 * 10**model.log_ridge * alpha.square().sum(), alpha)[0]

    start = slope(torch.zeros_like(alpha).requires_grad_()).norm()
    assert slope(alpha).norm() < 1e4 * EPS * (1 + start)       # the ridge of 1e-2 keeps the condition below 1e3
    assert start > 1e-4


def test_alpha_graph_reaches_every_parameter(seed):
    model, x, _ = model_and_rows(seed, rows=20, variant="deq")
    fit, held = x[:10], x[10:]

    def loss():
        alpha = solve_alpha(*quadratic(model, fit).normal_equations(), len(fit), model.log_ridge)
        return quadratic(model, held).values(alpha).mean()

    gradient = torch.autograd.grad(loss(), model.log_ridge)[0]
    with torch.no_grad():
        values = []
        for step in (1e-5, -2e-5):
            model.log_ridge += step
            values.append(float(loss()))
    # central difference with step h: h^2 times a third derivative of order one, and eps / h
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(float(gradient), rel=1e-4, abs=1e-6)


def test_sums_over_chunks_are_sums_over_the_whole(seed):
    model, x, _ = model_and_rows(seed, rows=23)
    whole = fit_alpha(model, x)
    pieces = fit_alpha(model, x, chunk=5)
    for a, b in zip(whole, pieces, strict=True):
        close(b, a)
    close(evaluate(model, x, chunk=4), evaluate(model, x))


@pytest.mark.parametrize("objective", ["sm", "ssm"])
def test_the_ridge_stage_descends_the_mean_over_the_rows(seed, objective):
    model, x, _ = model_and_rows(seed, rows=23)
    mean = validation_mean(model, x, objective, generator=torch.Generator().manual_seed(1))
    projections = losses.draw_projections(x, generator=torch.Generator().manual_seed(1))[0]
    close(mean(model.alpha), plain_quadratic(model, x, objective, projections).values(model.alpha).mean())


def test_a_training_step_descends_the_second_half_with_alpha_of_the_first(seed):
    model, x, _ = model_and_rows(seed, rows=12, dim=19, variant="deq")
    alpha = solve_alpha(*plain_quadratic(model, x[:6], "sm", None).normal_equations(), 6, model.log_ridge)
    close(halves_loss(model, x), plain_quadratic(model, x[6:], "sm", None).values(alpha).mean())


def test_score_is_the_gradient_of_the_log_density(seed):
    model, x, _ = model_and_rows(seed, variant="deq", gradient=deq.Exact(3))
    close(model.score(x), losses.score_of(model.log_density)(x.requires_grad_()).detach())


def test_rules_are_not_taken_beyond_their_order(seed):
    model, x, _ = model_and_rows(seed, variant="deq", gradient=deq.Exact(2))
    with torch.no_grad():
        quadratic(model, x)                            # second order in x alone
    with pytest.raises(deq.DerivativeOrderError, match="order 3"):
        quadratic(model, x)
    model.features.allow_beyond_order = True
    quadratic(model, x)


@pytest.mark.parametrize(("options", "message"), [
    ({"variant": "deep"}, "deep"), ({"width": 0}, "width"), ({"variant": "deq", "margin": 1.0}, "margin"),
    ({"variant": "deq-released", "gradient": deq.Exact(3)}, "Exact"),
    ({"variant": "deq-released", "gradient": deq.Phantom(2, damping=0.5)}, "damping")])
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DKEF(3, **options)


def test_bad_calls_are_named(seed):
    model, x, _ = model_and_rows(seed)
    with pytest.raises(ValueError, match="mle"):
        quadratic(model, x, "mle")
    with pytest.raises(ValueError, match="x must be"):
        model.log_density(x[0])
    with pytest.raises(ValueError, match="inducing"):
        model.place_inducing(x[:3])
    model, x, _ = model_and_rows(seed, variant="deq", max_iter=1)
    with pytest.raises(deq.NotConverged):
        model.score(x)
