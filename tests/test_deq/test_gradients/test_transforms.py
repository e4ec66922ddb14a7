"""Every nesting of torch.func transforms up to the third order, against the same transforms of a long unroll."""

from collections.abc import Callable

import pytest
import torch
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import deq
from deq import DerivativeOrderError, Exact, Neumann
from tests.strategies import dense_case

CASE = dense_case(4, 3, 3, 0.6, "softplus", 17)
RULES = {"dense": Exact(3, linear="dense"), "krylov": Exact(3, linear="krylov"), "neumann": Neumann(70, 3)}
NESTINGS: dict[str, Callable] = {
    "grad": grad,
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": hessian,
    "jacrev(jacrev)": lambda f: jacrev(jacrev(f)),
    "jacrev(jacfwd)": lambda f: jacrev(jacfwd(f)),
    "jacfwd(jacfwd)": lambda f: jacfwd(jacfwd(f)),
    "jacrev(jacrev(jacrev))": lambda f: jacrev(jacrev(jacrev(f))),
    "jacfwd(jacrev(jacrev))": lambda f: jacfwd(jacrev(jacrev(f))),
    "jacfwd(jacfwd(jacfwd))": lambda f: jacfwd(jacfwd(jacfwd(f))),
}
ORDER = {name: max(1, name.count("jac")) if name != "hessian" else 2 for name in NESTINGS}


def density(z: torch.Tensor) -> torch.Tensor:
    return z.sin().sum() + 0.1 * z.square().sum()


def by_unroll(x: torch.Tensor) -> torch.Tensor:
    return density(CASE.unroll(x[None], *CASE.parameters, steps=75))


def by_rule(rule) -> Callable[[torch.Tensor], torch.Tensor]:
    def value(x: torch.Tensor) -> torch.Tensor:
        z = deq.equilibrium(lambda z: CASE.f(z, x[None], *CASE.parameters), x.new_zeros(1, 4), gradient=rule,
                            tol=1e-15, on_failure="ignore")
        return density(z)
    return value


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("rule", RULES)
def test_nesting_with_and_without_vmap(rule: str, nesting: str):
    transform = NESTINGS[nesting]
    # |J| <= 0.6: rounding is amplified by (1 - q)^-4 < 40 at order 3; 0.6^70 = 3e-16 is the Neumann remainder.
    torch.testing.assert_close(transform(by_rule(RULES[rule]))(CASE.x[0]), transform(by_unroll)(CASE.x[0]),
                               rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(vmap(transform(by_rule(RULES[rule])))(CASE.x), vmap(transform(by_unroll))(CASE.x),
                               rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("nesting", NESTINGS)
def test_an_order_beyond_the_rule_raises_in_every_nesting(nesting: str, limit: int):
    derivative = NESTINGS[nesting](by_rule(Exact(limit)))
    if ORDER[nesting] <= limit:
        assert derivative(CASE.x[0]).isfinite().all()
    else:
        with pytest.raises(DerivativeOrderError, match=f"order {limit + 1} "):
            derivative(CASE.x[0])
        with pytest.raises(DerivativeOrderError, match=f"order {limit + 1} "):
            vmap(derivative)(CASE.x)


@pytest.mark.parametrize("rule", RULES)
def test_products_are_adjoint(rule: str, generator: torch.Generator):
    """<J u, v> = <u, J^T v> for the equilibrium as a function of its weights."""
    def solution(weight: torch.Tensor) -> torch.Tensor:
        return deq.equilibrium(lambda z: CASE.f(z, CASE.x, weight, *CASE.parameters[1:]), CASE.start(),
                               gradient=RULES[rule], tol=1e-15, on_failure="ignore")

    weight = CASE.parameters[0]
    u = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    v = torch.randn(3, 4, generator=generator, dtype=weight.dtype)
    tangent = jvp(solution, (weight,), (u,))[1]
    (pulled,) = vjp(solution, weight)[1](v)
    torch.testing.assert_close((tangent * v).sum(), (u * pulled).sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("rule", RULES)
def test_batched_backward_passes_of_plain_autograd(rule: str):
    """`is_grads_batched` runs on an older vmap than torch.func; twice, and with a parameter gradient behind it."""
    def hessian_and_gradient(solve) -> tuple[torch.Tensor, torch.Tensor]:
        x = CASE.x.clone().requires_grad_()
        weight = CASE.parameters[0].clone().requires_grad_()
        (score,) = torch.autograd.grad(density(solve(x, weight)), x, create_graph=True)
        seeds = torch.eye(3, dtype=x.dtype)[:, None].expand(3, 3, 3)
        (rows,) = torch.autograd.grad(score, x, seeds, is_grads_batched=True, create_graph=True)
        return rows.detach(), torch.autograd.grad(rows.square().sum(), weight)[0]

    found = hessian_and_gradient(lambda x, w: deq.equilibrium(
        lambda z: CASE.f(z, x, w, *CASE.parameters[1:]), CASE.start(), gradient=RULES[rule], tol=1e-15,
        on_failure="ignore"))
    truth = hessian_and_gradient(lambda x, w: CASE.unroll(x, w, *CASE.parameters[1:], steps=75))
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_vmap_over_parameters_and_starts():
    """An ensemble of weights at once; the start may be batched too."""
    weights = torch.stack([CASE.parameters[0] * s for s in (0.2, 0.6, 1.0)])
    starts = torch.stack([CASE.start() + s for s in (0.0, 1.0, 2.0)])

    def solution(weight: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return deq.equilibrium(lambda z: CASE.f(z, CASE.x, weight, *CASE.parameters[1:]), start, tol=1e-14)

    together = vmap(solution)(weights, starts)
    one_by_one = torch.stack([solution(w, s) for w, s in zip(weights, starts, strict=True)])
    torch.testing.assert_close(together, one_by_one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_functional_call_of_a_module(rule: str):
    layer = deq.DEQ(deq.DenseCell(3, 4).double(), gradient=RULES[rule], tol=1e-13)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return density(functional_call(layer, parameters, (x[None],)))

    def unrolled(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        z = x.new_zeros(1, 4)
        for _ in range(900):  # margin 1.05: the map contracts by at most 1 / 1.05
            z = functional_call(layer.cell, {k.removeprefix("cell."): v for k, v in parameters.items()}, (z, x[None]))
        return density(z)

    found = vmap(grad(loss), in_dims=(None, 0))(parameters, CASE.x)
    truth = vmap(grad(unrolled), in_dims=(None, 0))(parameters, CASE.x)
    for name in parameters:
        torch.testing.assert_close(found[name], truth[name], rtol=1e-9, atol=1e-11)
