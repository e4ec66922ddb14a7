"""torchdeq's calls: its values and first derivatives, and the second derivatives that it gets wrong, right."""

import argparse
import itertools
import warnings

import pytest
import torch

from deq.compat import torchdeq as ours

D = torch.float64
TIGHT = {"f_tol": 1e-11, "b_tol": 1e-12, "f_max_iter": 60, "b_max_iter": 80}

PATTERNS = [
    {"ift": True}, {"hook_ift": True}, {"ift": True, "f_stop_mode": "rel"}, {"ift": True, "core": "indexing"},
    {"grad": 1}, {"grad": 3}, {"grad": 5, "tau": 0.6}, {"grad": 2, "core": "indexing"},
    {"grad": 2, "n_states": 3}, {"grad": [1, 2, 3], "n_states": 3}, {"grad": 2, "n_states": 3, "core": "indexing"},
    {"grad": [3, 1], "indexing": [5], "core": "indexing"}, {"grad": 2, "indexing": [4, 9], "core": "indexing"},
    {"grad": 1, "indexing": [6]}, {"ift": True, "n_states": 2}, {"ift": True, "n_states": 4, "core": "indexing"},
    {"ift": True, "indexing": [3], "core": "indexing"}, {"grad": 6, "sup_gap": 2}, {"grad": 6, "sup_loc": [2, 3]},
    {"grad": 4, "f_solver": "simple_fixed_point_iter"}, {"ift": True, "f_solver": "anderson"},
    {"ift": True, "f_solver": "broyden"}, {"grad": 7, "tau": 0.5, "sup_gap": 3, "core": "indexing"},
]


