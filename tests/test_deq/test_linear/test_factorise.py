"""Batched factorisation: right with several threads at every size, singular matrices named, nothing goes around it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deq.linear import factorise as module
from deq.linear.factorise import factorise, inverse, require_regular, solve, try_inverse
from deq.status import LinearSolveError

ROOT = Path(__file__).parents[3]
EPS = torch.finfo(torch.float64).eps


def systems(batch: int, n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    """I - D W with |D W| about 0.8 at most: condition numbers below 20."""
    generator = torch.Generator().manual_seed(seed)
    weight = 0.4 * torch.randn(n, n, dtype=torch.float64, generator=generator) / n**0.5
    slope = torch.rand(batch, n, 1, dtype=torch.float64, generator=generator)
    return (torch.eye(n, dtype=torch.float64) - slope * weight).to(dtype)


THREADED = """
import torch, deq
from deq.linear.factorise import factorise, inverse
torch.set_num_threads(2)
generator = torch.Generator().manual_seed(0)

def weight(n, dtype):
    return 0.4 * torch.randn(n, n, dtype=dtype, generator=generator) / n**0.5

for n, dtype in ((128, torch.float64), (150, torch.float32), (256, torch.float64), (512, torch.float32)):
    systems = torch.eye(n, dtype=dtype) - torch.rand(2, n, 1, dtype=dtype, generator=generator) * weight(n, dtype)
    factors = factorise(systems)
    right = torch.randn(2, n, 2, dtype=dtype, generator=generator)
    errors = [systems @ factors.solve(right) - right, systems.mT @ factors.solve(right, True) - right,
              inverse(systems) @ systems - torch.eye(n, dtype=dtype)]
    # Backward error n eps |L| |U| |x|, each factor a few units in size for these systems.
    worst = max(float(error.abs().max()) for error in errors)
    assert worst < 10 * n * torch.finfo(dtype).eps, (n, dtype, worst)
    assert float(factors.defect.max()) < 10 * n * torch.finfo(dtype).eps

n = 160
w = weight(n, torch.float64)
x = torch.randn(3, n, dtype=torch.float64, generator=generator).requires_grad_()
z = deq.equilibrium(lambda z: torch.tanh(z @ w.T + x), torch.zeros(3, n, dtype=torch.float64),
                    gradient=deq.Exact(order=2, linear="dense"), tol=1e-13)
(found,) = torch.autograd.grad(z.sum(), x)
for sample, slope in zip(found, 1 - z.detach() ** 2):
    # d sum z / dx solves (I - D W)^T l = 1, times D.
    adjoint = torch.linalg.solve((torch.eye(n, dtype=w.dtype) - slope[:, None] * w).T, torch.ones(n, dtype=w.dtype))
    assert float((sample - slope * adjoint).abs().max()) < 1e-10
