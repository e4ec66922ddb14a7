"""The driver: statuses, independence of the samples, compaction, and clear errors."""

import weakref

import pytest
import torch

from deq.solution import Solution
from deq.solvers import SOLVERS, Picard, solve
from deq.solvers.base import FixedPointSolver, State, Step
from deq.status import NotConverged, SolveStatus

ALL = sorted(SOLVERS)
D = torch.float64


def only(solution: Solution) -> SolveStatus:
    """The status that all samples share."""
    (status,) = solution.counts()
    return status


def test_max_iterations():
    solution = solve(lambda z: 0.99 * z + 1, torch.zeros(3, 2), solver="picard", max_iter=20)
    assert only(solution) is SolveStatus.MAX_ITERATIONS
    assert solution.iterations.tolist() == [20] * 3
    assert not solution.converged.any()


@pytest.mark.parametrize("f", [lambda z: 2 * z + 1, lambda z: z * z + 1, lambda z: z + 1])
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_diverged(f, dtype):
    solution = solve(f, torch.full((3, 2), 0.1, dtype=dtype), solver="picard", max_iter=2000)
    assert only(solution) is SolveStatus.DIVERGED
    assert solution.z.isfinite().all(), "the best iterate is returned, not the last"


@pytest.mark.parametrize("solver", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize("f", [lambda z: z + 1, lambda z: z * z + 1, lambda z: torch.exp(z) + 1])
def test_no_solver_invents_a_fixed_point(f, solver, dtype):
    solution = solve(f, torch.full((3, 2), 0.1, dtype=dtype), solver=solver, max_iter=500)
    assert not solution.converged.any(), solution.summary()
    assert solution.z.isfinite().all()


@pytest.mark.parametrize("period", [2, 3, 4])
def test_cycling(period):
    # A rotation of the coordinates has that period and no contraction.
    turn = torch.roll(torch.eye(period, dtype=D), 1, 0)
    start = torch.arange(period, dtype=D).repeat(2, 1)
    solution = solve(lambda z: z @ turn.T, start, solver="picard")
    assert only(solution) is SolveStatus.CYCLING
    assert int(solution.iterations.max()) <= 40


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_reflection_cycles_and_is_solved_by_the_others(dtype):
    def f(z):
        return 3 - z

    z0 = torch.full((3, 2), 0.1, dtype=dtype)
    assert only(solve(f, z0, solver="picard")) is SolveStatus.CYCLING
    for solver in ("anderson", "broyden", "newton", Picard(damping=0.5)):
        assert solve(f, z0, solver=solver).converged.all()


def test_logistic_map_settles_into_a_cycle():
    solution = solve(lambda z: 3.2 * z * (1 - z), torch.full((2, 1), 0.3, dtype=D), solver="picard", max_iter=400)
    assert only(solution) is SolveStatus.CYCLING


@pytest.mark.parametrize("solver", ALL)
def test_explosions_are_not_called_cycles(solver, generator):
    weight = torch.randn(30, 30, dtype=D, generator=generator) / 30**0.5
    shift = torch.randn(6, 30, dtype=D, generator=generator)
    solution = solve(lambda z: torch.exp(z @ weight.T + shift), torch.zeros(6, 30, dtype=D), solver=solver)
    assert set(solution.counts()) <= {SolveStatus.DIVERGED, SolveStatus.NON_FINITE, SolveStatus.LINEAR_SOLVE_FAILED}
    assert solution.residual.isfinite().all()


@pytest.mark.parametrize("solver", ALL)
def test_singular_maps_have_no_fixed_point(solver, generator):
    # A reflection has the eigenvalue 1, and a generic shift has a part along it.
    axis = torch.nn.functional.normalize(torch.randn(8, dtype=D, generator=generator), dim=0)
    weight = torch.eye(8, dtype=D) - 2 * torch.outer(axis, axis)
    shift = torch.randn(5, 8, dtype=D, generator=generator)
    solution = solve(lambda z: z @ weight.T + shift, torch.zeros(5, 8, dtype=D), solver=solver, max_iter=300)
    assert not solution.converged.any(), solution.summary()


def test_loose_tolerance_on_a_slow_contraction():
    solution = solve(lambda z: 0.95 * z + 1, torch.zeros(1, 1, dtype=D), solver="picard", tol=0.1)
    assert solution.converged.all()


def test_slow_oscillating_contraction_is_not_called_a_cycle():
    solution = solve(lambda z: -0.999 * z + 1, torch.zeros(1, 1, dtype=D), solver="picard", max_iter=20000, tol=1e-8)
    assert solution.converged.all(), solution.explain()


@pytest.mark.parametrize("solver", ALL)
def test_stagnated(solver, generator):
    weight = 0.5 * torch.linalg.qr(torch.randn(30, 30, generator=generator))[0]
    shift = torch.randn(4, 30, generator=generator)
    solution = solve(lambda z: torch.tanh(z @ weight.T) + shift, torch.zeros(4, 30), solver=solver, tol=1e-12,
                     max_iter=1000)
    # Some sample may hit residual 0 exactly; that one has converged.
    assert set(solution.counts()) <= {SolveStatus.STAGNATED, SolveStatus.CONVERGED}
    assert SolveStatus.STAGNATED in solution.counts()
    assert "tolerance about" in solution.explain()
    assert (solution.residual < 1e-5).all()
    assert int(solution.iterations.max()) < 200


@pytest.mark.parametrize("solver", ["picard", "anderson"])
def test_non_finite_on_the_way(solver):
    # The square root leaves its domain after some steps.
    solution = solve(lambda z: torch.sqrt(z) - 0.5, torch.full((2, 1), 0.9, dtype=D), solver=solver)
    assert only(solution) in (SolveStatus.NON_FINITE, SolveStatus.DIVERGED)
    solution = solve(lambda z: torch.sqrt(z) - 0.5, torch.full((2, 1), 0.9, dtype=D), solver="picard")
    assert only(solution) is SolveStatus.NON_FINITE
    assert solution.z.isfinite().all()


@pytest.mark.parametrize("solver", ALL)
def test_input_already_nan(solver):
    z0 = torch.zeros(4, 3, dtype=D)
    z0[1, 0] = float("nan")
    solution = solve(lambda z: 0.5 * z + 1, z0, solver=solver)
    assert solution.statuses() == [SolveStatus.CONVERGED, SolveStatus.NON_FINITE_INPUT] + [SolveStatus.CONVERGED] * 2
    x = torch.zeros(4, 3, dtype=D)
    x[2] = float("inf")
    solution = solve(lambda z, x: 0.5 * z + x, torch.zeros(4, 3, dtype=D), inputs=(x,), solver=solver)
    assert [status is SolveStatus.NON_FINITE_INPUT for status in solution.statuses()] == [False, False, True, False]
    with pytest.raises(NotConverged, match="already NaN"):
        solution.raise_if_failed()


def test_residual_too_large_for_a_map_that_changes_its_mind():
    calls = []

    def f(z):
        calls.append(1)
        return 0.5 * z + (1.0 if len(calls) < 60 else 0.0)

    solution = solve(f, torch.zeros(2, 2, dtype=D), solver=Stubborn(), max_iter=59)
    assert only(solution) is SolveStatus.RESIDUAL_TOO_LARGE
    assert not solution.converged.any()


class Stubborn(Picard):
    """Picard that waits at the solution until the map changes."""

    def step(self, problem, point, state):
        while problem.evaluations < 58:
            problem.evaluate(point.z)
        return Step(torch.full_like(point.z, 2.0), state)


class Boaster(FixedPointSolver[State]):
    """A solver that lies about the value of f at its proposal."""

    name = "boaster"

    def init(self, point):
        return State()

    def step(self, problem, point, state):
        return Step(point.z + 1, state, value=point.z + 1)


def test_a_solvers_word_is_not_trusted():
    solution = solve(lambda z: 0.5 * z + 7, torch.zeros(2, 2, dtype=D), solver=Boaster())
    assert only(solution) is SolveStatus.RESIDUAL_TOO_LARGE
    expected = (0.5 * solution.z + 7 - solution.z).norm(dim=1)
    assert torch.equal(solution.residual, expected)


def test_linear_solve_failed():
    solution = solve(lambda z: z + 1, torch.zeros(2, 2, dtype=D), solver="newton")
    assert only(solution) is SolveStatus.LINEAR_SOLVE_FAILED


@pytest.mark.parametrize("solver", ALL)
@pytest.mark.parametrize("given", ["closure", "inputs"])
def test_samples_do_not_influence_each_other(solver, given, generator):
    batch, n = 9, 6
    weight = torch.linalg.qr(torch.randn(n, n, dtype=D, generator=generator))[0]
    rate = torch.linspace(0.05, 0.9, batch, dtype=D).unsqueeze(1)
    rate[4] = 30.0  # One sample that does not contract.
    shift = torch.randn(batch, n, dtype=D, generator=generator)
    shift[6] = float("nan")  # One that is not a number.

    def f(z, rate, shift):
        return rate * torch.sin(z @ weight.T) + shift

    def run(rows):
        z0 = torch.zeros(len(rows), n, dtype=D)
        inputs = (rate[rows], shift[rows])
        if given == "inputs":
            return solve(f, z0, inputs=inputs, solver=solver, tol=1e-11, max_iter=300)
        return solve(lambda z: f(z, *inputs), z0, solver=solver, tol=1e-11, max_iter=300)

    together = run(torch.arange(batch))
    good = [row for row in range(batch) if row not in (4, 6)]
    assert together.converged[good].all(), together.explain()
    assert together.statuses()[6] is SolveStatus.NON_FINITE_INPUT
    for row in good:
        alone = run(torch.tensor([row]))
        assert alone.converged.all()
        # Both meet the tolerance, and the distance to the solution is at most residual / (1 - rate).
        bound = (together.residual[row] + alone.residual[0]) / (1 - rate[row, 0])
        assert (together.z[row] - alone.z[0]).norm() <= bound + 1e-14 * alone.z.norm()
        if solver in ("picard", "anderson"):
            assert abs(int(together.iterations[row]) - int(alone.iterations[0])) <= 1


@pytest.mark.parametrize("solver", ALL)
def test_finished_samples_leave_the_batch(solver, generator):
    batch, n = 40, 5
    weight = torch.linalg.qr(torch.randn(n, n, dtype=D, generator=generator))[0]
    rate = torch.linspace(0.0, 0.98, batch, dtype=D).unsqueeze(1)
    rate = rate[torch.randperm(batch, generator=generator)]
    seen = []

    def f(z, rate):
        seen.append(len(z))
        assert len(rate) == len(z)
        return rate * torch.tanh(z @ weight.T) + 1

    z0 = torch.zeros(batch, n, dtype=D)
    solution = solve(f, z0, inputs=(rate,), solver=solver, tol=1e-12, max_iter=3000)
    assert solution.converged.all(), solution.explain()
    *inside, last = seen
    assert last == batch, "the final check sees every sample"
    assert inside == sorted(inside, reverse=True)
    assert inside[-1] < 0.75 * batch
    assert sum(inside) < 1.4 * int((solution.evaluations - 1).sum())
    # The order is kept: every sample solves its own equation.
    assert ((rate * torch.tanh(solution.z @ weight.T) + 1 - solution.z).norm(dim=1) <= solution.tolerance).all()


def test_frozen_samples_stay_where_they_finished():
    visited = []
    rate = torch.tensor([[0.1], [0.95]], dtype=D)

    def f(z):
        visited.append(z[0].item())
        return rate * z + 1

    solution = solve(f, torch.zeros(2, 1, dtype=D), solver="picard", tol=1e-10, max_iter=1000)
    assert solution.converged.all()
    done = int(solution.iterations[0])
    assert len(set(visited[: done + 1])) == done + 1
    assert set(visited[done:]) == {solution.z[0].item()}
    assert int(solution.evaluations[0]) == done + 2
    assert len(visited) == int(solution.evaluations[1])


def test_warm_start_needs_no_step():
    cold = solve(torch.cos, torch.zeros(3, 2, dtype=D), tol=1e-10)
    warm = solve(torch.cos, cold.z, tol=1e-10)
    assert warm.iterations.tolist() == [0, 0, 0]
    assert torch.equal(warm.z, cold.z)


def test_absolute_and_relative_tolerance():
    def f(z):
        return 0.9 * z + 1e4

    absolute = solve(f, torch.zeros(1, 1, dtype=D), solver="picard", atol=1e-3, rtol=0.0, max_iter=1000)
    relative = solve(f, torch.zeros(1, 1, dtype=D), solver="picard", atol=0.0, rtol=1e-3, max_iter=1000)
    assert absolute.tolerance.item() == 1e-3
    assert absolute.residual.item() <= 1e-3
    # |f| is close to 1e5 there.
    assert relative.tolerance.item() == pytest.approx(100, rel=0.01)
    assert relative.residual.item() <= relative.tolerance.item()
    assert relative.iterations.item() < absolute.iterations.item()


def test_no_graph_and_no_change_of_the_start():
    weight = torch.tensor(0.5, dtype=D, requires_grad=True)
    z0 = torch.zeros(2, 3, dtype=D, requires_grad=True)
    for solver in ALL:
        solution = solve(lambda z: weight * torch.cos(z), z0, solver=solver)
        assert not solution.z.requires_grad
        assert torch.equal(z0, torch.zeros(2, 3, dtype=D))


def test_empty_batch():
    for solver in ALL:
        solution = solve(lambda z: 0.5 * z, torch.zeros(0, 3), solver=solver)
        assert solution.z.shape == (0, 3)
        assert solution.converged.shape == solution.residual.shape == solution.status.shape == (0,)
        assert "empty" in solution.raise_if_failed().summary()


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"solver": "pikard"}, ValueError, "unknown solver 'pikard'; did you mean 'picard'"),
    ({"solver": 3}, TypeError, "solver is 3"),
    ({"solver": Picard}, TypeError, "a class: create it"),
    ({"tol": 0.0}, ValueError, "tol is 0.0"),
    ({"tol": float("nan")}, ValueError, "tol is nan"),
    ({"atol": -1.0}, ValueError, "atol is -1.0"),
    ({"rtol": float("inf")}, ValueError, "rtol is inf"),
    ({"atol": 0.0, "rtol": 0.0}, ValueError, "both 0"),
    ({"max_iter": 0}, ValueError, "max_iter is 0"),
    ({"max_iter": 2.5}, ValueError, "max_iter is 2.5"),
    ({"z0": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "torch.int64"),
    ({"z0": torch.zeros(())}, ValueError, "no batch dimension"),
    ({"z0": [0.0]}, TypeError, "made of tensors"),
    ({"inputs": (torch.zeros(3, 3),)}, ValueError, r"inputs\[0\] .* first dimension must be the batch of z0, 2"),
    ({"inputs": (torch.zeros(2), torch.zeros(()))}, ValueError, r"inputs\[1\]"),
    ({"inputs": (1.0,)}, TypeError, r"inputs hold 1\.0"),
    ({"f": lambda z: z[:, :2]}, ValueError, r"shape of z, \(2, 3\), but returned a tensor of shape \(2, 2\)"),
    ({"f": lambda z: z.double()}, TypeError, "dtype of z, torch.float32, but returned .* torch.float64"),
    ({"f": lambda z: torch.zeros(2, 3, device="meta")}, ValueError, "device of z, cpu, but returned .* on meta"),
    ({"f": lambda z: None}, TypeError, "must return a tensor"),
    ({"f": lambda z: z.mul_(0.5)}, ValueError, "changed z in place"),
])
def test_bad_arguments_name_the_value(arguments, error, message):
    settings = {"f": lambda z: 0.5 * z + 1, "z0": torch.zeros(2, 3)} | arguments
    with pytest.raises(error, match=message):
        solve(settings.pop("f"), settings.pop("z0"), **settings)


