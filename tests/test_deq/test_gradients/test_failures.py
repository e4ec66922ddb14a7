"""Failed samples, small and large numbers, complex parameters, anomaly mode: each told, or right."""

import pytest
import torch
from torch import Tensor

import deq
from deq import Exact, LinearSolveError, MapError, Neumann, Phantom

W = 0.6 * torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
RULES = {"dense": Exact(3, linear="dense"), "krylov": Exact(1, linear="krylov"), "auto": Exact(),
         "neumann": Neumann(40, 2), "phantom": Phantom(60)}


def quiet(f, z0: Tensor, rule, **options) -> tuple[Tensor, Tensor]:
    from deq.equilibrium import equilibrium_and_solution
    z, solution = equilibrium_and_solution(f, z0, gradient=rule, tol=1e-12, on_failure="ignore", **options)
    return z, solution.converged


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sample_that_is_not_finite_spoils_no_other(rule: str, bad: float, generator: torch.Generator):
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    good = x.clone().requires_grad_()
    x[2] = bad
    x.requires_grad_()
    keep = torch.tensor([0, 1, 3, 4])
    z, converged = quiet(lambda z: torch.tanh(z @ W + x) + 0 * x, torch.zeros(5, 4, dtype=torch.float64), RULES[rule])
    assert converged.tolist() == [True, True, False, True, True]  # the mask that tells
    (found,) = torch.autograd.grad(z[keep].square().sum(), x)
    y = torch.zeros(5, 4, dtype=torch.float64)
    for _ in range(70):
        y = torch.tanh(y @ W + good)
    (truth,) = torch.autograd.grad(y[keep].square().sum(), good)
    torch.testing.assert_close(found[keep], truth[keep], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("rule", RULES)
def test_a_sample_whose_map_explodes_leaves_the_parameters_gradient_finite(rule: str):
    """Its own share is zero where it has no derivative: f overflows for one sample on the way."""
    scale = torch.tensor([[0.5], [1.0], [0.3]], dtype=torch.float64)
    shift = torch.ones(3, 1, dtype=torch.float64)
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)

    def f(z: Tensor) -> Tensor:
        return torch.where(scale == 1.0, (z * z + 1e200) * z.exp(), 0.5 * torch.tanh(z) * gain * scale + shift)

    z, converged = quiet(f, torch.full((3, 1), 10.0, dtype=torch.float64), RULES[rule], max_iter=30)
    assert converged.tolist() == [True, False, True]
    (found,) = torch.autograd.grad(z[[0, 2]].sum(), gain)
    y = torch.zeros(3, 1, dtype=torch.float64)
    for _ in range(80):
        y = 0.5 * torch.tanh(y) * gain * scale + shift
    (truth,) = torch.autograd.grad(y[[0, 2]].sum(), gain)
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=0)


@pytest.mark.parametrize("linear", ["dense", "krylov"])
def test_a_singular_sample_raises_if_it_converged_and_is_zero_if_not(linear: str):
    """At z = 0 the map z - z^3 + x z has slope 1 for x = 0: the equilibrium is there, its derivative is not."""
    x = torch.tensor([[0.0], [-0.5]], dtype=torch.float64, requires_grad=True)
    rule = Exact(1, linear=linear)

    def f(z: Tensor) -> Tensor:
        return z + x * z - z**3 + (x < -0.1) * 0.1

    z = deq.equilibrium(f, torch.zeros(2, 1, dtype=torch.float64), gradient=rule, tol=1e-12)
    with pytest.raises(LinearSolveError):
        torch.autograd.grad(z.sum(), x)
    # One step from 0.3 does not reach it: not converged, so it is excused, and the other sample is right.
    shifted = torch.tensor([[0.0], [-0.5]], dtype=torch.float64, requires_grad=True)

    def g(z: Tensor) -> Tensor:
        return torch.where(shifted < -0.1, 0.5 * z.tanh() + shifted, z + shifted + 1)

    z, converged = quiet(g, torch.zeros(2, 1, dtype=torch.float64), rule, solver="picard", max_iter=60)
    assert converged.tolist() == [False, True]
    (found,) = torch.autograd.grad(z.sum(), shifted)
    slope = 0.5 * (1 - z[1].detach().tanh() ** 2)
    torch.testing.assert_close(found, torch.stack([torch.zeros_like(slope), 1 / (1 - slope)]), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("dtype", "sizes"), [(torch.float64, (1e-300, 1e-200, 1e200, 1e300)),
                                              (torch.float32, (1e-35, 1e-25, 1e25))])
