"""States that are trees, complex, scaled or of low precision: against unrolls, closed forms and float32 copies."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import deq

D = torch.float64


@dataclass
class Pair:
    left: torch.Tensor
    right: Any


def as_structure(kind, a, b):
    return {"tuple": (a, b), "list": [a, b], "dict": {"a": a, "b": b}, "nested": {"x": (a, [b])},
            "dataclass": Pair(a, (b,))}[kind]


def parts(kind, state):
    match kind:
        case "tuple" | "list":
            return state[0], state[1]
        case "dict":
            return state["a"], state["b"]
        case "nested":
            return state["x"][0], state["x"][1][0]
        case _:
            return state.left, state.right[0]


def two_states(kind, seed, dtype=D):
    """A contraction of two coupled states [4, 3] and [4, 2, 2], its parameters, and its input."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=D).to(dtype)  # noqa: E731
    weights = [(0.15 * draw(3, 3)), (0.15 * draw(4, 3)), (0.15 * draw(3, 4))]
    for weight in weights:
        weight.requires_grad_()
    x = draw(4, 3).requires_grad_()

    def f(state, given):
        a, b = parts(kind, state)
        new_a = torch.tanh(a @ weights[0] + b.flatten(1) @ weights[1] + given["x"])
        return as_structure(kind, new_a, torch.tanh(a @ weights[2]).reshape(-1, 2, 2) + 0.1 * b)

    start = as_structure(kind, torch.zeros(4, 3, dtype=dtype), torch.zeros(4, 2, 2, dtype=dtype))
    return f, start, [*weights, x], {"x": x}


def objective(kind, state):
    a, b = parts(kind, state)
    return a.pow(2).sum() + b.pow(3).sum() + (a[:, 0] * b[:, 0, 0]).sum()


@given(kind=st.sampled_from(["tuple", "list", "dict", "nested", "dataclass"]), seed=st.integers(0, 10**6),
       solver=st.sampled_from(["anderson", "picard", "broyden", "newton"]))
@settings(max_examples=8)
def test_trees_have_the_derivatives_of_an_unroll(kind, seed, solver):
    f, start, leaves, inputs = two_states(kind, seed)
    z = deq.equilibrium(f, start, inputs=(inputs,), solver=solver, tol=1e-13)
    assert type(z) is type(start)
    unrolled = start
    for _ in range(120):
        unrolled = f(unrolled, inputs)
    first = torch.autograd.grad(objective(kind, z), leaves, create_graph=True)
    truth = torch.autograd.grad(objective(kind, unrolled), leaves, create_graph=True)
    for found, expected in zip(first, truth, strict=True):
        assert torch.allclose(found, expected, atol=1e-10)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    expected_second = torch.autograd.grad(sum(g.square().sum() for g in truth), leaves)
    for found, expected in zip(second, expected_second, strict=True):
        assert torch.allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("rule", [deq.Phantom(60), deq.Neumann(40, 1), deq.Exact(1), deq.Exact(2, linear="krylov")])
def test_every_rule_takes_trees(rule):
    f, start, leaves, inputs = two_states("tuple", 3)
    z = deq.equilibrium(f, start, inputs=(inputs,), gradient=rule, tol=1e-13)
    truth = deq.equilibrium(f, start, inputs=(inputs,), tol=1e-13)
    for found, expected in zip(torch.autograd.grad(objective("tuple", z), leaves),
                               torch.autograd.grad(objective("tuple", truth), leaves), strict=True):
        assert torch.allclose(found, expected, atol=1e-9)


def test_transforms_go_through_trees():
    f, start, leaves, _ = two_states("dict", 5)
    x = leaves[-1].detach()

    def value(x):
        return objective("dict", deq.equilibrium(f, start, inputs=({"x": x},), tol=1e-13))

    (truth,) = torch.autograd.grad(value(leaves[-1]), leaves[-1])
    assert torch.allclose(torch.func.grad(value)(x), truth, atol=1e-11)
    stacked = torch.stack([x, x + 0.1])
    assert torch.allclose(torch.vmap(value)(stacked), torch.stack([value(x), value(x + 0.1)]), atol=1e-11)


def test_a_scale_changes_what_counts_as_small():
    f, start, _, inputs = two_states("tuple", 7)
    loose = deq.solve(f, start, inputs=(inputs,), solver="picard", atol=1e-6, rtol=0.0, scale=(1e3, 1e3))
    tight = deq.solve(f, start, inputs=(inputs,), solver="picard", atol=1e-6, rtol=0.0)
    assert int(loose.iterations.max()) < int(tight.iterations.min())
    z = deq.equilibrium(f, start, inputs=(inputs,), tol=1e-13, scale=(10.0, 0.1))
    truth = deq.equilibrium(f, start, inputs=(inputs,), tol=1e-13)
    assert torch.allclose(z[0], truth[0], atol=1e-11)


