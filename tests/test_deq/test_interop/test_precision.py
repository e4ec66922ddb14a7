"""Autocast does not reach a fixed point or its derivatives, in any pass; what f closes over keeps its dtype."""

import pytest
import torch

import deq
from deq import Exact, Neumann, Phantom

N, BATCH = 24, 5


def half():
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture
def problem(generator):
    """A contraction in float32 with its closure; z @ W rounded to bfloat16 would be off by some 1e-3."""
    weight = 0.7 * torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=generator))[0]
    x = torch.randn(BATCH, N, dtype=torch.float64, generator=generator)
    return weight.float().requires_grad_(), x.float()


def cell(weight, x):
    # `float` hides from the solver that autocast rounded the product: no dtype would give it away.
    return lambda z: torch.tanh((z @ weight.T).float() + x)


def test_autocast_rounds_this_map_where_nothing_stops_it(problem):
    """Negative control: without the protection the tests below would see bfloat16."""
    weight, x = problem
    with half():
        rounded = cell(weight, x)(x)
    assert (rounded - cell(weight, x)(x)).abs().max() > 1e-4


@pytest.mark.parametrize("solver", ["picard", "anderson", "broyden", "newton"])
def test_solve_is_the_same_under_autocast(problem, solver):
    weight, x = problem
    plain = deq.solve(cell(weight, x), torch.zeros_like(x), solver=solver)
    with half():
        cast = deq.solve(cell(weight, x), torch.zeros_like(x), solver=solver)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(plain.z, cast.z)


def derivatives(problem, rule, order, forward=False, backward=False):
    """Equilibrium and derivatives, with autocast in the forward pass, in the backward passes, or both."""
    weight, x = problem
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=forward):
        z = deq.equilibrium(cell(weight, x), torch.zeros_like(x), gradient=rule)
    found = [z]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=backward):
        value = z.square().sum()
        for _ in range(order):
            found.append(torch.autograd.grad(value, weight, create_graph=order > 1)[0])
            value = found[-1].square().sum()
    return found


def assert_alike(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == torch.float32
        # A few roundings of float32, amplified by |I - J|^-1 <= 1 / 0.3 twice; bfloat16 would be off by 2^-9.
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


@pytest.mark.parametrize("rule", [Exact(2, linear="dense"), Exact(2, linear="krylov"), Phantom(3),
                                  Neumann(4, order=2)], ids=repr)
def test_a_forward_pass_under_autocast_changes_nothing(problem, rule):
    assert_alike(derivatives(problem, rule, 2, forward=True), derivatives(problem, rule, 2))


@pytest.mark.parametrize("linear", ["dense", "krylov"])
def test_a_first_backward_pass_under_autocast_changes_nothing(problem, linear):
    rule = Exact(1, linear=linear)
    assert_alike(derivatives(problem, rule, 1, True, True), derivatives(problem, rule, 1))


def test_what_autocast_would_round_is_refused(problem):
    weight, x = problem
    with pytest.raises(RuntimeError, match=r"second or higher derivative .* leave the autocast region"):
        derivatives(problem, Exact(2), 2, backward=True)
    with half(), pytest.raises(RuntimeError, match=r"torch\.func transform .* leave the autocast region"):
        torch.func.grad(lambda w: deq.equilibrium(cell(w, x), torch.zeros_like(x)).sum())(weight.detach())


def test_f_of_the_start_is_evaluated_once(problem):
    weight, x = problem
    seen = []

    def f(z):
        seen.append(z.detach().clone())
        return cell(weight, x)(z)

    start = torch.zeros_like(x)
    deq.equilibrium(f, start, gradient=Exact(1))
    assert sum(torch.equal(z, start) for z in seen) == 1
