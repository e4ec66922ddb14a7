"""Enclosures against 50-digit values, closed forms and float autodiff; refusals where nothing can be proved."""

import mpmath
import numpy as np
import pytest
import torch
from flint import arb
from hypothesis import given
from hypothesis import strategies as st

from analysis.rigorous import balls, contraction, jets, maps, smooth
from analysis.rigorous.certainty import Certainty, as_arb, contains, less, less_equal
from analysis.rigorous.equilibrium import enclose_derivatives, enclose_equilibrium, jacobians
from analysis.rigorous.phantom import enclose_phantom_derivatives, phantom_errors, score_of
from analysis.rigorous.reference import HIGH_PRECISION, layer_reference


def draw_layer(rng, size, inputs, gain=0.8):
    weight = rng.normal(size=(size, size))
    weight *= gain / np.linalg.norm(weight, 2)
    return weight, rng.normal(size=(size, inputs)), rng.normal(size=size), rng.normal(size=inputs)


def encloses(ball, value):
    return contains(ball, value) is Certainty.CERTAINLY


@given(seed=st.integers(0, 10**6), size=st.integers(1, 6), inputs=st.integers(1, 3), gain=st.floats(0.05, 0.95),
       activation=st.sampled_from(sorted(HIGH_PRECISION)))
def test_fifty_digit_values_lie_inside(seed, size, inputs, gain, activation):
    rng = np.random.default_rng(seed)
    w, u, b, x = draw_layer(rng, size, inputs, gain)
    truth = layer_reference(w, u, b, activation, x, steps=3)
    with balls.working_precision(128), mpmath.workdps(70):
        point = enclose_equilibrium(maps.Layer.from_arrays(w, u, b, activation), x, size)
        exact = enclose_derivatives(point, jets.laplacian_pairs(inputs))
        phantom = enclose_phantom_derivatives(point, 3, jets.laplacian_pairs(inputs))[3]
        for enclosure, values in ((point.z, truth.z), (exact.first, truth.first), (exact.second, truth.laplacian),
                                  (phantom.first, truth.phantom_first), (phantom.second, truth.phantom_laplacian)):
            assert all(encloses(ball, value) for ball, value in zip(enclosure.entries(), values, strict=True))
            # 128 bits leave 38 digits; conditioning of I - J costs few of them at gain 0.95
            assert max(float(ball.rad()) for ball in enclosure.entries()) < 1e-30
            nearby = [arb(ball.mid() + 4 * ball.rad() + arb("1e-45"), ball.rad()) for ball in enclosure.entries()]
            missed = [encloses(ball, value) for ball, value in zip(nearby, values, strict=True)]
            assert not all(missed)


def test_hessian_columns_sum_to_the_laplacian_and_agree_with_autodiff(rng):
    w, u, b, x = draw_layer(rng, 5, 3)
    with balls.working_precision(128):
        point = enclose_equilibrium(maps.Layer.from_arrays(w, u, b, "tanh"), x, 5)
        whole, trace = enclose_derivatives(point), enclose_derivatives(point, jets.laplacian_pairs(3))
        for row, total in zip(whole.second.tolist(), trace.second.entries(), strict=True):
            diagonal = [entry for entry, ((i, j),) in zip(row, whole.pairs, strict=True) if i == j]
            assert sum(diagonal, arb(0)).overlaps(total)
        hessian = balls.to_float(whole.second)

    def unrolled(v):
        z = torch.zeros(5, dtype=torch.float64)
        for _ in range(200):  # 0.8^200 < 1e-19
            z = torch.tanh(torch.tensor(w) @ z + torch.tensor(u) @ v + torch.tensor(b))
        return z

    for unit in range(5):
        reference = torch.autograd.functional.hessian(lambda v, k=unit: unrolled(v)[k], torch.tensor(x)).numpy()
        upper = reference[np.triu_indices(3)]
        # float64 rounding through some 40 relevant steps, second derivatives of order ten
        np.testing.assert_allclose(hessian[unit], upper, atol=1e-12)


def test_stack_jacobian_is_the_product_of_layers(rng):
    w1, w2, u = rng.normal(size=(6, 4)), rng.normal(size=(4, 6)), rng.normal(size=(6, 2))
    b1, b2, z, x = rng.normal(size=6), rng.normal(size=4), rng.normal(size=4), rng.normal(size=2)
    stack = maps.stack_from_arrays([(w1, b1, "softplus"), (w2, b2, "swish")], u, scale=0.25, skip=0.5)
    jacobian, inputs = jacobians(stack, balls.column(z), balls.column(x), 4)

    def f(z, x):
        inner = torch.nn.functional.softplus(torch.tensor(w1) @ z + torch.tensor(u) @ x + torch.tensor(b1))
        return 0.25 * torch.nn.functional.silu(torch.tensor(w2) @ inner + torch.tensor(b2)) + 0.5 * z

    by_torch = torch.func.jacrev(f, argnums=(0, 1))(torch.tensor(z), torch.tensor(x))
    np.testing.assert_allclose(balls.to_float(jacobian), by_torch[0].numpy(), atol=1e-14)
    np.testing.assert_allclose(balls.to_float(inputs), by_torch[1].numpy(), atol=1e-14)


