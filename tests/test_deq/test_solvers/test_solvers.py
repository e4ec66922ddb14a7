"""Every solver against a dense linear solve (affine maps) or a long Picard iteration in float64 (the others)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from deq.solvers import SOLVERS, Anderson, Broyden, Newton, Picard, solve
from deq.status import SolveStatus

ALL = sorted(SOLVERS)
ACTIVATIONS = {
    "softplus": torch.nn.functional.softplus,
    "tanh": torch.tanh,
    "elu": torch.nn.functional.elu,
    "relu": torch.relu,
}


def contraction(n: int, factor: float, dtype: torch.dtype, generator: torch.Generator, normal: bool) -> torch.Tensor:
    """A matrix of 2-norm ``factor``: a scaled rotation (the hardest spectrum) or a random matrix."""
    matrix = torch.randn(n, n, dtype=torch.float64, generator=generator)
    matrix = torch.linalg.qr(matrix)[0] if normal else matrix / torch.linalg.matrix_norm(matrix, 2)
    return (factor * matrix).to(dtype)


def picard_bound(factor: float, tol: float) -> int:
    """Steps after which a contraction meets a relative tolerance, with room for a refused step in between each two."""
    return 2 * math.ceil(math.log(tol / 10) / math.log(factor)) + 64


@given(solver=st.sampled_from(ALL), n=st.sampled_from([1, 2, 7, 30]), batch=st.integers(1, 5),
       factor=st.floats(0.05, 0.99), single=st.booleans(), normal=st.booleans(), number=st.integers(0, 2**31))
def test_affine_maps_reach_the_dense_solution(solver, n, batch, factor, single, normal, number):
    generator = torch.Generator().manual_seed(number)
    dtype = torch.float32 if single else torch.float64
    # A few units of rounding of f above which the residual can surely be brought: |W z + b| is at most 1 / (1 - factor)
    # times the size of b, and the rounding of f is some sqrt(n) eps |z|.
    tol = 4 * math.sqrt(n) * torch.finfo(dtype).eps * 8
    weight = contraction(n, factor, dtype, generator, normal)
    shift = torch.randn(batch, n, dtype=dtype, generator=generator)
    solution = solve(lambda z: z @ weight.T + shift, torch.zeros_like(shift), solver=solver, tol=tol,
                     max_iter=picard_bound(factor, tol))
    assert solution.converged.all(), solution.explain()
    truth = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - weight.double(), shift.double().T).T
    # |z - z*| <= |(I - W)^-1| |f(z) - z| and the norm of the inverse is at most 1 / (1 - factor); the evaluation of
    # the residual in the dtype may itself be off by sqrt(n) eps |z|.
    rounding = 4 * math.sqrt(n) * torch.finfo(dtype).eps * solution.z.double().norm(dim=1)
    error = (solution.z.double() - truth).norm(dim=1)
    assert (error <= (solution.tolerance.double() + rounding) / (1 - factor)).all()


@given(solver=st.sampled_from(ALL), name=st.sampled_from(sorted(ACTIVATIONS)), channels=st.sampled_from([1, 3]),
       side=st.sampled_from([1, 4]), factor=st.floats(0.1, 0.95), single=st.booleans(), number=st.integers(0, 2**31))
def test_convolutional_maps_reach_a_long_picard_iteration(solver, name, channels, side, factor, single, number):
    generator = torch.Generator().manual_seed(number)
    dtype = torch.float32 if single else torch.float64
    kernel = torch.randn(channels, channels, 3, 3, dtype=torch.float64, generator=generator)
    # Young's inequality: the operator norm is at most the sum of the spectral norms of the taps.
    kernel *= factor / torch.linalg.matrix_norm(kernel, 2, dim=(0, 1)).sum()
    shift = torch.randn(3, channels, side, side, dtype=torch.float64, generator=generator)
    act = ACTIVATIONS[name]

    def f(z, kernel, shift):
        return act(torch.nn.functional.conv2d(z, kernel, padding=1) + shift)

    truth = torch.zeros_like(shift)
    for _ in range(math.ceil(math.log(1e-16) / math.log(factor)) + 10):
        truth = f(truth, kernel, shift)
    kernel, shift = kernel.to(dtype), shift.to(dtype)
    tol = 1e-5 if single else 1e-12
    solution = solve(lambda z: f(z, kernel, shift), torch.zeros_like(shift), solver=solver, tol=tol,
                     max_iter=picard_bound(factor, tol))
    assert solution.converged.all(), solution.explain()
    # The factor bounds the Lipschitz constant (the activations are 1-Lipschitz). In float32 the map itself is rounded:
    # kernel and shift by eps each, and the sum of 9 channels taps by as many eps.
    error = (solution.z.double() - truth).flatten(1).norm(dim=1)
    size = 1 + truth.flatten(1).norm(dim=1) + shift.double().flatten(1).norm(dim=1)
    rounding = 20 * channels * torch.finfo(dtype).eps * size
    assert (error <= (solution.tolerance.double() + rounding) / (1 - factor)).all()


@pytest.mark.parametrize("solver", ALL)
@pytest.mark.parametrize("factor", [0.5, 0.9, 0.99])
def test_residuals_of_1e13_in_float64(solver, factor, generator):
    weight = contraction(40, factor, torch.float64, generator, normal=False)
    shift = torch.randn(6, 40, dtype=torch.float64, generator=generator)
    solution = solve(lambda z: torch.tanh(z @ weight.T + shift), torch.zeros_like(shift), solver=solver, atol=1e-13,
                     rtol=0.0, max_iter=2000)
    assert solution.converged.all(), solution.explain()
    assert (solution.residual <= 1e-13).all()


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 3, 2)])
@pytest.mark.parametrize("solver", ALL)
def test_any_trailing_shape(solver, shape):
    z0 = torch.zeros(4, *shape, dtype=torch.float64)
    solution = solve(torch.cos, z0, solver=solver, tol=1e-12)
    assert solution.z.shape == z0.shape
    assert solution.converged.all()
    # The Dottie number, the solution of cos z = z; the inverse of 1 + sin z amplifies by 0.6 at most.
    assert (solution.z - 0.739085133215160641655312).abs().max() <= 1e-11


@pytest.mark.parametrize("solver", [Anderson(memory=1), Anderson(memory=8, mixing=0.5), Anderson(regularization=1e-8),
                                    Broyden(memory=1), Broyden(memory=3), Newton(krylov_iterations=3, restart=2),
                                    Picard(damping=0.7)], ids=repr)
def test_configured_solvers(solver, generator):
    weight = contraction(12, 0.9, torch.float64, generator, normal=True)
    shift = torch.randn(5, 12, dtype=torch.float64, generator=generator)
    solution = solve(lambda z: z @ weight.T + shift, torch.zeros_like(shift), solver=solver, tol=1e-12, max_iter=2000)
    assert solution.converged.all(), solution.explain()
    assert solution.solver == solver.name


@pytest.mark.parametrize(("build", "message"), [
    (lambda: Picard(damping=0.0), "damping is 0.0"), (lambda: Picard(damping=2.0), "damping is 2.0"),
    (lambda: Anderson(memory=0), "memory is 0"), (lambda: Anderson(mixing=0.0), "mixing is 0.0"),
    (lambda: Anderson(regularization=-1.0), "regularization is -1.0"), (lambda: Broyden(memory=0), "memory is 0"),
    (lambda: Newton(krylov_iterations=0), "krylov_iterations is 0"), (lambda: Newton(restart=0), "restart is 0"),
    (lambda: Newton(forcing=1.0), "forcing is 1.0"), (lambda: Newton(halvings=-1), "halvings is -1")])
def test_bad_configuration_names_the_value(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("solver", ["anderson", "broyden", "newton"])
def test_acceleration_pays_on_a_slow_contraction(solver, generator):
    # Eigenvalues 0.99 and 0.5 only: a Krylov space of dimension 2 holds the solution.
    basis = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64, generator=generator))[0]
    rates = torch.tensor([0.99] * 5 + [0.5] * 5, dtype=torch.float64)
    weight = (basis * rates) @ basis.T
    shift = torch.randn(3, 10, dtype=torch.float64, generator=generator)
    z0 = torch.zeros_like(shift)
    plain = solve(lambda z: z @ weight + shift, z0, solver="picard", tol=1e-10, max_iter=5000)
    fast = solve(lambda z: z @ weight + shift, z0, solver=solver, tol=1e-10)
    assert plain.converged.all()
    assert fast.converged.all(), fast.explain()
    assert (10 * fast.evaluations < plain.evaluations).all()


@pytest.mark.parametrize("solver", ["anderson", "broyden", "newton"])
def test_fixed_points_of_expansive_maps(solver):
    # f(z) = z^2 - 1 repels near its fixed point (1 - sqrt 5) / 2, where its slope is -1.24; Picard is drawn to a cycle.
    solution = solve(lambda z: z.square() - 1, torch.full((2, 1), 0.1, dtype=torch.float64), solver=solver, tol=1e-12)
    assert solution.converged.all()
    assert (solution.z - (1 - math.sqrt(5)) / 2).abs().max() < 1e-11


def test_anderson_safeguard_on_a_strongly_nonlinear_contraction(generator):
    # Slopes jump between 0.05 and 0.99, so that secants are worthless; still no more than two evaluations for each
    # gain of 0.99 may be spent.
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=generator))[0]

    def f(z):
        kinked = torch.where(z > 0, 0.99 * z, 0.05 * z)
        return kinked @ rotation.T + 1.0

    for solver in ALL:
        tol = 1e-10
        solution = solve(f, torch.zeros(8, 6, dtype=torch.float64), solver=solver, tol=tol,
                         max_iter=picard_bound(0.99, tol))
        assert solution.converged.all(), solution.explain()
        assert solution.counts() == {SolveStatus.CONVERGED: 8}


@given(n=st.integers(2, 12), batch=st.integers(1, 5), q=st.floats(0.01, 0.37), number=st.integers(0, 2**31))
def test_anderson_takes_picard_steps_while_these_are_fast(n, batch, q, number):
    generator = torch.Generator().manual_seed(number)
    weight = q * torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))[0]
    shift = torch.randn(batch, n, dtype=torch.float64, generator=generator)

    def f(z):
        return torch.sin(z @ weight.T) + shift  # |J v| <= q |v|

    plain, accelerated = (solve(f, torch.zeros_like(shift), solver=name, tol=1e-10) for name in ("picard", "anderson"))
    assert torch.equal(plain.z, accelerated.z)
    assert torch.equal(plain.evaluations, accelerated.evaluations)


@pytest.mark.parametrize("solver", ["picard", "anderson", "broyden"])
def test_one_host_synchronisation_an_iteration(solver):
    """On a GPU every read of a value stalls the queue: the convergence test's list is the only one.

    A list is not seen by the dispatcher, so no read at all may be; `nonzero` is used on the CPU alone (`choose`).
    """
    reads = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "_local_scalar_dense" in str(function) or "is_nonzero" in str(function):
                reads.append(str(function))
            return function(*args, **(kwargs or {}))

    generator = torch.Generator().manual_seed(0)
    weight = 0.9 * torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=generator))[0]
    shift = torch.randn(1, 6, dtype=torch.float64, generator=generator)

    def count(steps):
        reads.clear()
        with Count():
            solve(lambda z: torch.sin(z @ weight.T) + shift, torch.zeros_like(shift), solver=solver, tol=1e-14,
                  max_iter=steps)
        return len(reads)

    # The difference leaves out what happens once a solve; no periodic look at stagnation falls in between.
    assert count(13) == count(5) > 0
