"""Every operation of the zoo at orders 1 to 3 through every route of the library: right or refused, never wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import analysis
import deq
from deq.density.jets import push_forward
from deq.density.laplacian import equilibrium_jet
from tests.zoo import ZOO
from tests.zoo_cases import D, ZooCase

OPTIONS = {"tol": 1e-14, "max_iter": 200, "on_failure": "ignore"}
# The unroll stops at 1e-8, differences carry their own error; a wrong formula is wrong in its first digits.
TOLERANCE = 1e-6
REFUSALS = (NotImplementedError, RuntimeError, deq.DEQError, ArithmeticError)
Route = Callable[[ZooCase], tuple[dict[str, Tensor], dict[str, Tensor]]]


def _eager(case: ZooCase, rule: deq.GradientRule) -> dict[str, Tensor]:
    x, p = case.tensors["x"].clone().requires_grad_(), case.still.requires_grad_()
    z = deq.equilibrium(lambda z: case.f(z, x, p), case.solution, gradient=rule, **OPTIONS)
    (first,) = torch.autograd.grad((z @ case.tensors["w"]).sum(), x, create_graph=True)
    second = torch.stack([torch.autograd.grad(first[:, i].sum(), x, create_graph=True)[0] for i in range(D)], 1)
    (third,) = torch.autograd.grad(second.diagonal(dim1=1, dim2=2).sum(), p)
    return {"first": first, "second": second, "third": third @ case.tensors["q"]}


def _nested(case: ZooCase, word: str) -> dict[str, Tensor]:
    """Derivatives in x under torch.func: word[0] is the outer transform of the Hessian, word[2] takes the third."""
    w, q = case.tensors["w"], case.tensors["q"]

    def loss(x: Tensor, p: Tensor) -> Tensor:
        return (deq.equilibrium(lambda z: case.f(z, x, p), case.solution, gradient=deq.Exact(3), **OPTIONS) @ w).sum()

    take = {"f": torch.func.jacfwd, "r": torch.func.jacrev}

    def hessian(p: Tensor) -> Tensor:
        full = take[word[0]](take[word[1]](lambda x: loss(x, p)))(case.tensors["x"])
        return torch.stack([full[i, :, i] for i in range(case.batch)])

    def trace(s: Tensor) -> Tensor:
        return hessian(case.still + s * q).diagonal(dim1=1, dim2=2).sum()

    zero = torch.zeros((), dtype=torch.float64)
    first = take[word[1]](lambda x: loss(x, case.still))(case.tensors["x"])
    if len(word) == 2:
        return {"first": first, "second": hessian(case.still)}
    return {"third": take[word[2]](trace)(zero)}


def _laplacian(case: ZooCase) -> dict[str, Tensor]:
    s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    p = s * case.tensors["q"]
    jet, _ = equilibrium_jet(lambda z, x: case.f(z, x, p), case.tensors["x"], case.solution, **OPTIONS)
    out = push_forward(lambda z: z @ case.tensors["w"], jet)
    (third,) = torch.autograd.grad(out.laplacian.sum(), s)
    return {"first": out.first.T, "laplacian": out.laplacian, "third": third}


def _tensors(case: ZooCase, derivatives: Callable[..., analysis.Derivatives]) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {"first": [], "second": [], "bent": []}
    for i in range(case.batch):
        rows = slice(i, i + 1)
        made = derivatives(
            lambda z, x, rows=rows: case.f(z[None], x[None], case.still, rows)[0],
            case.tensors["x"][i],
            case.solution[i],
        )
        w = case.tensors["w"]
        for name, tensor in zip(found, made.tensors, strict=True):
            value = torch.tensordot(w, tensor, dims=1)
            found[name].append(value @ case.tensors["v"] if name == "bent" else value)
    return {name: torch.stack(values) for name, values in found.items()}


def _bound_margin(case: ZooCase) -> dict[str, Tensor]:
    """How far the second-order bound falls short of the true error; zero where it holds."""
    short = []
    for i in range(case.batch):
        rows = slice(i, i + 1)
        bound = analysis.phantom_error_bound(
            lambda z, x, rows=rows: case.f(z[None], x[None], case.still, rows)[0],
            case.tensors["x"][i],
            case.solution[i],
            steps=2,
        )
        size = case.tensors["w"].norm()
        for order, name in ((1, "first"), (2, "second")):
            error = (case.exact[name][i] - case.phantom[name][i]).norm() / size
            short.append((error - getattr(bound, name)).clamp_min(0.0) if order else error)
    return {"short": torch.stack(short)}


def _bounded(case: ZooCase) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    found = _bound_margin(case)
    return found, {"short": torch.zeros_like(found["short"])}


def _implicit(case: ZooCase) -> dict[str, Tensor]:
    return _tensors(case, lambda f, x, z: analysis.implicit_derivatives(f, x, z, order=3))


def _phantom(case: ZooCase) -> dict[str, Tensor]:
    return _tensors(case, lambda f, x, z: analysis.phantom_derivatives(f, x, z, steps=2, order=3))


def _with_laplacian(case: ZooCase) -> dict[str, Tensor]:
    return case.exact | {"laplacian": case.exact["second"].diagonal(dim1=1, dim2=2).sum(1)}


ROUTES: dict[str, Route] = {
    "exact dense": lambda c: (_eager(c, deq.Exact(3, linear="dense")), c.exact),
    "exact krylov": lambda c: (_eager(c, deq.Exact(3, linear="krylov")), c.exact),
    "neumann": lambda c: (_eager(c, deq.Neumann(9, 3)), c.exact),
    "phantom": lambda c: (_eager(c, deq.Phantom(2)), c.phantom),
    "forward laplacian": lambda c: (_laplacian(c), _with_laplacian(c)),
    "implicit_derivatives": lambda c: (_implicit(c), c.exact),
    "phantom_derivatives": lambda c: (_phantom(c), c.phantom),
    "bounds": _bounded,
    **{
        f"nested {word}": lambda c, word=word: (_nested(c, word), c.exact)
        for word in ("rr", "fr", "rf", "ff", "rrr", "ffr", "frf", "fff")
    },
}


def verdict(route: Route, case: ZooCase) -> tuple[str, str]:
    """right, refused or wrong, and why."""
    try:
        found, expected = route(case)
    except REFUSALS as error:
        return "refused", f"{type(error).__name__}: {str(error)[:80]}"
    for name, value in found.items():
        scale = float(expected[name].norm()) + 1e-3 * float(expected["first"].norm() if "first" in expected else 1.0)
        gap = float((value.detach() - expected[name]).norm())
        if not gap <= TOLERANCE * max(scale, 1e-6) + float(expected.get(f"slack {name}", 0.0)):
            return "wrong", f"{name}: {gap:.2g} of {scale:.2g}"
    return "right", ""


def _run(names: list[str]) -> Counter:
    count: Counter = Counter()
    wrong = []
    for name in names:
        case = ZooCase(name)
        for label, route in ROUTES.items():
            what, why = verdict(route, case)
            count[what] += 1
            count[f"{label}: {what}"] += 1
            if what == "wrong":
                wrong.append(f"{name} through {label}: {why}")
    assert not wrong, "\n".join(wrong)
    return count


def test_the_zoo_is_large():
    assert len(ZOO) >= 150


# The operations that torch 2.13 gets wrong in some nesting, fused ones, and one of each further kind.
REPRESENTATIVE = ["layer_norm affine", "solve", "multihead"]


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_right_or_refused(name: str):
    count = _run([name])
    assert count["right"] >= 12, count


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_whole_zoo(part: int):
    count = _run(sorted(ZOO)[part::10])
    print(dict(count))
    assert count["right"] > 5 * count["refused"]