def model(states, seed=0):
    """f, the start and the leaves, for one state [5, 4] or for two, [5, 4] and [5, 2, 3]."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=D)  # noqa: E731
    w, v, x = (0.2 * draw(4, 4)).requires_grad_(), (0.2 * draw(6, 4)).requires_grad_(), draw(5, 4).requires_grad_()
    if states == 1:
        return lambda z: torch.tanh(z @ w + x), torch.zeros(5, 4, dtype=D), [w, x]

    def f(a, b):
        return [torch.tanh(a @ w + b.flatten(1) @ v + x), torch.sin(0.3 * b + (a[:, :1] * 0.2).unsqueeze(2))]

    return f, [torch.zeros(5, 4, dtype=D), torch.zeros(5, 2, 3, dtype=D)], [w, v, x]


def number(states):
    flat = [part for state in states for part in (state if isinstance(state, list | tuple) else [state])]
    return sum((part**2).sum() * (k + 1) + part.sum() for k, part in enumerate(flat))


def run(library, options, states):
    f, start, leaves = model(states)
    layer = library.get_deq(**TIGHT, **options)
    layer.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        z_out, info = layer(f, start)
    return z_out, info, torch.autograd.grad(number(z_out), leaves)


@pytest.mark.parametrize(("options", "states"), list(itertools.product(PATTERNS, (1, 2))), ids=str)
def test_the_same_values_and_first_derivatives(options, states):
    theirs = pytest.importorskip("torchdeq")
    if options.get("f_solver") == "simple_fixed_point_iter" and states == 2:
        pytest.skip("torchdeq's fast path for lists needs options of its own")
    z_theirs, info_theirs, gradient_theirs = run(theirs, options, states)
    z_ours, info_ours, gradient_ours = run(ours, options, states)
    assert len(z_ours) == len(z_theirs)
    for mine, other in zip(z_ours, z_theirs, strict=True):
        assert isinstance(mine, torch.Tensor) == isinstance(other, torch.Tensor)
        for a, b in zip([mine] if states == 1 else mine, [other] if states == 1 else other, strict=True):
            assert torch.allclose(a, b, atol=1e-9)
    for a, b in zip(gradient_ours, gradient_theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-8)
    assert set(info_ours) >= {"abs_lowest", "rel_lowest", "abs_trace", "rel_trace", "nstep", "sradius"}
    assert info_ours["abs_lowest"].shape == info_theirs["abs_lowest"].shape


def unrolled(states, steps=150):
    f, z, leaves = model(states)
    for _ in range(steps):
        z = f(z) if states == 1 else f(*z)
    return z, leaves


@pytest.mark.parametrize("states", [1, 2])
def test_second_derivatives_are_those_of_an_unroll(states):
    truth, leaves = unrolled(states)
    first = torch.autograd.grad(number([truth]), leaves, create_graph=True)
    expected = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    f, start, own = model(states)
    layer = ours.get_deq(**TIGHT, ift=True)
    z_out, _ = layer(f, start)
    mine = torch.autograd.grad(number(z_out), own, create_graph=True)
    for a, b in zip(torch.autograd.grad(sum(g.square().sum() for g in mine), own), expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-8)


def test_evaluation_gives_the_equilibrium_and_its_radius():
    weight = torch.diag(torch.tensor([0.7, 0.2, -0.4], dtype=D))
    layer = ours.get_deq(f_tol=1e-12, f_max_iter=200).eval()
    z_out, info = layer(lambda z: z @ weight + 1.0, torch.zeros(2, 3, dtype=D), sradius_mode=True)
    assert torch.allclose(z_out[0], (1 / (1 - torch.diagonal(weight))).expand(2, 3), atol=1e-10)
    assert torch.allclose(info["sradius"], torch.full((2,), 0.7, dtype=D), atol=1e-9)
    assert not z_out[0].requires_grad


def test_options_come_from_a_namespace_and_unknown_ones_are_refused():
    layer = ours.get_deq(argparse.Namespace(f_max_iter=7, lr=1e-3, core="indexing"), n_states=2)
    assert layer.options["f_max_iter"] == 7
    assert "indexing" in repr(layer)
    for wrong, text in (({"f_max_itr": 3}, "did you mean 'f_max_iter'"), ({"fmode": 1}, "option of get_deq")):
        with pytest.raises(TypeError, match=text):
            ours.get_deq(**wrong)
    for wrong in ({"core": "slice"}, {"f_solver": "andersen"}, {"f_stop_mode": "absolute"}, {"grad": 0},
                  {"grad": [1, 2, 3]}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ours.get_deq(**wrong)


def test_a_solve_that_misses_its_tolerance_warns():
    layer = ours.get_deq(ift=True, f_max_iter=3, f_tol=1e-8)
    x = torch.ones(1, 2, requires_grad=True)
    with pytest.warns(RuntimeWarning, match="MAX_ITERATIONS"):
        layer(lambda z: 0.9 * z + x, torch.zeros(1, 2))


def test_dropout_masks_are_kept_until_reset():
    torch.manual_seed(0)
    dropout = ours.VariationalDropout(0.5)
    x = torch.ones(4, 50)
    first = dropout(x)
    assert torch.equal(first, dropout(x))
    assert set(first.unique().tolist()) == {0.0, 2.0}
    ours.reset_deq(torch.nn.Sequential(dropout))
    assert not torch.equal(first, dropout(x))
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("weight_func", ["exp", "linear"])
def test_correction_weights_are_theirs(weight_func):
    theirs = pytest.importorskip("torchdeq")
    states = [torch.full((2,), float(k), dtype=D) for k in (3, 2, 1)]
    criterion = lambda z, y: (z - y).square().mean()  # noqa: E731
    mine, values = ours.fp_correction(criterion, (states, torch.zeros(2, dtype=D)), weight_func,
                                      return_loss_values=True)
    other = theirs.fp_correction(criterion, (states, torch.zeros(2, dtype=D)), weight_func)
    assert torch.allclose(mine.double(), other)
    assert values == [9.0, 4.0, 1.0]


def test_the_jacobian_penalty_trains_or_refuses():
    weight = torch.randn(3, 3, dtype=D, generator=torch.Generator().manual_seed(1)).requires_grad_()
    z = torch.zeros(500, 3, dtype=D, requires_grad=True)
    value = z @ weight
    penalty = ours.jac_reg(value, z, vecs=8)
    # 4000 draws of |J^T v|^2, relative deviation at most sqrt(2 / 4000), six of them
    truth = weight.detach().square().sum() / 3
    assert abs(float(penalty.detach() - truth)) < 6 * (2 / 4000) ** 0.5 * float(truth)
    assert torch.autograd.grad(penalty, weight)[0].norm() > 0
    with pytest.raises(ValueError, match="has no gradient"):
        ours.jac_reg(z @ weight, z, create_graph=False)
