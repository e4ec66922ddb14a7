"""What f did in the forward pass is what is differentiated: each situation against the same model, unrolled."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

import deq
from deq import Exact, MapError, Neumann, Phantom

N, D, BATCH = 4, 3, 5
# Contraction factor at most 0.6: 0.6^70 is 3e-16, which is what Neumann and Phantom leave.
RULES = {"dense": Exact(3, linear="dense"), "krylov": Exact(3, linear="krylov"), "first": Exact(1),
         "neumann": Neumann(40, 2), "phantom": Phantom(75)}
Solve = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def unroll(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    for _ in range(75):
        z = f(z)
    return z


def solver(rule) -> Solve:
    return lambda f, z: deq.equilibrium(f, z, gradient=rule, tol=1e-14, max_iter=300, on_failure="ignore")


def matrix(rows: int, columns: int, norm: float, number: int) -> Tensor:
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    return (values * norm / torch.linalg.matrix_norm(values, 2)).requires_grad_()


class Cell(nn.Module):
    """z = tanh(W z + U x), and what the tests do to it."""

    state_shape = (N,)

    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = nn.Linear(N, N).double(), nn.Linear(D, N).double()
        with torch.no_grad():
            self.w.weight.copy_(matrix(N, N, 0.6, 1))
            self.u.weight.copy_(matrix(N, D, 1.0, 2))

    def body(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.w(z) + self.u(x))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.body(z, x)


class MySine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(z, w)
        return (z @ w).sin()

    @staticmethod
    def backward(ctx, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        z, w = ctx.saved_tensors
        inner = cotangent * (z @ w).cos()
        return inner @ w.T, z.T @ inner


@torch.jit.script
def scripted(z: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.tanh(z @ w + b)


W, V, U = matrix(N, N, 0.6, 3), matrix(N, N, 0.5, 4), matrix(D, N, 1.0, 5)
X = torch.randn(BATCH, D, generator=torch.Generator().manual_seed(6), dtype=torch.float64).requires_grad_()
ZERO = torch.zeros(BATCH, N, dtype=torch.float64)


def rebound(solve: Solve) -> Tensor:
    h = X @ U
    for factor in (1.0, 0.5, 0.2):
        h = solve(lambda z: torch.tanh(factor * z @ W + h), ZERO)  # noqa: B023
    return h


def nested(solve: Solve) -> Tensor:
    def outer(z: Tensor) -> Tensor:
        inner = solve(lambda w: torch.tanh(w @ V + z @ W), ZERO)
        return torch.tanh(0.5 * inner + X @ U)

    return solve(outer, ZERO)


def custom_function(solve: Solve) -> Tensor:
    return solve(lambda z: MySine.apply(z, W) + X @ U, ZERO)


def scripted_part(solve: Solve) -> Tensor:
    return solve(lambda z: scripted(z, W, X @ U), ZERO)


def vmap_inside(solve: Solve) -> Tensor:
    return solve(lambda z: vmap(lambda z, x: torch.tanh(z @ W + x @ U))(z, X), ZERO)


def grad_inside(solve: Solve) -> Tensor:
    def energy(z: Tensor, x: Tensor) -> Tensor:
        return 0.25 * ((z @ W) * z).sum() + (x @ U * z).sum()

    return solve(lambda z: torch.tanh(vmap(torch.func.grad(energy))(z, X)), ZERO)


def returns_a_captured_tensor(solve: Solve) -> Tensor:
    h = X @ U
    return solve(lambda z: h, ZERO)


def checkpoint_inside(solve: Solve) -> Tensor:
    return solve(lambda z: checkpoint(lambda z, x: torch.tanh(z @ W + x @ U), z, X, use_reentrant=False), ZERO)


def checkpoint_around(solve: Solve) -> Tensor:
    return checkpoint(lambda x: solve(lambda z: torch.tanh(z @ W + x.sin() @ U), ZERO), X.cos(), use_reentrant=False)


def reentrant_checkpoint_around(solve: Solve) -> Tensor:
    return checkpoint(lambda x: solve(lambda z: torch.tanh(z @ W + x.sin() @ U), ZERO), X.cos(), use_reentrant=True)


def memoised(solve: Solve) -> Tensor:
    kept: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        if not kept:
            kept.append(torch.tanh(X @ U))
        return torch.tanh(z @ W) + kept[0]

    return solve(f, ZERO)


def updates_a_buffer(solve: Solve) -> Tensor:
    seen = torch.zeros(N, dtype=torch.float64)

    def f(z: Tensor) -> Tensor:
        seen.lerp_(z.detach().mean(0), 0.1)
        return torch.tanh(z @ W + X @ U)

    return solve(f, ZERO)


SITUATIONS = [rebound, nested, custom_function, scripted_part, vmap_inside, grad_inside, returns_a_captured_tensor,
              checkpoint_inside, checkpoint_around, reentrant_checkpoint_around, memoised, updates_a_buffer]


def close(found: Tensor | None, truth: Tensor | None, tolerance: float = 1e-11) -> bool:
    found, truth = (torch.zeros(()) if t is None else t for t in (found, truth))
    return bool((found - truth).norm() <= tolerance * (1 + truth.norm()))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda f: f.__name__)
def test_first_derivatives(situation, rule: str):
    leaves = (W, V, U, X)
    weights = torch.linspace(-1, 1, BATCH * N, dtype=torch.float64).reshape(BATCH, N)
    gradients = []
    for solve in (solver(RULES[rule]), unroll):
        for leaf in leaves:
            leaf.grad = None
        (situation(solve) * weights).sum().backward()  # reentrant checkpoints know no other way
        gradients.append([leaf.grad for leaf in leaves])
    for leaf in leaves:
        leaf.grad = None
    for a, b in zip(*gradients, strict=True):
        assert close(a, b)


@pytest.mark.parametrize("rule", ["dense", "krylov"])
@pytest.mark.parametrize("situation", [
    pytest.param(s, id=s.__name__, marks=[pytest.mark.slow] if s is nested else [])
    for s in SITUATIONS if s is not reentrant_checkpoint_around])
def test_second_and_third_derivatives(situation, rule: str):
    results = []
    for solve in (solver(RULES[rule]), unroll):
        value = situation(solve).sin().sum()
        for _ in range(2):
            (score,) = torch.autograd.grad(value, X, create_graph=True)
            value = score.square().sum()
        results.append(torch.autograd.grad(value, (W, U, X), allow_unused=True))
    for a, b in zip(*results, strict=True):
        assert close(a, b, 1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_full_backward_hooks_see_and_change_nothing(rule: str):
    cell, seen = Cell(), []
    cell.register_full_backward_hook(lambda module, before, after: seen.append(after[0]))
    leaves = (X, *cell.parameters())
    found = torch.autograd.grad(solver(RULES[rule])(lambda z: cell(z, X), ZERO).square().sum(), leaves)
    assert seen
    for a, b in zip(found, torch.autograd.grad(unroll(lambda z: cell.body(z, X), ZERO).square().sum(), leaves),
                    strict=True):
        assert close(a, b)


@pytest.mark.parametrize("rule", RULES)
def test_parameters_replaced_between_forward_and_backward(rule: str):
    cell = Cell()
    old = dict(cell.named_parameters())
    layer = deq.DEQ(cell, gradient=RULES[rule], tol=1e-14, max_iter=300, on_failure="ignore")
    loss = layer(X).square().sum()
    other = {name: torch.zeros_like(value) for name, value in layer.state_dict().items()}
    layer.load_state_dict(other, assign=True)
    found = torch.autograd.grad(loss, list(old.values()))
    truth = torch.autograd.grad(
        unroll(lambda z: functional_call(cell, old, (z, X)), ZERO).square().sum(), list(old.values()))
    for a, b in zip(found, truth, strict=True):
        assert close(a, b)


@pytest.mark.parametrize("rule", RULES)
def test_functional_call_with_the_backward_pass_outside(rule: str):
    cell = Cell()
    layer = deq.DEQ(cell, gradient=RULES[rule], tol=1e-14, max_iter=300, on_failure="ignore")
    fast = {name: (0.9 * p.detach() + 0.01).requires_grad_() for name, p in cell.named_parameters()}
    loss = functional_call(layer, {"cell." + name: p for name, p in fast.items()}, (X,)).square().sum()
    truth = torch.autograd.grad(unroll(lambda z: functional_call(cell, fast, (z, X)), ZERO).square().sum(),
                                list(fast.values()))
    for a, b in zip(torch.autograd.grad(loss, list(fast.values())), truth, strict=True):
        assert close(a, b)


@pytest.mark.parametrize("rule", RULES)
def test_an_ensemble_by_vmap_with_the_backward_pass_outside(rule: str):
    weights = torch.stack([matrix(N, N, q, 9).detach() for q in (0.2, 0.4, 0.6)]).requires_grad_()

    def member(solve: Solve, w: Tensor) -> Tensor:
        return solve(lambda z: torch.tanh(z @ w + X @ U), ZERO).square().sum()

    found = torch.autograd.grad(vmap(lambda w: member(solver(RULES[rule]), w))(weights).sum(), (weights, U, X))
    truth = torch.autograd.grad(sum(member(unroll, w) for w in weights), (weights, U, X))
    for a, b in zip(found, truth, strict=True):
        assert close(a, b)


@pytest.mark.parametrize("rule", ["krylov", "neumann"])
def test_an_ensemble_whose_map_changes_before_the_backward_pass_is_refused(rule: str):
    """Under vmap a matrix-free rule has to evaluate f again; it must notice that f is another one by then."""
    weights = torch.stack([W.detach(), 0.5 * W.detach()]).requires_grad_()
    scale = [1.0]

    def member(w: Tensor) -> Tensor:
        return solver(RULES[rule])(lambda z: torch.tanh(scale[0] * z @ w + X.detach() @ U.detach()), ZERO)

    z = vmap(member)(weights)
    scale[0] = 0.3
    with pytest.raises(MapError, match="no longer the map"):
        z.square().sum().backward()


@pytest.mark.parametrize("inside", ["custom function", "vmap", "equilibrium"])
def test_what_a_transform_cannot_follow_is_refused_under_it(inside: str):
    def loss(w: Tensor) -> Tensor:
        f = {"custom function": lambda z: MySine.apply(z, w) + X.detach() @ U.detach(),
             "vmap": lambda z: vmap(lambda z: torch.tanh(z @ w))(z),
             "equilibrium": lambda z: 0.5 * solver(Exact(1))(lambda y: torch.tanh(y @ w + z), ZERO)}[inside]
        return solver(Exact(2))(f, ZERO + 1).square().sum()

    def unrolled(w: Tensor) -> Tensor:
        if inside == "vmap":
            return unroll(lambda z: torch.tanh(z @ w), ZERO + 1).square().sum()
        return unroll(lambda z: 0.5 * unroll(lambda y: torch.tanh(y @ w + z), ZERO), ZERO + 1).square().sum()

    try:
        found = torch.func.grad(loss)(W.detach())
    except (MapError, RuntimeError) as error:  # torch itself refuses a Function without setup_context
        assert "autograd" in str(error)  # noqa: PT017
    else:
        assert close(found, torch.func.grad(unrolled)(W.detach()))


@pytest.mark.parametrize("rule", RULES)
def test_parametrize_cached_and_spectral_norm_twice(rule: str):
    torch.manual_seed(0)
    cell = Cell()
    parametrizations.spectral_norm(cell.w)
    for _ in range(300):  # until the power iteration rests
        cell(ZERO, X)
    leaves = (X, *cell.parameters())
    options = {"gradient": RULES[rule], "tol": 1e-13, "max_iter": 500, "on_failure": "ignore"}
    scaled = lambda z, x: 0.6 * cell(z, x)  # noqa: E731
    layer = deq.DEQ(scaled, **options)
    start = {"z0": ZERO}
    twice = layer(X, **start).square().sum() + layer(X.cos(), **start).square().sum()
    truth = sum(unroll(lambda z: scaled(z, x), ZERO).square().sum() for x in (X, X.cos()))  # noqa: B023
    for a, b in zip(torch.autograd.grad(twice, leaves), torch.autograd.grad(truth, leaves), strict=True):
        assert close(a, b, 1e-9)  # u and v move in their last digits
    with parametrize.cached():
        found = torch.autograd.grad(layer(X, **start).square().sum(), leaves)
    truth = unroll(lambda z: scaled(z, X), ZERO).square().sum()
    for a, b in zip(found, torch.autograd.grad(truth, leaves), strict=True):
        assert close(a, b, 1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_an_equilibrium_layer_in_a_layer(rule: str):
    inner = deq.DEQ(lambda w, z: torch.tanh(w @ V + z @ W), gradient=RULES[rule], tol=1e-14, max_iter=300,
                    on_failure="ignore")
    outer = deq.DEQ(lambda z, x: torch.tanh(0.5 * inner(z) + x @ U), gradient=RULES[rule], tol=1e-14, max_iter=300,
                    on_failure="ignore")
    found = torch.autograd.grad(outer(X, z0=ZERO).square().sum(), (W, V, U, X))
    truth = torch.autograd.grad(nested(unroll).square().sum(), (W, V, U, X))
    for a, b in zip(found, truth, strict=True):
        assert close(a, b)


def test_f_is_not_called_in_any_backward_pass():
    calls = [0]

    def f(z: Tensor) -> Tensor:
        calls[0] += 1
        return torch.tanh(z @ W + X @ U)

    for rule in RULES.values():
        z = solver(rule)(f, ZERO)
        before = calls[0]
        (score,) = torch.autograd.grad(z.sin().sum(), X, create_graph=True)
        if rule.max_order != 1:
            score.square().sum().backward()
        assert calls[0] == before


def test_the_first_evaluation_carries_a_graph():
    modes = []
    solver(Exact(1))(lambda z: modes.append(torch.is_grad_enabled()) or torch.tanh(z @ W + X @ U), ZERO)
    assert modes[0]
    assert not any(modes[1:-1])
    assert modes[-1]


@pytest.mark.parametrize("order", [1, 3])
def test_a_plain_backward_pass_takes_one_solve_and_no_inverse(order: int, monkeypatch: pytest.MonkeyPatch):
    from deq.gradients.operator import Operator

    asked = []
    monkeypatch.setattr(Operator, "_form_inverse", lambda *_: pytest.fail("formed an inverse"))
    solve_one = Operator._by_products
    monkeypatch.setattr(Operator, "_by_products", lambda self, *rest: asked.append(1) or solve_one(self, *rest))
    x = torch.randn(2, 40, dtype=torch.float64, requires_grad=True)
    z = deq.equilibrium(lambda z: torch.tanh(0.5 * z.roll(1, 1) + x), torch.zeros_like(x), gradient=Exact(order))
    z.square().sum().backward()
    assert len(asked) == 1


@pytest.mark.parametrize("rule", ["dense", "krylov", "first", "neumann"])
def test_values_remembered_by_z_are_refused(rule: str):
    kept: dict[str, Tensor] = {}

    def f(z: Tensor) -> Tensor:
        if "z" not in kept or not torch.equal(kept["z"], z):
            kept["z"], kept["value"] = z, torch.tanh(z @ W + X @ U)
        return kept["value"]

    with pytest.raises(MapError, match="remembers its values"):
        solver(RULES[rule])(f, ZERO)


@pytest.mark.parametrize("rule", ["dense", "krylov", "neumann"])
def test_a_value_that_f_returned_before_is_refused(rule: str):
    kept: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        value = torch.tanh(z @ W + X @ U)
        if torch.is_grad_enabled() and z.requires_grad:
            kept.append(value)
            return kept[0]
        return value

    with pytest.raises(MapError, match="the very tensor"):
        solver(RULES[rule])(f, ZERO)


@pytest.mark.parametrize("rule", ["dense", "krylov", "first", "neumann"])
def test_noise_inside_f_is_refused(rule: str):
    generator = torch.Generator().manual_seed(0)

    def f(z: Tensor) -> Tensor:
        keep = (torch.rand(z.shape, generator=generator, dtype=z.dtype) > 0.3).double()
        return torch.tanh((z * keep) @ W + X @ U)

    with pytest.raises(MapError, match="not deterministic"):
        solver(RULES[rule])(f, ZERO)


def coupled(z: Tensor) -> Tensor:
    return torch.tanh(z @ W + 0.3 * z.mean(0) + X @ U)


@pytest.mark.parametrize("rule", ["krylov", "first", "neumann", "phantom"])
def test_coupled_samples_are_right_where_nothing_takes_them_apart(rule: str):
    found = torch.autograd.grad(solver(RULES[rule])(coupled, ZERO).square().sum(), (W, U, X))
    longer = ZERO
    for _ in range(400):
        longer = coupled(longer)
    for a, b in zip(found, torch.autograd.grad(longer.square().sum(), (W, U, X)), strict=True):
        assert close(a, b, 1e-2 if rule in ("neumann", "phantom") else 1e-10)  # those two are truncated: 0.9^75


def test_coupled_samples_are_refused_by_a_dense_inverse():
    with pytest.raises(MapError, match="couples the samples"):
        torch.autograd.grad(solver(RULES["dense"])(coupled, ZERO).sum(), X)
