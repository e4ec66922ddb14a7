import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deq import losses

EPS = torch.finfo(torch.float64).eps


def gaussian(generator, d):
    """A correlated Gaussian: precision matrix, mean and unnormalised log density."""
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    precision = root @ root.T / d + torch.eye(d, dtype=torch.float64)
    mean = torch.randn(d, generator=generator, dtype=torch.float64)

    def log_density(x):
        return -0.5 * torch.einsum("bi,ij,bj->b", x - mean, precision, x - mean)

    return precision, mean, log_density


def network(generator, d, width=7, depth=2):
    """A smooth random network, given as its layers: linear and softplus in turn, weighted tanhs at the end."""
    layers, parameters, n = [], [], d
    for _ in range(depth):
        w = (torch.randn(width, n, generator=generator, dtype=torch.float64) / n**0.5).requires_grad_()
        parameters.append(w)
        layers += [lambda y, w=w: y @ w.T, torch.nn.functional.softplus]
        n = width
    a = torch.randn(width, generator=generator, dtype=torch.float64).requires_grad_()
    layers.append(lambda y: torch.tanh(y) @ a)
    return layers, [*parameters, a]


def compose(layers):
    def log_density(x):
        for layer in layers:
            x = layer(x)
        return x

    return log_density


def per_sample_truth(log_density, x):
    """Score and Hessian of each sample by torch.func, one sample at a time."""
    single = lambda y: log_density(y[None])[0]  # noqa: E731
    return (torch.stack([torch.func.grad(single)(row) for row in x]),
            torch.stack([torch.func.hessian(single)(row) for row in x]))


def draw(generator, batch, d):
    return torch.randn(batch, d, generator=generator, dtype=torch.float64)


@given(d=st.integers(1, 9), batch=st.integers(1, 5), seed=st.integers(0, 2**20),
       chunk=st.sampled_from([None, 1, 3]), mode=st.sampled_from(["reverse", "forward"]))
def test_exact_objective_of_a_gaussian_has_its_closed_form(d, batch, seed, chunk, mode):
    generator = torch.Generator().manual_seed(seed)
    precision, mean, log_density = gaussian(generator, d)
    x = draw(generator, batch, d)
    score = -(x - mean) @ precision
    expected = 0.5 * score.square().sum(1) - precision.trace()
    got = losses.score_matching(log_density, x, reduction="none", mode=mode, chunk=chunk)
    # sums of at most d^2 products, each exact to eps
    scale = score.square().sum(1) + precision.abs().sum()
    assert torch.all((got - expected).abs() <= 8 * (d + 1) ** 2 * EPS * scale)
    assert losses.score_matching(log_density, x).item() == pytest.approx(expected.mean().item(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_trace_and_parameter_gradient_agree_with_a_dense_hessian(generator, mode):
    layers, parameters = network(generator, d=4)
    x = draw(generator, 6, 4)
    loss = losses.score_matching(compose(layers), x, mode=mode)
    s, hessian = per_sample_truth(compose(layers), x)
    truth = (0.5 * s.square().sum(1) + hessian.diagonal(dim1=1, dim2=2).sum(1)).mean()
    got = torch.autograd.grad(loss, parameters)
    expected = torch.autograd.grad(truth, parameters)
    for a, b in zip(got, expected, strict=True):
        # third derivatives of a net of width 7: below a thousand roundings of numbers of order one
        torch.testing.assert_close(a, b, rtol=1e3 * EPS, atol=1e3 * EPS)
        assert b.norm() > 1e-3


def test_a_quadratic_form_in_images_is_traced_over_all_pixels(generator):
    x = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    got = losses.score_matching(lambda y: -0.5 * y.square().flatten(1).sum(1), x, reduction="none", chunk=5)
    expected = 0.5 * x.square().flatten(1).sum(1) - 32
    torch.testing.assert_close(got, expected, rtol=100 * EPS, atol=100 * EPS)


@pytest.mark.parametrize("variance_reduced", [False, True])
def test_sliced_objective_averages_to_the_exact_one_over_all_sign_vectors(generator, variance_reduced):
    d = 4
    layers, _ = network(generator, d)
    x = draw(generator, 3, d)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=d)), dtype=torch.float64)
    every = signs[:, None, :].expand(-1, 3, -1)    # E v v^T = I exactly over the 16 sign vectors
    got = losses.sliced_score_matching(compose(layers), x, variance_reduced=variance_reduced, projections=every,
                                       reduction="none")
    expected = losses.score_matching(compose(layers), x, reduction="none")
    torch.testing.assert_close(got, expected, rtol=1e3 * EPS, atol=1e3 * EPS)