def test_convolution_matrix_is_torchs(rng):
    kernel, image = rng.normal(size=(2, 3, 3, 5)), rng.normal(size=(3, 4, 6))
    dense = maps.convolution_matrix(kernel, 4, 6)
    wanted = torch.nn.functional.conv2d(torch.tensor(image)[None], torch.tensor(kernel), padding=(1, 2))
    np.testing.assert_allclose(dense @ image.ravel(), wanted.numpy().ravel(), atol=1e-13)
    with pytest.raises(ValueError, match="odd"):
        maps.convolution_matrix(np.ones((1, 1, 2, 2)), 4, 4)


def test_kernel_readout_score_is_autodiffs(rng):
    w, u, b, x = draw_layer(rng, 4, 2)
    out, skip, shift = rng.normal(size=(3, 4)), rng.normal(size=(3, 2)), rng.normal(size=3)
    inducing, alpha = rng.normal(size=(5, 3)), rng.normal(size=5)
    terms = tuple(maps.KernelTerm(balls.matrix(out), balls.matrix(skip), balls.column(shift),
                                  balls.matrix(inducing.T.copy()), arb(weight), arb(scale))
                  for weight, scale in ((0.25, 2.25), (0.75, 4.0)))
    readout = maps.KernelReadout(terms, balls.matrix(alpha[None]), 2.0)
    with balls.working_precision(128):
        point = enclose_equilibrium(maps.Layer.from_arrays(w, u, b, "softplus"), x, 4)
        score = score_of(point, enclose_derivatives(point, jets.laplacian_pairs(2)), readout)

    def log_density(v):
        z = torch.zeros(4, dtype=torch.float64)
        for _ in range(200):
            z = torch.nn.functional.softplus(torch.tensor(w) @ z + torch.tensor(u) @ v + torch.tensor(b))
        gap = torch.tensor(out) @ z + torch.tensor(skip) @ v + torch.tensor(shift) - torch.tensor(inducing)
        squares = (gap ** 2).sum(1)
        kernels = 0.25 * torch.exp(-squares / 4.5) + 0.75 * torch.exp(-squares / 8)
        return torch.tensor(alpha) @ kernels - (v ** 2).sum() / (2 * 2.0 ** 2)

    gradient = torch.func.grad(log_density)(torch.tensor(x)).numpy()
    hessian = torch.autograd.functional.hessian(log_density, torch.tensor(x)).numpy()
    np.testing.assert_allclose(balls.to_float(score.value).ravel(), gradient, atol=1e-12)
    np.testing.assert_allclose(float(score.second[0, 0].mid()), np.trace(hessian), atol=1e-11)


@pytest.mark.parametrize("name", sorted(smooth.BALL_ACTIVATIONS))
@given(centre=st.floats(-8, 8), radius=st.sampled_from([0.0, 1e-9, 1e-3, 0.5, 3.0]), where=st.floats(-1, 1))
def test_activation_enclosures_contain_point_values(name, centre, radius, where):
    activation = smooth.ball_activation(name)
    if name == "log":
        centre = abs(centre) + radius + 0.1
    with balls.working_precision(100):
        ball, point = arb(centre, radius), arb(centre) + arb(radius) * arb(where)
        for order in range(3):
            try:
                wide = activation.derivative(order, ball)
            except smooth.NotSmooth:
                assert activation.touches_kink(ball)
                continue
            assert wide.overlaps(activation.derivatives[order](point))
        # difference quotients over the ball lie in the slope enclosure
        step = arb(radius)
        if radius:
            a, b = arb(centre) - step, point
            quotient = (activation.derivatives[0](b) - activation.derivatives[0](a)) / (b - a)
            if quotient.is_finite():
                assert activation.slope(ball).overlaps(quotient)
        if activation.slope_bounds:
            assert activation.slope_everywhere().overlaps(activation.slope(ball))