def test_parameters_of_another_dtype_get_a_note():
    weight = torch.eye(3, dtype=D)
    with pytest.raises(RuntimeError, match=r"at z of shape \(2, 3\), torch.float32, on cpu; z0, the inputs"):
        solve(lambda z: z @ weight, torch.zeros(2, 3))


class BackwardOnly(torch.autograd.Function):
    """Half of z, without forward-mode derivative."""

    @staticmethod
    def forward(context, z):
        return 0.5 * z

    @staticmethod
    def backward(context, gradient):
        return 0.5 * gradient


def test_newton_on_a_map_without_forward_mode_says_what_to_do():
    z0 = torch.ones(2, 3, dtype=D)
    assert solve(BackwardOnly.apply, z0, solver="anderson").converged.all()
    with pytest.raises(RuntimeError, match="use solver='anderson'"):
        solve(BackwardOnly.apply, z0, solver="newton")


@pytest.mark.parametrize("solver", ["picard", "anderson", "broyden"])
def test_memory_does_not_grow_with_the_iterations(solver, generator):
    weight = 0.99 * torch.linalg.qr(torch.randn(30, 30, dtype=D, generator=generator))[0]
    references = []
    alive = []

    def f(z):
        alive.append(sum(reference() is not None for reference in references))
        value = z @ weight.T + 1
        references.append(weakref.ref(value))
        return value

    solve(f, torch.zeros(4, 30, dtype=D), solver=solver, tol=1e-12, max_iter=60)
    assert len(alive) > 40
    # The value of the last iterate and of the base it came from.
    assert max(alive) <= 4


@pytest.mark.gpu
@pytest.mark.parametrize("solver", ALL)
def test_on_a_gpu(solver, generator):
    weight = 0.9 * torch.linalg.qr(torch.randn(16, 16, dtype=D, generator=generator))[0]
    shift = torch.randn(7, 16, dtype=D, generator=generator)

    def run(device):
        w, b = weight.to(device), shift.to(device)
        return solve(lambda z, b: torch.tanh(z @ w.T) + b, torch.zeros_like(b), inputs=(b,), solver=solver, tol=1e-12)

    here, there = run("cpu"), run("cuda")
    assert there.z.is_cuda
    assert there.converged.all()
    assert (here.z - there.z.cpu()).abs().max() < 2e-11 / (1 - 0.9)
