"""Exact kernels of implicit and explicit networks: residuals, mpmath, sweeps, finite networks, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import analysis
from analysis.activations import ACTIVATIONS, as_activation
from analysis.errors import GrowsTooFast, NoSolution, NotWellPosed
from analysis.kernels import dual
from analysis.kernels.empirical import conjugate_kernel, draw, empirical_ntk, equilibrium
from analysis.kernels.highprec import dual_reference
from analysis.rates import fit_rate

NAMES = ("relu", "tanh", "softplus", "elu", "erf")


@given(name=st.sampled_from(NAMES), sigma_a2=st.floats(0.05, 0.6), a=st.floats(0.3, 1.5), b=st.floats(0.3, 1.5),
       angle=st.floats(0.3, 2.8))
def test_two_by_two_against_mpmath(name, sigma_a2, a, b, angle):
    x = np.array([[a, b * np.cos(angle)], [0.0, b * np.sin(angle)]])
    kernels = analysis.deq_kernels(x, name, sigma_a2)
    s = kernels.covariance
    value, slope = dual_reference(name, s[0, 0], s[1, 1], s[0, 1], digits=15)
    assert abs(kernels.ck[0, 1] - float(value)) <= 1e-10
    assert abs(kernels.ntk[0, 1] - float(value / (1 - sigma_a2 * slope))) <= 1e-10
    gram = x.T @ x
    # S is the fixed point: at contraction q an error e of S shows as a residual of at least (1 - q) e
    assert abs(sigma_a2 * float(value) + (1 - sigma_a2) * gram[0, 1] - s[0, 1]) <= 1e-11
    assert kernels.residual <= 1e-12
    assert kernels.ck_error <= 1e-10
    assert kernels.ntk_error <= 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_diagonal_against_mpmath_in_one_dimension(name):
    kernels = analysis.deq_kernels(np.array([[1.0, 0.3], [0.2, 0.9]]), name, 0.4)
    for i in range(2):
        s = kernels.covariance[i, i]
        value, slope = dual_reference(name, s, s, s, digits=15)
        assert abs(kernels.ck[i, i] - float(value)) <= 1e-11
        assert abs(kernels.ntk[i, i] - float(value / (1 - 0.4 * slope))) <= 1e-11


@pytest.mark.parametrize("activation", [*sorted(set(ACTIVATIONS) - {"step"}), lambda x: np.abs(x - 0.2) + 0.1 * x],
                         ids=lambda a: getattr(as_activation(a), "name", "callable"))
def test_blocks_agree_with_the_elementwise_duals_and_with_sweeps(activation, rng):
    n = 12
    x = rng.standard_normal((40, n)) / np.sqrt(40)
    x[:, 1], x[:, 2], x[:, 3] = x[:, 0], -x[:, 0], x[:, 0] + 1e-3 * x[:, 4]
    kernels = analysis.deq_kernels(x, activation, 0.3)
    s = np.diag(kernels.covariance)
    found = dual(activation, s[:, None], s[None, :], kernels.covariance)
    np.testing.assert_array_less(np.abs(found.value - kernels.ck), kernels.ck_error + found.value_error + 1e-15)
    off = ~np.isclose(np.abs(kernels.covariance), np.sqrt(np.outer(s, s)), rtol=1e-9)
    allowed = kernels.slope_error + found.derivative_error[off].max()
    assert np.abs(found.derivative - kernels.slope)[off].max() <= allowed
    swept = np.zeros_like(kernels.ck)
    for _ in range(60):  # contraction below 0.5: 2^-60
        covariance = 0.3 * swept + 0.7 * (x.T @ x)
        diagonal = np.diag(covariance)
        limit = np.sqrt(np.outer(diagonal, diagonal))
        swept = dual(activation, diagonal[:, None], diagonal[None, :], np.clip(covariance, -limit, limit)).value
        if np.abs(covariance - 0.3 * swept - 0.7 * (x.T @ x)).max() < 1e-13:
            break
    assert np.abs(swept - kernels.ck).max() <= 1e-11
    assert kernels.ck[0, 1] == kernels.ck[0, 0]
    assert kernels.ntk[0, 1] == kernels.ntk[0, 0]


def test_centring_matches_a_shifted_callable(rng):
    x = rng.standard_normal((50, 12)) / np.sqrt(50)
    centred = analysis.deq_kernels(x, "relu", 0.5, centre=True)
    # the tau equation of ReLU, solved by hand
    tau2 = 0.5 * np.mean(np.sum(x * x, axis=0)) / (1 - 0.5 * (0.5 - 1 / (2 * np.pi)))
    assert centred.shift == pytest.approx(np.sqrt(tau2 / (2 * np.pi)), rel=1e-13)
    by_hand = analysis.deq_kernels(x, lambda u: np.maximum(u, 0) - centred.shift, 0.5)
    np.testing.assert_allclose(centred.ck, by_hand.ck, atol=1e-12)
    np.testing.assert_allclose(centred.ntk, by_hand.ntk, atol=1e-10)


def test_unpacking_and_conventions(rng):
    x = rng.standard_normal((8, 5))
    ck, ntk = analysis.deq_kernels(x, "tanh", 0.4)
    full = analysis.deq_kernels(x, "tanh", 0.4, convention="readout+A+B")
    assert full[0] is full.ck
    assert full[1] is full.ntk
    np.testing.assert_array_equal(full.ck, ck)
    extra = 0.6 * (x.T @ x) * full.slope / (1 - 0.4 * full.slope)
    np.testing.assert_allclose(full.ntk, ntk + extra, rtol=1e-13)


def test_linear_network_has_a_closed_form(rng):
    x = rng.standard_normal((6, 4))
    ck, ntk = analysis.deq_kernels(x, "identity", 0.25)
    np.testing.assert_allclose(ck, x.T @ x, rtol=1e-12)  # S = 0.75 X'X / (1 - 0.25)
    np.testing.assert_allclose(ntk, x.T @ x / 0.75, rtol=1e-12)


def test_explicit_relu_network_against_the_arc_cosine_recursion(rng):
    x = rng.standard_normal((20, 7))
    x /= np.linalg.norm(x, axis=0)
    ck, ntk = analysis.explicit_kernels(x, "relu", depth=3, variances=2.0)
    rho = np.clip(x.T @ x, -1, 1)
    tangent = rho
    for _ in range(3):  # He initialisation keeps unit variance in 2 G; Cho and Saul 2009, Jacot et al. 2018
        slope = (np.pi - np.arccos(rho)) / (2 * np.pi)
        rho = (np.sqrt(1 - rho**2) + (np.pi - np.arccos(rho)) * rho) / np.pi
        rho = np.clip(rho, -1, 1)
        tangent = rho + 2 * tangent * slope
    np.testing.assert_allclose(ck, rho, atol=3e-8)  # 1 - rho^2 loses digits near the diagonal in this recursion
    np.testing.assert_allclose(ntk, tangent, atol=1e-6)


def test_deep_explicit_shapes_and_mixed_activations(rng):
    x = rng.standard_normal((10, 300)) / np.sqrt(10)
    result = analysis.explicit_kernels(x, ["tanh", "elu"], variances=[1.5, 0.7], centre=True)
    s = 1.5 * (x.T @ x)
    first = dual("tanh", np.diag(s)[:, None], np.diag(s)[None, :], s).value * 0.7
    second = dual("elu", np.diag(first)[:4, None], np.diag(first)[None, :4], first[:4, :4]).value
    assert result.shifts[1] != 0
    assert result.ck.shape == (300, 300)
    uncentred = analysis.explicit_kernels(x, ["tanh", "elu"], variances=[1.5, 0.7])
    np.testing.assert_allclose(uncentred.ck[:4, :4], second, atol=1e-12)
    assert np.abs(result.ck.mean()) < np.abs(uncentred.ck.mean())


def test_finite_networks_approach_the_limit_and_settle_the_tangent_convention(generator):
    x = torch.randn(6, 4, dtype=torch.float64, generator=generator) / 6**0.5
    limits = {c: analysis.deq_kernels(x.numpy(), "tanh", 0.4, convention=c) for c in ("readout+A", "readout+A+B")}
    widths, repetitions = [16, 48, 144], 6
    errors = {name: np.zeros((len(widths), repetitions)) for name in ("ck", "A", "AB", "wrong")}
    for i, width in enumerate(widths):
        for j in range(repetitions):
            network = draw(width, 6, 0.4, 0.6, torch.tanh, generator)
            h = equilibrium(network, x)
            part, full = (empirical_ntk(network, x, h, with_inputs=flag) for flag in (False, True))
            for name, found, limit in (("ck", conjugate_kernel(h), limits["readout+A"].ck),
                                       ("A", part, limits["readout+A"].ntk), ("AB", full, limits["readout+A+B"].ntk),
                                       ("wrong", full, limits["readout+A"].ntk)):
                errors[name][i, j] = np.linalg.norm(found - limit)
    for name in ("ck", "A", "AB"):
        rate = fit_rate(np.array(widths), errors[name])
        assert rate.high < -0.2, name  # a limit: errors fall; the claims fit the rate itself on more widths
    assert errors["wrong"][-1].mean() > 3 * errors["AB"][-1].mean()


@pytest.mark.parametrize(("x", "activation", "sigma_a2", "options", "error", "message"), [
    (np.ones(3), "tanh", 0.2, {}, ValueError, "matrix"),
    (np.ones((0, 3)), "tanh", 0.2, {}, ValueError, "empty"),
    (np.array([[np.nan, 1.0]]), "tanh", 0.2, {}, ValueError, "not finite"),
    (np.eye(2), "tanh", -0.1, {}, ValueError, "sigma_a2"),
    (np.eye(2), "tanh", 1.5, {}, ValueError, "sigma_b2"),
    (np.eye(2), "tanh", 0.2, {"sigma_b2": -1.0}, ValueError, "sigma_b2"),
    (np.eye(2), "tanh", 0.2, {"convention": "all"}, ValueError, "all"),
    (np.eye(2), "relu", 2.5, {"sigma_b2": 1.0}, NoSolution, "too large"),
    (np.eye(2), "step", 0.5, {}, NotWellPosed, "too large"),
    (np.eye(2), np.sign, 0.5, {}, NotWellPosed, "too large"),
    (0.01 * np.eye(2), "tanh", 1.5, {"sigma_b2": 0.1}, NotWellPosed, "too large"),
    (np.eye(2), lambda u: np.exp(u * u), 0.2, {}, GrowsTooFast, "too fast"),
])
def test_refusals(x, activation, sigma_a2, options, error, message):
    with pytest.raises(error, match=message):
        analysis.deq_kernels(x, activation, sigma_a2, **options)


def test_explicit_refusals():
    with pytest.raises(ValueError, match="at least one layer"):
        analysis.explicit_kernels(np.eye(2), [])
    with pytest.raises(ValueError, match="depth"):
        analysis.explicit_kernels(np.eye(2), ["relu"], depth=2)
    with pytest.raises(ValueError, match="variances"):
        analysis.explicit_kernels(np.eye(2), ["relu", "relu"], variances=[1.0, 1.0, 1.0])


def test_edges_of_the_domain(rng):
    x = rng.standard_normal((5, 3))
    one = analysis.deq_kernels(x[:, :1], "tanh", 0.2)
    assert one.ck.shape == (1, 1)
    zero = analysis.deq_kernels(np.zeros((5, 3)), "relu", 0.5)
    assert np.abs(zero.ck).max() < 1e-60
    assert np.isfinite(zero.ntk).all()
    step = analysis.deq_kernels(x, "step", 0.0)
    angle = np.arccos(x[:, 0] @ x[:, 1] / np.linalg.norm(x[:, 0]) / np.linalg.norm(x[:, 1]))
    assert step.ck[0, 1] == pytest.approx((np.pi - angle) / (2 * np.pi), rel=1e-12)
    assert step.ck_error < 1e-10
    assert step.ntk_error < 1e-10
    large = analysis.deq_kernels(30 * x, "softplus", 0.5)  # arguments to some thousands, exponentials that underflow
    assert np.isfinite(large.ck).all()
    assert large.residual < 1e-8


@pytest.mark.parametrize("name", ["softplus", "tanh"])  # ReLU is solved in closed form, whatever the tolerance
def test_the_error_bound_covers_a_loose_fixed_point(name):
    """With a tolerance of 1e-4 the fixed point is off by far more than the dual activation: the bound must say so."""
    x = np.random.default_rng(3).normal(size=(6, 5)) / 6**0.5
    tight = analysis.deq_kernels(x, name, 0.9)
    loose = analysis.deq_kernels(x, name, 0.9, tolerance=1e-4)
    error = np.abs(loose.ck - tight.ck).max()
    assert error > 100 * tight.ck_error
    assert error <= loose.ck_error + tight.ck_error