@pytest.mark.parametrize("name", [k for k, v in smooth.BALL_ACTIVATIONS.items() if v.slope_bounds])
def test_slope_bounds_hold_on_the_line(name):
    activation = smooth.ball_activation(name)
    slack = arb(0, 1e-8 if activation.kinks else 0)  # a ball's radius has 30 bits; kinked slopes are 0 and 1 themselves
    whole = activation.slope_everywhere() + slack
    formula, bend = activation.derivatives[1:]
    for cell in range(-6000, 6000):  # cells of width 1/200 cover [-30, 30]; beyond, the tails are monotone
        ball = arb((cell + 0.5) / 200, 0.5 / 200 + 1e-12)
        if activation.slope_shape or activation.kinks:
            slope = activation.slope(ball)
        else:  # by hand, because `slope` cuts with the bounds that are on trial
            slope = formula(ball).intersection(formula(ball.mid()) + bend(ball) * (ball - ball.mid()))
        assert contains(whole, slope) is not Certainty.CERTAINLY_NOT
        assert less_equal(slope.upper(), whole.upper()).certain or name in TOUCHING
        assert less_equal(whole.lower(), slope.lower()).certain or name in TOUCHING


TOUCHING = ("sin", "cos")  # their bounds are attained in the middle of cells, where enclosures must reach beyond


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_norms_bound_from_above_and_closely(seed, rows, columns):
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    exact = balls.matrix(values)
    for bound, order in ((balls.norm_inf, np.inf), (balls.norm_one, 1), (balls.norm_two, 2)):
        wanted = np.linalg.norm(values, order)
        size = float(bound(exact))
        assert wanted * (1 - 1e-13) <= size <= wanted * 1.01
    spread = balls.widened(exact, balls.matrix(np.full((rows, columns), 0.1)))
    assert float(balls.norm_two(spread)) >= np.linalg.norm(values + 0.1 * np.sign(values), 2) * (1 - 1e-13)
    assert less_equal(balls.norm_two(balls.zeros(2, 2)), 0).certain


def test_decimal_ends_lie_outside(rng):
    for value in rng.normal(size=20) * 10.0 ** rng.integers(-30, 30, size=20):
        ball = arb(float(value), abs(float(value)) * 1e-20)
        ends = balls.decimal(ball)
        with balls.working_precision(300):
            assert less_equal(ends["low"], ball.lower()).certain
            assert less_equal(ball.upper(), ends["high"]).certain
            assert contains(balls.from_decimal(ends), ball).certain
    with pytest.raises(balls.NotCertified, match="infinite"):
        balls.decimal(arb("nan"))


@pytest.mark.parametrize(("gain", "name"), [(0.8, "two"), (2.0, "")])
def test_contraction_holds_for_random_pairs(rng, gain, name):
    w, u, b, x = draw_layer(rng, 12, 3, gain)
    layer = maps.Layer.from_arrays(w, u, b, "tanh")
    with balls.working_precision(128):
        point = enclose_equilibrium(layer, x, 12)
        proved = contraction.certify_contraction(layer, point.x, balls.midpoints(point.z))
    assert not name or (proved.norm.name == name and proved.radius is None)
    transform = np.eye(12) if proved.norm.transform is None else balls.to_float(proved.norm.transform)
    order = {"inf": np.inf, "one": 1, "two": 2}[proved.norm.base]
    centre, reach = balls.to_float(proved.centre).ravel(), 5.0 if proved.radius is None else proved.radius
    for _ in range(50):
        offsets = [np.linalg.solve(transform, v) for v in rng.normal(size=(2, 12))]
        pair = [centre + v * reach * rng.uniform() / np.linalg.norm(transform @ v, order) for v in offsets]
        images = [np.tanh(w @ z + u @ x + b) for z in pair]
        before, after = (np.linalg.norm(transform @ (p[0] - p[1]), order) for p in (pair, images))
        assert after <= float(proved.factor) * before * (1 + 1e-9)


def test_where_every_norm_fails_krawczyk_still_proves():
    layer = maps.Layer.from_arrays([[-9.0]], [[1.0]], [0.5], "softplus")
    point = enclose_equilibrium(layer, [1.0], 1)
    with pytest.raises(balls.NotCertified, match="none of the norms"):
        contraction.certify_contraction(layer, point.x, balls.midpoints(point.z))
    _, (one, eight) = phantom_errors(point, maps.QuadraticReadout.from_arrays([1.0]), [1, 8])
    assert less(one.score, eight.score).certain  # the phantom diverges, and that is certified