assert torch.get_num_threads() == 2
print("right")
"""


def test_two_threads_from_128_to_512_rows_in_a_fresh_process():
    """torch alone gives wrong pivots, raises or hangs there on some machines, hence the process and its limit."""
    run = subprocess.run([sys.executable, "-c", THREADED], cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert run.stdout.strip() == "right", run.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3)])
def test_solutions_of_every_layout(shape: tuple[int, ...], dtype: torch.dtype):
    matrices = systems(6, 5, dtype)[:max(1, torch.Size(shape).numel())] if 0 not in shape else systems(0, 5, dtype)
    matrices = matrices.reshape(*shape, 5, 5)
    right = torch.ones(*shape, 5, 2, dtype=dtype)
    factors = factorise(matrices)
    limit = {"rtol": 0, "atol": 200 * torch.finfo(dtype).eps}  # 10 n times condition numbers of at most 4
    torch.testing.assert_close(matrices @ factors.solve(right), right, **limit)
    torch.testing.assert_close(matrices.mH @ factors.solve(right, transposed=True), right, **limit)
    torch.testing.assert_close(matrices @ inverse(matrices), torch.eye(5, dtype=dtype).expand_as(matrices), **limit)
    torch.testing.assert_close(matrices @ solve(matrices, right), right, **limit)
    torch.testing.assert_close((matrices @ solve(matrices, right[..., 0])[..., None])[..., 0], right[..., 0], **limit)
    assert factors.defect.shape == shape
    assert not factors.defect.dtype.is_complex


def test_overwriting_gives_the_same_factors():
    matrices = systems(3, 6)
    kept = factorise(matrices)
    place = matrices.mT.contiguous().mT
    found = factorise(place, overwrite=True)
    assert found.lu.data_ptr() == place.data_ptr()
    assert torch.equal(found.lu, kept.lu)
    assert torch.equal(found.pivots, kept.pivots)


def test_singular_and_nearly_singular_matrices_are_named():
    matrices = systems(4, 3)
    matrices[2] = torch.tensor([[0.1, 0.3, 0.2], [0.3, 0.9, 0.6], [1.0, 2.0, 3.0]], dtype=torch.float64)  # rank 2
    with pytest.raises(LinearSolveError, match=r"^the system of 1 of 4 samples \(first: sample 2, .*singular.*; do x"):
        inverse(matrices, "the system", advice="do x")
    with pytest.raises(LinearSolveError, match="sample 2"):
        solve(matrices, torch.ones(4, 3, dtype=torch.float64))
    with pytest.raises(LinearSolveError, match=r"sample \(1, 0\)"):
        inverse(matrices.reshape(2, 2, 3, 3))
    inverse(matrices, exempt=torch.tensor([False, False, True, False]))
    matrices[2] = 0
    assert try_inverse(matrices)[1].isfinite().tolist() == [True, True, False, True]
    matrices[2] = torch.nan
    with pytest.raises(LinearSolveError, match="sample 2"):
        inverse(matrices)
    with pytest.raises(LinearSolveError, match=r"^the matrix is singular"):
        inverse(torch.zeros(2, 2))


@pytest.mark.parametrize(("gap", "regular"), [(1e-4, True), (1e-12, False)])
def test_half_the_digits_are_the_limit(gap: float, regular: bool):
    """A symmetric matrix with eigenvalues 1 and `gap`: the round trip loses eps / gap, against sqrt(eps) = 1.5e-8."""
    basis = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).Q
    values = torch.ones(8, dtype=torch.float64)
    values[3] = gap
    defect = factorise(basis @ torch.diag(values) @ basis.T).defect
    assert 0.001 * EPS / gap < float(defect) < 100 * EPS / gap
    assert bool(defect < EPS**0.5) is regular
    both = try_inverse((basis @ torch.diag(values) @ basis.T)[None])[1]
    if regular:
        require_regular(both)
    else:
        with pytest.raises(LinearSolveError):
            require_regular(both)


@pytest.mark.parametrize("damage", ["pivots", "factors", "row"])
def test_a_library_that_factorises_wrongly_is_caught(damage: str, monkeypatch: pytest.MonkeyPatch):
    right = torch.linalg.lu_factor_ex

    def wrong(matrices: torch.Tensor):
        lu, pivots, info = right(matrices)
        if damage == "pivots":
            pivots[1, 2] = 0
        elif damage == "row":
            pivots[1, 2] = 6 if int(pivots[1, 2]) != 6 else 5
        else:
            lu[1, 3, 2] += 0.01
        return lu, pivots, info

    monkeypatch.setattr(torch.linalg, "lu_factor_ex", wrong)
    for call in (inverse, lambda m: solve(m, torch.ones(3, 6, dtype=torch.float64))):
        with pytest.raises(LinearSolveError, match=r"1 of 3 samples \(first: sample 1"):
            call(systems(3, 6))


def test_the_number_of_threads_comes_back_also_after_an_error(monkeypatch: pytest.MonkeyPatch):
    before = torch.get_num_threads()
    seen = []

    def fails(matrices: torch.Tensor):
        seen.append(torch.get_num_threads())
        raise RuntimeError("stop")

    monkeypatch.setattr(torch.linalg, "lu_factor_ex", fails)
    with pytest.raises(RuntimeError, match="stop"):
        factorise(systems(2, 3))
    assert seen == [1]
    assert torch.get_num_threads() == before
    assert not module._lock.locked()


@pytest.mark.parametrize("shapes", [
    ((3, 4, 4), (3, 4, 2)), ((4, 4), (3, 4, 2)), ((3, 4, 4), (3, 4)), ((3, 4, 4), (4, 2)), ((4, 4), (4,))])
def test_derivatives_of_a_solve_of_first_and_second_order(shapes):
    generator = torch.Generator().manual_seed(2)
    matrix = torch.eye(4, dtype=torch.float64) + 0.2 * torch.randn(shapes[0], dtype=torch.float64, generator=generator)
    right = torch.randn(shapes[1], dtype=torch.float64, generator=generator)
    inputs = (matrix.requires_grad_(), right.requires_grad_())
    assert torch.autograd.gradcheck(solve, inputs)       # against central differences
    assert torch.autograd.gradgradcheck(solve, inputs)


FACTORISING = {"inv", "inv_ex", "inverse", "solve", "solve_ex", "lu", "lu_factor", "lu_factor_ex", "det", "logdet",
               "slogdet", "tensorinv", "tensorsolve"}
NAMESPACES = ("torch", "torch.linalg")


def bypasses(tree: ast.AST) -> list[str]:
    """Calls in torch's namespaces that factorise by LU, and names imported from there."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in FACTORISING and ast.unparse(node.value) in NAMESPACES:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not (node.args or node.keywords):
            if node.func.attr in ("inverse", "det", "logdet", "slogdet"):  # a tensor's own methods take no arguments
                found.append(ast.unparse(node.func))
        elif isinstance(node, ast.ImportFrom) and node.module in NAMESPACES:
            found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name in FACTORISING | {"linalg"}]
    return found


#: The module itself, the probes that look for torch's fault, and what stands in for torch's functions inside f, which
#: factorises in the module's `one_thread`.
ALLOWED = tuple(ROOT / "deq" / path for path in ("linear/factorise.py", "interop/doctor/probes.py",
                                                 "interop/right_derivatives.py"))


def test_nothing_factorises_outside_this_module():
    found = {}
    for package in ("deq", "analysis", "verification", "figures"):
        for path in sorted((ROOT / package).rglob("*.py")):
            calls = bypasses(ast.parse(path.read_text(encoding="utf-8")))
            if calls and path not in ALLOWED:
                found[str(path.relative_to(ROOT))] = calls
    assert not found


def test_the_rule_sees_what_it_should():
    text = "import torch\nx = torch.linalg.inv(a); y = torch.logdet(a); z = a.inverse(); from torch.linalg import solve"
    assert sorted(bypasses(ast.parse(text))) == ["a.inverse", "torch.linalg.inv", "torch.linalg.solve", "torch.logdet"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_limit_itself(dtype: torch.dtype):
    limit = torch.finfo(dtype).eps ** 0.5
    require_regular(torch.tensor([0.0, 0.9 * limit], dtype=dtype))
    for defect in (1.1 * limit, torch.inf, torch.nan):
        with pytest.raises(LinearSolveError, match="sample 1"):
            require_regular(torch.tensor([0.0, defect], dtype=dtype))
