"""Behaviour of the models at tiny widths: densities, inverses, derivatives, equilibria and what is proved of them."""

import math

import pytest
import torch

import deq
from deq.models import NCSN, NICE, SSMVAE, equilibrium_layers
from deq.models.blocks import frobenius_well_posedness, operator_well_posedness
from deq.models.ncsn import VARIANTS as NCSN_VARIANTS
from deq.models.ncsn import geometric_sigmas
from deq.models.refinenet import InstanceNormPlus, RefineBlock


def nice(variant="explicit", dim=6, **options):
    torch.manual_seed(0)
    model = NICE(dim, 12, 3, 4, variant, tol=1e-12, **options).double()
    torch.nn.init.normal_(model.scale, std=0.3)
    return model


def vae(variant="base", **options):
    torch.manual_seed(0)
    return SSMVAE(16, 3, 4, 5, 3, 8, variant, 2, tol=1e-10, **options).double()


@pytest.mark.parametrize("variant", ["explicit", "deq", "deq-released"])
def test_nice_is_a_normalised_density(variant, generator):
    """Change of variables with the dense Jacobian's determinant, which the code never forms."""
    model = nice(variant)
    x = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda y: model.transform(y[None])[0], r) for r in x])
    h = model.transform(x)
    expected = -0.5 * h.square().sum(1) - 3 * math.log(2 * math.pi) + torch.linalg.slogdet(jacobian)[1]
    # a volume-preserving map whatever the shift's derivative, so a phantom gradient does not matter here
    torch.testing.assert_close(model.log_density(x), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("variant", ["explicit", "deq"])
def test_nice_inverse_undoes_the_transform(variant, generator):
    model = nice(variant)
    x = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    # each of four shifts is solved to 1e-12 and both directions differ at most by that, times the scale
    torch.testing.assert_close(model.inverse(model.transform(x)), x, rtol=0, atol=1e-10)
    assert model.sample(7, generator).shape == (7, 6)


def test_nice_refuses_bad_input():
    with pytest.raises(ValueError, match="even"):
        NICE(dim=7)
    with pytest.raises(ValueError, match="unknown variant 'resnet'; known are"):
        NICE(variant="resnet")
    with pytest.raises(ValueError, match=r"\[batch, 6\]"):
        nice().log_density(torch.zeros(2, 5))


@pytest.mark.parametrize("variant", ["base", "aug", "deq", "deq-released"])
def test_vae_shapes_and_gradients(variant, generator):
    model = vae(variant)
    x = torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    z = model.encode(x, generator)
    assert z.shape == (2, 5)
    model.encoder_loss(x, z).mean().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert all(p.grad is None for p in model.score_network.parameters())
    assert model.generate(3, generator).shape == (3, 3, 16, 16)
    assert model.generate(3, generator).abs().max() <= 1


def test_encoder_loss_has_the_gradient_of_the_negative_elbo(generator):
    """With the true score of a Gaussian q, d/dz of the surrogate is d/dz of -log p(x|z) - log p(z) + log q(z)."""
    model = vae()
    model.score_network = _LinearScore()
    x = torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    z = torch.randn(2, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    surrogate = torch.autograd.grad(model.encoder_loss(x, z).sum(), z)[0]
    exact = model.reconstruction_loss(x, z) + 0.5 * z.square().sum(1) - 0.5 * (z / 0.7).square().sum(1)
    torch.testing.assert_close(surrogate, torch.autograd.grad(exact.sum(), z)[0], rtol=1e-10, atol=1e-10)


class _LinearScore(torch.nn.Module):
    def forward(self, z, x):
        return -z / 0.7**2


def test_vae_refuses_bad_input():
    with pytest.raises(ValueError, match="multiple of 16"):
        SSMVAE(image_size=20)
    with pytest.raises(ValueError, match="depth"):
        SSMVAE(variant="aug", depth=0)


@pytest.mark.parametrize("variant", NCSN_VARIANTS)
def test_ncsn_score_scales_with_sigma(variant, generator):
    torch.manual_seed(1)
    model = NCSN(4, 1, variant, tol=1e-10, levels=5, max_iter=400).double()
    x = torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64)
    one, two = (model(x, torch.full((2,), s, dtype=torch.float64)) for s in (0.5, 2.0))
    assert one.shape == x.shape
    torch.testing.assert_close(one, 4 * two, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("variant", ["cascaded", "deq"])
def test_ncsn_treats_samples_apart(variant, generator):
    """Sliced traces need a per-sample score: no entry of one sample may depend on another."""
    torch.manual_seed(1)
    model = NCSN(4, 1, variant, tol=1e-12, levels=5).double()
    x = torch.rand(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    sigma = torch.ones(3, dtype=torch.float64)
    whole = model(x, sigma)
    for index in range(3):
        torch.testing.assert_close(model(x[index:index + 1], sigma[:1])[0], whole[index], rtol=1e-6, atol=1e-7)


def test_instance_norm_plus_against_pytorch(generator):
    x = torch.randn(2, 5, 6, 6, generator=generator, dtype=torch.float64)
    norm = InstanceNormPlus(5).double()
    means = x.mean((2, 3))
    shift = (means - means.mean(1, keepdim=True)) / (means.var(1, keepdim=True) + 1e-5).sqrt()
    expected = torch.nn.functional.instance_norm(x) + (shift * norm.alpha)[..., None, None]
    torch.testing.assert_close(norm(x), expected * norm.gamma[:, None, None], rtol=1e-10, atol=1e-10)


def test_refine_block_refuses_an_unfused_change_of_channels():
    with pytest.raises(ValueError, match="not fused"):
        RefineBlock([8], 4)


def test_sigmas_are_geometric():
    sigmas = geometric_sigmas(50, 0.01, 232)
    ratios = sigmas[1:] / sigmas[:-1]
    torch.testing.assert_close(ratios, torch.full_like(ratios, (0.01 / 50) ** (1 / 231)), rtol=1e-12, atol=0)
    assert sigmas[0] == 50


def test_frobenius_condition_depends_on_the_kernel():
    assert frobenius_well_posedness(1 + 1e-6).proven
    assert frobenius_well_posedness(10.0, 5).contraction == pytest.approx(0.5)
    assert not frobenius_well_posedness(1.1, 5).proven
    assert "no contraction follows" in str(frobenius_well_posedness(2.0, 3))
    assert operator_well_posedness(2.0, 2).contraction == 0.25
    with pytest.raises(ValueError, match="positive"):
        frobenius_well_posedness(0.0)


@pytest.mark.parametrize(("normalization", "margin"), [("frobenius", 10.0), ("operator", 1.25)])
def test_claimed_contraction_of_the_vae_holds(normalization, margin, generator):
    """Adversarial weights: a constant kernel has the largest operator norm for its Frobenius norm."""
    model = vae("deq", normalization=normalization, margin=margin)
    cell = model.score_network.equilibrium.cell
    cell.linear.parametrizations.weight.original.data.fill_(1.0)
    claimed = model.well_posedness
    assert claimed.proven
    z, u = (torch.randn(1, 4, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    jacobian = torch.autograd.functional.jacobian(lambda w: cell(w, u), z).reshape(z.numel(), z.numel())
    assert torch.linalg.matrix_norm(jacobian, 2) <= claimed.contraction


@pytest.mark.parametrize("variant", ["deq", "deq-released"])
def test_claimed_contraction_of_nice_holds(variant, generator):
    model = nice(variant)
    cell = model.shifts[0].equilibrium.cell
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.fill_(3.0)
    z, u = (torch.randn(1, 12, generator=generator, dtype=torch.float64) for _ in range(2))
    jacobian = torch.autograd.functional.jacobian(lambda w: cell(w, u)[0], z)[:, 0]
    assert torch.linalg.matrix_norm(jacobian, 2) <= model.well_posedness.contraction


def test_models_say_what_is_not_proved():
    assert not NCSN(4, 1, "deq").well_posedness.proven
    assert NCSN(4, 1, "deq-contractive").well_posedness.proven
    assert not vae("deq", margin=1.1).well_posedness.proven
    assert NICE(4, 8).well_posedness.proven
    assert "not proven" in str(NCSN(4, 1, "deq-released").well_posedness)


def test_exact_rule_gives_the_true_score_of_nice(generator):
    """The score by central differences of log p, whose error is O(h^2) = 1e-10 plus 1e-15 / h."""
    model = nice("deq", gradient=deq.Exact(order=3))
    x = torch.randn(2, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    score = torch.autograd.grad(model.log_density(x).sum(), x)[0]
    h = 1e-5
    numeric = torch.stack([(model.log_density(x + h * e) - model.log_density(x - h * e)) / (2 * h)
                           for e in torch.eye(6, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(score, numeric, rtol=1e-6, atol=1e-6)


def test_equilibria_are_found_by_name_and_keep_their_solution(generator):
    model = nice("deq")
    assert len(equilibrium_layers(model)) == 4
    model.log_density(torch.randn(2, 6, generator=generator, dtype=torch.float64))
    assert all(bool(layer.last.converged.all()) for layer in equilibrium_layers(model).values())