def test_refusals_name_the_trouble():
    with pytest.raises(balls.NotCertified, match="singular"):  # J = 1 at every point
        enclose_equilibrium(maps.Layer.from_arrays([[1.0]], [[1.0]], [1.0], "identity"), [1.0], 1)
    with pytest.raises(balls.NotCertified, match="no rigorous enclosure: unknown activation 'mish'"):
        maps.Layer.from_arrays([[1.0]], [[1.0]], [1.0], "mish")
    with pytest.raises(ValueError, match=r"W is not finite|entry \(0, 0\) is nan"):
        maps.Layer.from_arrays([[np.nan]], [[1.0]], [1.0], "tanh")
    with pytest.raises(ValueError, match="shapes do not fit"):
        maps.Layer.from_arrays(np.eye(2), np.eye(3), np.ones(2), "tanh")
    with pytest.raises(ValueError, match="at least 24 bits"), balls.working_precision(3):
        pass
    kinked = maps.Layer.from_arrays([[0.5]], [[1.0]], [0.0], "relu")
    at_kink = enclose_equilibrium(kinked, [0.0], 1)
    with pytest.raises(smooth.NotSmooth, match="unit 0: derivative 1 of relu"):
        enclose_derivatives(at_kink)
    away = enclose_equilibrium(kinked, [1.0], 1)
    first = enclose_derivatives(away).first[0, 0]
    assert contains(first, as_arb("2.0")).certain
    with pytest.raises(ValueError, match="negative"):
        enclose_phantom_derivatives(away, -1, jets.laplacian_pairs(1))


def test_damping_and_order_zero_phantom(rng):
    w, u, b, x = draw_layer(rng, 3, 2)
    point = enclose_equilibrium(maps.Layer.from_arrays(w, u, b, "tanh"), x, 3)
    pairs = jets.hessian_pairs(2)
    start, half = enclose_phantom_derivatives(point, 1, pairs, damping=0.5)
    assert balls.to_float(start.first).any() == np.False_
    plain = enclose_phantom_derivatives(point, 1, pairs)[1]
    np.testing.assert_allclose(balls.to_float(half.first), 0.5 * balls.to_float(plain.first), rtol=1e-14)
    np.testing.assert_allclose(balls.to_float(half.second), 0.5 * balls.to_float(plain.second), rtol=1e-14)


def test_a_map_of_two_layers_is_certified_like_one(rng):
    weights = [rng.normal(size=(6, 4)), rng.normal(size=(4, 6))]
    weights = [w * 0.8 / np.linalg.norm(w, 2) for w in weights]
    u, b1, b2 = rng.normal(size=(6, 2)), rng.normal(size=6), rng.normal(size=4)
    x, a = rng.normal(size=2), rng.normal(size=4)
    stack = maps.stack_from_arrays([(weights[0], b1, "softplus"), (weights[1], b2, "tanh")], u, skip=0.2)

    def unrolled(v, z, steps):
        for _ in range(steps):
            inner = torch.nn.functional.softplus(torch.tensor(weights[0]) @ z + torch.tensor(u) @ v + torch.tensor(b1))
            z = torch.tanh(torch.tensor(weights[1]) @ inner + torch.tensor(b2)) + 0.2 * z
        return torch.tensor(a) @ z, z

    with balls.working_precision(128):
        point = enclose_equilibrium(stack, x, 4)
        proved = contraction.certify_contraction(stack, point.x, balls.midpoints(point.z))
        score, (error,) = phantom_errors(point, maps.QuadraticReadout.from_arrays(a), [2])
    assert proved.radius is None
    assert proved.norm.name == "two"
    # at most |W2| |W1| + skip, up to the slack of the norm's bound; at least what random pairs show
    assert float(proved.factor) <= (0.64 + 0.2) * 1.01
    pairs = [tuple(torch.tensor(3 * v) for v in rng.normal(size=(2, 4))) for _ in range(50)]
    shown = [float((unrolled(torch.tensor(x), p, 1)[1] - unrolled(torch.tensor(x), q, 1)[1]).norm() / (p - q).norm())
             for p, q in pairs]
    assert max(shown) <= float(proved.factor)
    start = torch.zeros(4, dtype=torch.float64)
    exact = torch.autograd.functional.hessian(lambda v: unrolled(v, start, 250)[0], torch.tensor(x))
    z_star = unrolled(torch.tensor(x), start, 250)[1]
    rough = torch.autograd.functional.hessian(lambda v: unrolled(v, z_star, 2)[0], torch.tensor(x))
    assert float(score.second[0, 0].mid()) == pytest.approx(float(exact.trace()), abs=1e-12)
    assert float(error.trace.mid()) == pytest.approx(abs(float((exact - rough).trace())), abs=1e-12)


@pytest.mark.parametrize(("radius", "proved"), [(1.0, False), (4.0, False), (4.9, False), (6.0, True)])
def test_banach_needs_a_residual_below_the_part_that_contraction_leaves(radius, proved):
    """f(z) = 0.9 z + 0.5 about 0: residual 0.5, so balls of radius r are mapped into themselves for 0.1 r >= 0.5."""
    with balls.working_precision(128):
        layer = maps.Layer.from_arrays([[0.9]], [[1.0]], [0.5], "identity")
        zero = balls.column([0.0])
        found = contraction.banach(layer, zero, zero, contraction.Norm("inf", "inf"), radius)
    assert found[2] is proved
    assert float(found[1]) == pytest.approx(0.5)
