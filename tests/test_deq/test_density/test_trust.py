"""A declared structure stands for a cell only while it tells the truth about what is called."""

import pytest
import torch
from torch import Tensor, nn

import deq
from deq.density.affine import AffineStructure
from deq.density.trust import speaks_for, trusted_head, trusted_structure

D, N = 3, 5


def base_head(z: Tensor, x: Tensor) -> Tensor:
    return z.square().sum(1) - 0.5 * x.square().sum(1)


class Half(deq.DenseCell):
    """Another map than its parent declares."""

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.5 * super().forward(z, x)


class HalfDeclared(Half):
    """Declares itself again."""

    def affine_structure(self, x: Tensor) -> AffineStructure:
        inner = super().affine_structure(x)
        activation = inner.activation
        return AffineStructure(inner.weight, inner.injection, inner.injected,
                                           lambda h: 0.5 * activation(h))


class Shifted(deq.EquilibriumDensity):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - 0.7 * (x**4).sum(1)


class Doubled(deq.DEQ):
    def forward(self, x: Tensor, z0: Tensor | None = None) -> Tensor:
        return 2 * super().forward(x, z0=z0)


def hooked_cell() -> nn.Module:
    cell = deq.DenseCell(D, N)
    cell.register_forward_hook(lambda module, arguments, value: 0.5 * value)
    return cell


def hooked_part() -> nn.Module:
    cell = deq.DenseCell(D, N)
    cell.injection.register_forward_hook(lambda module, arguments, value: value.sin())
    return cell


def replaced_part() -> nn.Module:
    cell = deq.DenseCell(D, N)
    class Squashed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).tanh()
    cell.injection = Squashed(D, N)
    return cell


def forward_on_the_object() -> nn.Module:
    cell = deq.DenseCell(D, N)
    inner = cell.forward
    cell.forward = lambda z, x: 0.5 * inner(z, x)
    return cell


CELLS = {
    "plain": (lambda: deq.DenseCell(D, N), True),
    "declared again": (lambda: HalfDeclared(D, N), True),
    "own forward": (lambda: Half(D, N), False),
    "softmax is not elementwise": (lambda: deq.DenseCell(D, N, activation=lambda h: torch.softmax(h, -1)), False),
    "forward hook": (hooked_cell, False),
    "hook on a part": (hooked_part, False),
    "replaced part": (replaced_part, False),
    "forward on the object": (forward_on_the_object, False),
}


def both(density: deq.EquilibriumDensity, x: Tensor, **options) -> tuple[Tensor, Tensor]:
    return (deq.losses.score_matching(density, x, reduction="none", **options),
            deq.losses.score_matching(density, x, reduction="none", mode="reverse"))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("mode", ["auto", "laplacian"])
def test_the_loss_is_that_of_the_density_that_is_called(name: str, mode: str, generator: torch.Generator):
    make, trusted = CELLS[name]
    torch.manual_seed(1)
    cell = make().double()
    x = torch.randn(4, D, generator=generator, dtype=torch.float64)
    assert (trusted_structure(cell, x, x.new_zeros(4, N)) is not None) == trusted
    density = deq.EquilibriumDensity(deq.DEQ(cell, tol=1e-12, max_iter=500), base_head)
    fast, slow = both(density, x, mode=mode)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(density.layer.last.z, density.layer(x).detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [Shifted, "layer", "density hook", "layer hook"])
@pytest.mark.parametrize("mode", ["auto", "laplacian"])
@pytest.mark.parametrize("rule", [deq.Exact(3), deq.Exact(1)], ids=repr)
def test_densities_with_a_forward_of_their_own(kind, mode: str, rule, generator: torch.Generator):
    torch.manual_seed(1)
    cell = deq.DenseCell(D, N).double()
    layer = (Doubled if kind == "layer" else deq.DEQ)(cell, tol=1e-12, max_iter=500, gradient=rule)
    density = (kind if kind is Shifted else deq.EquilibriumDensity)(layer, base_head)
    if kind == "density hook":
        density.register_forward_hook(lambda module, arguments, value: value * 1.5)
    if kind == "layer hook":
        layer.register_forward_hook(lambda module, arguments, value: value * 1.5)
    x = torch.randn(4, D, generator=generator, dtype=torch.float64)
    if mode == "auto" and rule.order < 3:
        with pytest.raises(deq.DerivativeOrderError):
            deq.losses.score_matching(density, x)
        return
    fast = deq.losses.score_matching(density, x, reduction="none", mode=mode)
    assert density.layer.gradient is rule
    layer.gradient = deq.Exact(3)
    slow = deq.losses.score_matching(density, x, reduction="none", mode="reverse")
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