def test_complex_states_through_their_real_view(generator):
    weight = (0.3 * torch.randn(3, 3, generator=generator, dtype=torch.complex128)).requires_grad_()
    x = torch.randn(2, 3, generator=generator, dtype=torch.complex128)
    z = deq.equilibrium(lambda z: z @ weight + x, torch.zeros(2, 3, dtype=torch.complex128), tol=1e-14)
    closed = x @ torch.linalg.inv(torch.eye(3, dtype=torch.complex128) - weight)
    assert torch.allclose(z, closed, atol=1e-12)
    (found,) = torch.autograd.grad(z.abs().square().sum(), weight, create_graph=True)
    (truth,) = torch.autograd.grad(closed.abs().square().sum(), weight, create_graph=True)
    assert torch.allclose(found, truth, atol=1e-11)
    (second,) = torch.autograd.grad(found.abs().square().sum(), weight)
    (second_truth,) = torch.autograd.grad(truth.abs().square().sum(), weight)
    assert torch.allclose(second, second_truth, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n", "linear"), [(32, "dense"), (32, "auto"), (700, "auto")])
def test_low_precision_keeps_the_direction_of_the_gradient(dtype, n, linear):
    generator = torch.Generator().manual_seed(n)
    weight = torch.randn(n, n, generator=generator)
    weight = weight + weight.T
    weight *= 0.9 / torch.linalg.eigvalsh(weight).abs().max()  # spectral radius 0.9
    inject, x = torch.randn(n, 4, generator=generator) / 2, torch.randn(8, 4, generator=generator)

    def gradient(dtype):
        parameters = [weight.to(dtype).requires_grad_(), inject.to(dtype).requires_grad_()]
        z = deq.equilibrium(lambda z: z @ parameters[0].T + torch.tanh(x.to(dtype) @ parameters[1].T),
                            torch.zeros(8, n, dtype=dtype), gradient=deq.Exact(1, linear=linear), max_iter=200)
        assert z.dtype == dtype
        z.float().square().mean(1).sum().backward()
        return torch.cat([p.grad.float().flatten() for p in parameters])

    low, full = gradient(dtype), gradient(torch.float32)
    assert torch.nn.functional.cosine_similarity(low, full, dim=0) >= 0.999


def test_a_low_precision_solve_rests_at_its_rounding_and_says_so():
    half = (0.9 * torch.eye(8) + 0.02 * torch.randn(8, 8, generator=torch.Generator().manual_seed(0))).bfloat16()
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    solution = deq.solve(lambda z: torch.tanh(z @ half + x), torch.zeros(4, 8, dtype=torch.bfloat16))
    assert bool(solution.converged.all())
    assert {status.name for status in solution.statuses()} <= {"CONVERGED", "AT_ROUNDING"}
    runaway = deq.solve(lambda z: 1.5 * z + 1, torch.zeros(2, 3, dtype=torch.bfloat16), solver="picard", max_iter=40)
    assert not bool(runaway.converged.any())


def test_bad_states_have_messages_of_their_own():
    zero = torch.zeros(2, 3)
    with pytest.raises(TypeError, match="int64"):
        deq.solve(lambda z: z, (zero, torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(ValueError, match="disagree in their batch"):
        deq.solve(lambda z: z, (zero, torch.zeros(3, 3)))
    with pytest.raises(ValueError, match="another structure"):
        deq.solve(lambda z: {"a": z[0], "b": z[1]}, (zero, zero))
    with pytest.raises(ValueError, match="expected a state like"):
        deq.solve(lambda z: (z[0], z[1][:, :2]), (zero, zero))
    with pytest.raises(TypeError, match=r"float64 where z has torch\.float32"):
        deq.solve(lambda z: (z[0], z[1].double()), (zero, zero))
    with pytest.raises(TypeError, match="made of tensors"):
        deq.solve(lambda z: z, (zero, 3.0))
    with pytest.raises(ValueError, match="first dimension must be the batch"):
        deq.solve(lambda z, m: (z[0] * m, z[1]), (zero, zero), inputs=(torch.ones(5, 3),))
    with pytest.raises(TypeError, match="one row a sample"):
        deq.solve(lambda z, m: z, (zero, zero), inputs=("mask",))
    with pytest.raises(ValueError, match="positive number"):
        deq.solve(lambda z: z, (zero, zero), scale=(1.0, -1.0))


def test_a_failed_tree_carries_its_solution_as_a_tree():
    with pytest.raises(deq.NotConverged) as caught:
        deq.equilibrium(lambda z: {"a": 2 * z["a"] + 1}, {"a": torch.zeros(2, 3)}, max_iter=20, solver="picard")
    assert caught.value.solution.z["a"].shape == (2, 3)


class Conditioned(nn.Module):
    """Two states, a mask and a condition by name, a matrix that all samples share."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 3)

    def initial_state(self, x):
        return x["tokens"].new_zeros(len(x["tokens"]), 3, dtype=torch.float32), x["tokens"].new_zeros(
            len(x["tokens"]), 3, dtype=torch.float32)

    def forward(self, z, x, mask, *, condition, graph):
        a, b = z
        a = torch.tanh(0.2 * self.mix(a) + 0.3 * b + condition + x["tokens"].float()) * mask
        return a, 0.3 * a @ graph + 0.1 * b


def test_a_layer_takes_trees_masks_conditions_and_shared_tensors(generator):
    layer = deq.DEQ(Conditioned(), tol=1e-6, reuse=True)
    x = {"tokens": torch.arange(15).reshape(5, 3) % 4}
    mask = (torch.rand(5, 3, generator=generator) > 0.3).float()
    condition = torch.randn(5, 3, generator=generator, requires_grad=True)
    graph = torch.eye(3) / 2
    z = layer(x, mask, condition=condition, shared={"graph": graph})
    assert bool(layer.last.converged.all())
    state = layer.cell.initial_state(x)
    for _ in range(60):
        state = layer.cell(state, x, mask, condition=condition, graph=graph)
    for found, expected in zip(z, state, strict=True):
        assert torch.allclose(found, expected, atol=2e-5)
    (found,) = torch.autograd.grad((z[0] * z[1]).sum(), condition)
    (expected,) = torch.autograd.grad((state[0] * state[1]).sum(), condition)
    assert torch.allclose(found, expected, atol=5e-5)
    other = deq.DEQ(Conditioned(), tol=1e-6, reuse=True)
    other.load_state_dict(layer.state_dict())
    again = other(x, mask, condition=condition, shared={"graph": graph})
    assert int(other.last.iterations.max()) <= 1
    assert torch.allclose(again[0], z[0], atol=2e-5)


def test_a_mask_of_the_wrong_length_is_named():
    layer = deq.DEQ(Conditioned())
    with pytest.raises(ValueError, match="batch of z0"):
        layer({"tokens": torch.zeros(5, 3)}, torch.ones(4, 3), condition=torch.zeros(5, 3),
              shared={"graph": torch.eye(3)})


def test_a_state_that_does_not_follow_from_x_is_asked_for():
    with pytest.raises(ValueError, match="give z0"):
        deq.DEQ(lambda z, x: z)({"tokens": torch.zeros(2, 3, dtype=torch.int64)})


@pytest.mark.parametrize("cell", [deq.DenseCell(3, 6).double(), deq.ConvolutionCell(2, 4).double()],
                         ids=["dense", "conv"])
def test_bound_cells_compute_what_the_cell_computes_once(cell, generator):
    shape = (4, 3) if isinstance(cell, deq.DenseCell) else (4, 2, 5, 5)
    x = torch.randn(shape, generator=generator, dtype=D, requires_grad=True)
    layer = deq.DEQ(cell, tol=1e-12)
    parameters = [x, *cell.parameters()]
    calls = []
    cell.recurrent.parametrizations.weight[0].register_forward_hook(lambda *_: calls.append(1))
    plain = deq.equilibrium(cell, layer.start(x), inputs=(x,), tol=1e-12)
    many = len(calls)
    truth = torch.autograd.grad(plain.square().sum(), parameters, create_graph=True)
    for handle in list(cell.recurrent.parametrizations.weight[0]._forward_hooks):
        del cell.recurrent.parametrizations.weight[0]._forward_hooks[handle]
    bound = layer(x)
    found = torch.autograd.grad(bound.square().sum(), parameters, create_graph=True)
    assert many > 3
    assert torch.allclose(bound, plain, atol=1e-10)
    for one, other in zip(found, truth, strict=True):
        assert torch.allclose(one, other, atol=1e-8)


def test_a_bound_map_gives_way_to_overrides_hooks_and_replaced_parts(generator):
    x = torch.randn(4, 3, generator=generator)

    class Shifted(deq.DenseCell):
        def forward(self, z, x):
            return super().forward(z, x) + 1.0

    for change in ("override", "hook", "part"):
        cell = Shifted(3, 6) if change == "override" else deq.DenseCell(3, 6)
        if change == "hook":
            cell.recurrent.register_forward_hook(lambda module, args, out: 0.5 * out)
        if change == "part":
            cell.recurrent = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Tanh())
            with torch.no_grad():
                cell.recurrent[0].weight.mul_(0.2)
        z = deq.DEQ(cell)(x)
        assert torch.allclose(cell(z, x), z, atol=1e-4), change


def test_a_tree_of_one_tensor_and_the_tensor_agree():
    weight = 0.1 * torch.randn(6, 6, generator=torch.Generator().manual_seed(2), dtype=D)
    x = torch.ones(3, 6, dtype=D)
    plain = deq.solve(lambda z: torch.tanh(z @ weight + x), torch.zeros(3, 6, dtype=D))
    tree = deq.solve(lambda z: (torch.tanh(z[0] @ weight + x),), (torch.zeros(3, 6, dtype=D),))
    assert torch.equal(plain.z, tree.z[0])
    assert torch.equal(plain.iterations, tree.iterations)