@pytest.mark.parametrize("solver", ["picard", "anderson", "broyden"])
def test_equilibria_of_any_size(dtype: torch.dtype, sizes, solver: str):
    """Z = z / 2 + b: 2 b, and the derivative 2, whatever squares do."""
    for size in sizes:
        b = torch.full((2, 3), size, dtype=dtype, requires_grad=True)
        z = deq.equilibrium(lambda z: 0.5 * z + b, torch.zeros(2, 3, dtype=dtype), atol=0.0, rtol=1e-5,  # noqa: B023
                            solver=solver, gradient=Exact(1, linear="krylov"))
        torch.testing.assert_close(z.detach() / size, torch.full((2, 3), 2.0, dtype=dtype), rtol=4e-5, atol=0)
        (slope,) = torch.autograd.grad(z, b, torch.full_like(z, size))
        torch.testing.assert_close(slope / size, torch.full((2, 3), 2.0, dtype=dtype), rtol=1e-4, atol=0)


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("way", ["transforms", "autograd"])
def test_the_order_is_counted_through_a_complex_parameter(limit: int, way: str):
    v = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.complex128) * 0.1

    def f(z: Tensor, t: Tensor) -> Tensor:
        return torch.tanh((z.to(v.dtype) @ (v * (1 + 1j * t))).real + 1.0)

    def by_rule(t: Tensor) -> Tensor:
        return deq.equilibrium(lambda z: f(z, t), torch.zeros(1, 4, dtype=torch.float64), tol=1e-13,
                               gradient=Exact(limit)).sum()

    def by_unroll(t: Tensor) -> Tensor:
        z = torch.zeros(1, 4, dtype=torch.float64)
        for _ in range(100):
            z = f(z, t)
        return z.sum()

    def derivative(value, order: int) -> Tensor:
        t = torch.tensor(0.3, dtype=torch.float64)
        if way == "transforms":
            for _ in range(order):
                value = torch.func.grad(value)
            return value(t)
        t.requires_grad_()
        result = value(t)
        for _ in range(order):
            (result,) = torch.autograd.grad(result, t, create_graph=True)
        return result.detach()

    torch.testing.assert_close(derivative(by_rule, limit), derivative(by_unroll, limit), rtol=1e-10, atol=1e-12)
    with pytest.raises(deq.DerivativeOrderError, match=f"order {limit + 1} "):
        derivative(by_rule, limit + 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rule", RULES)
def test_anomaly_mode_changes_no_number(rule: str, generator: torch.Generator):
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)

    def gradient() -> Tensor:
        z = deq.equilibrium(lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), gradient=RULES[rule], tol=1e-12)
        return torch.autograd.grad(z.square().sum(), x)[0]

    plain = gradient()
    with torch.autograd.set_detect_anomaly(True):
        torch.testing.assert_close(gradient(), plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", [Exact(3, linear="dense"), Exact(1, linear="krylov"), Neumann(40, 2), Phantom(60)],
                         ids=repr)
@pytest.mark.filterwarnings("ignore")
def test_linearize(rule, generator: torch.Generator):
    x, v = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)

    def unrolled(x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for _ in range(70):
            z = torch.tanh(z @ W + x)
        return z

    value, tangent = torch.func.linearize(
        lambda x: deq.equilibrium(lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), gradient=rule, tol=1e-13), x)
    truth = torch.func.jvp(unrolled, (x,), (v,))
    torch.testing.assert_close(value, truth[0], rtol=1e-11, atol=1e-12)
    for factor in (1.0, -2.0):  # a map of the tangent, nothing baked in
        torch.testing.assert_close(tangent(factor * v), factor * truth[1], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("solver", ["picard", "anderson", "broyden", "newton"])
@pytest.mark.parametrize("held", ["mask", "slice"])
def test_rows_do_not_leave_a_batch_that_the_cell_holds_a_part_of(solver: str, held: str, generator: torch.Generator):
    """A mask of the whole batch inside the cell: shapes tell, or (for a slice of it) only values."""
    x = torch.randn(24, 4, generator=generator, dtype=torch.float64) * torch.logspace(-6, 1, 24)[:, None].double()
    x.requires_grad_()
    mask = (torch.rand(24, 4, generator=generator, dtype=torch.float64) > 0.3).double()

    def cell(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh((z * (mask if held == "mask" else mask[:len(z)])) @ W + x)

    layer = deq.DEQ(cell, gradient=Exact(1), solver=solver, tol=1e-11, max_iter=300)
    (found,) = torch.autograd.grad(layer(x).square().sum(), x)
    y = torch.zeros_like(x)
    for _ in range(80):
        y = cell(y, x)
    (truth,) = torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-9)


def test_map_errors_are_errors_of_this_package():
    assert issubclass(MapError, deq.DEQError)