@given(seed=st.integers(0, 2**20), variance_reduced=st.booleans(), distribution=st.sampled_from(
    ["rademacher", "gaussian", "sphere"]))
def test_sliced_objective_of_a_gaussian_for_given_directions(seed, variance_reduced, distribution):
    generator = torch.Generator().manual_seed(seed)
    precision, mean, log_density = gaussian(generator, 5)
    x = draw(generator, 4, 5)
    v = losses.draw_projections(x, distribution=distribution, generator=generator)[0]
    s = -(x - mean) @ precision
    first = s.square().sum(1) if variance_reduced else (s * v).sum(1) ** 2
    expected = 0.5 * first - torch.einsum("bi,ij,bj->b", v, precision, v)
    got = losses.sliced_score_matching(log_density, x, variance_reduced=variance_reduced, projections=v,
                                       reduction="none")
    scale = (s.square().sum(1) * v.square().sum(1) + precision.abs().sum() * v.square().sum(1)).max()
    assert (got - expected).abs().max() <= 100 * 25 * EPS * scale
    if distribution != "gaussian":
        torch.testing.assert_close(v.square().sum(1), torch.full((4,), 5.0, dtype=torch.float64), rtol=50 * EPS, atol=0)


def test_projections_are_isotropic(generator):
    """Second moments over N draws: standard error at most sqrt(2/N); six of them is a false alarm of 1e-8 in all."""
    x = torch.zeros(40_000, 3, dtype=torch.float64)
    for distribution in ("rademacher", "gaussian", "sphere"):
        v = losses.draw_projections(x, distribution=distribution, generator=generator)[0]
        assert (v.T @ v / len(v) - torch.eye(3)).abs().max() < 6 * (2 / len(v)) ** 0.5


def test_denoising_objective_by_hand(generator):
    precision, mean, log_density = gaussian(generator, 3)
    x, noise = draw(generator, 5, 3), draw(generator, 5, 3)
    sigma = torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0], dtype=torch.float64)
    noisy = x + sigma[:, None] * noise
    score = -(noisy - mean) @ precision
    expected = 0.5 * (score + (noisy - x) / sigma[:, None] ** 2).square().sum(1)
    got = losses.denoising_score_matching(log_density, x, sigma, noise=noise, reduction="none")
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=0)   # (noisy - x)/sigma^2 cancels to eps/sigma^2
    scaled = losses.denoising_score_matching(log_density, x, sigma, noise=noise, scaled=True, reduction="none")
    torch.testing.assert_close(scaled, expected * sigma**4, rtol=1e-11, atol=0)


def test_denoising_is_minimal_at_the_smoothed_density(generator):
    """For data N(0, I) and noise sigma the best linear score is -x / (1 + sigma^2)."""
    x = draw(generator, 20_000, 2)
    noise = draw(generator, 20_000, 2)
    sigma = 0.7

    def loss(scale):
        return losses.denoising_score_matching(lambda y: -0.5 * scale * y.square().sum(1), x, sigma, noise=noise)

    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    slope, = torch.autograd.grad(loss(scale), scale, create_graph=True)
    minimum = scale - slope / torch.autograd.grad(slope, scale)[0]          # the loss is a parabola in `scale`
    assert abs(minimum.item() - 1 / (1 + sigma**2)) < 6 * 2 / 20_000**0.5