class OwnForwardHead(deq.SeparableHead):
    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return super().forward(z, x) + (z[:, 0] * x[:, 0]).sin()


HEADS = {
    "plain": (lambda: deq.SeparableHead(lambda z: z.sin(), lambda x: -0.5 * x**2), True),
    "no input": (lambda: deq.SeparableHead(lambda z: z.sin() + z**2), True),
    "own forward": (lambda: OwnForwardHead(lambda z: z.sin(), lambda x: -0.5 * x**2), False),
    "state mixes units": (lambda: deq.SeparableHead(lambda z: z * z.sum(1, keepdim=True)), False),
    "input mixes units": (lambda: deq.SeparableHead(lambda z: z.sin(), lambda x: x * x.sum(1, keepdim=True)), False),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(name: str, generator: torch.Generator):
    make, trusted = HEADS[name]
    head = make()
    x = torch.randn(4, D, generator=generator, dtype=torch.float64)
    z = torch.randn(4, N, generator=generator, dtype=torch.float64)
    assert (trusted_head(head, z, x) is head) == trusted
    torch.manual_seed(2)
    density = deq.EquilibriumDensity(deq.DEQ(deq.DenseCell(D, N).double(), tol=1e-12, max_iter=500), head)
    fast, slow = both(density, x)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", ["affine", "general"])
@pytest.mark.parametrize("rule", [deq.Exact(3), deq.Phantom(2)], ids=repr)
def test_chunk_changes_no_number_on_any_route(cell: str, rule, generator: torch.Generator):
    torch.manual_seed(3)
    made = (deq.DenseCell if cell == "affine" else Half)(D, N).double()
    density = deq.EquilibriumDensity(deq.DEQ(made, tol=1e-12, max_iter=500, gradient=rule), base_head)
    x = torch.randn(4, D, generator=generator, dtype=torch.float64)
    parameters = list(density.parameters())
    for mode in ("auto", "laplacian"):
        whole = deq.losses.score_matching(density, x, mode=mode)
        chunked = deq.losses.score_matching(density, x, mode=mode, chunk=2)
        torch.testing.assert_close(chunked, whole, rtol=1e-9, atol=1e-9)
        for a, b in zip(torch.autograd.grad(chunked, parameters), torch.autograd.grad(whole, parameters), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("cell", ["affine", "general"])
@pytest.mark.parametrize("mode", ["laplacian", "reverse"])
def test_reuse_on_every_route(cell: str, mode: str, generator: torch.Generator):
    torch.manual_seed(4)
    made = (deq.DenseCell if cell == "affine" else Half)(D, N).double()
    density = deq.EquilibriumDensity(deq.DEQ(made, tol=1e-9, max_iter=500, reuse=True), base_head)
    x = torch.randn(4, D, generator=generator, dtype=torch.float64)
    deq.losses.score_matching(density, x, mode=mode)
    z = density.layer.last.z
    assert torch.equal(density.layer.start(x), z)
    torch.testing.assert_close(made(z, x).detach(), z, rtol=1e-7, atol=1e-7)
    assert density.layer.state_dict()["previous"] is not None


def test_whose_shortcut_it_is():
    assert speaks_for(deq.DenseCell(D, N), "affine_structure")
    assert not speaks_for(Half(D, N), "affine_structure")
    assert speaks_for(HalfDeclared(D, N), "affine_structure")
    assert not speaks_for(forward_on_the_object(), "affine_structure")