def test_finite_differences_converge_with_the_square_of_the_step(generator):
    layers, _ = network(generator, 4)
    x, v = draw(generator, 6, 4), None
    v = losses.draw_projections(x, generator=generator)[0]
    exact = losses.sliced_score_matching(compose(layers), x, projections=v, reduction="none")
    errors = [(losses.finite_difference_sliced_score_matching(compose(layers), x, step=step, projections=v,
                                                              reduction="none") - exact).norm()
              for step in (0.02, 0.01)]
    assert 3.9 < errors[0] / errors[1] < 4.1


def test_curvature_propagation_is_unbiased_over_every_draw(generator, monkeypatch):
    """Enumerate all signs of a net small enough: the mean over all draws is the exact objective."""
    layers, parameters = network(generator, d=2, width=2, depth=1)
    x = draw(generator, 3, 2)
    expected = losses.score_matching(compose(layers), x)
    got = torch.zeros((), dtype=torch.float64)
    combinations = list(itertools.product([0, 1], repeat=6))               # three layers with two inputs each
    for signs in combinations:
        queue = [torch.tensor(signs[i:i + 2]).expand(3, 2) for i in (0, 2, 4)]
        monkeypatch.setattr(torch, "randint", lambda *a, _queue=queue, **k: _queue.pop(0))
        got = got + losses.curvature_propagation(layers, x) / len(combinations)
    torch.testing.assert_close(got, expected, rtol=1e3 * EPS, atol=1e3 * EPS)
    for a, b in zip(torch.autograd.grad(got, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e4 * EPS, atol=1e4 * EPS)


def test_approximate_backpropagation_is_exact_for_one_hidden_layer_and_not_for_two(generator):
    w = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    layers = [lambda y: y @ w.T, torch.nn.functional.softplus, lambda y: y.sum(1)]
    x = draw(generator, 4, 3)
    expected = losses.score_matching(compose(layers), x)
    torch.testing.assert_close(losses.approximate_backpropagation(layers, x), expected, rtol=1e3 * EPS, atol=1e3 * EPS)
    deep, _ = network(generator, 3, depth=2)
    gap = losses.approximate_backpropagation(deep, x) - losses.score_matching(compose(deep), x)
    assert gap.abs() > 1e-3


def test_fisher_divergence_is_score_matching_up_to_a_constant(generator):
    """With empirical moments made exact (x and -x, whitened), Fisher = SM + tr(precision)/2 for a Gaussian truth."""
    x = draw(generator, 500, 3)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / len(x))).T
    model = lambda y: -0.5 * (y * y * torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)).sum(1)  # noqa: E731
    fisher = losses.fisher_divergence(model, x, lambda y: -y)
    torch.testing.assert_close(fisher, losses.score_matching(model, x) + 1.5, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("call", "message"), [
    (lambda x: losses.score_matching(lambda y: y.sum(), x), "log_density must map"),
    (lambda x: losses.score_matching(lambda y: y.sum(1), x.long()), "floating-point"),
    (lambda x: losses.score_matching(lambda y: y.sum(1), x, mode="sideways"), "sideways"),
    (lambda x: losses.score_matching(lambda y: y.sum(1), x, reduction="total"), "total"),
    (lambda x: losses.score_matching(lambda y: y.sum(1), x, chunk=0), "chunk"),
    (lambda x: losses.score_matching(lambda y: y.detach().sum(1), x), "no_grad"),
    (lambda x: losses.sliced_score_matching(lambda y: y.sum(1), x, projections=x[:1]), "projections"),
    (lambda x: losses.sliced_score_matching(lambda y: y.sum(1), x, distribution="unit"), "unit"),
    (lambda x: losses.denoising_score_matching(lambda y: y.sum(1), x, 0.0), "sigma"),
    (lambda x: losses.finite_difference_sliced_score_matching(lambda y: y.sum(1), x, step=-1.0), "step"),
    (lambda x: losses.curvature_propagation([], x), "no layers"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(4, 2, dtype=torch.float64))
