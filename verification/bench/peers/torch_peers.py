"""Peers in PyTorch: torchdeq, xitorch, torchopt, torchidl (that one by pip --no-deps: it pins old versions)."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from verification.bench.case import Contestant, Role
from verification.bench.problems import DenseProblem, first_gradient, nested_loss_gradient

Solve = Callable[[Tensor], Tensor]
_MOST_STEPS = 500


def torch_contestants(task: str, problem: DenseProblem, tolerance: float) -> tuple[list[Contestant], dict[str, str]]:
    """Those that are installed, for the task "loss" or "gradient", and why others are absent."""
    contestants, absent = [], {}
    for module, make in (("torchdeq", _torchdeq), ("xitorch", _xitorch), ("torchopt", _torchopt),
                         ("torchidl", _torchidl)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecations inside other people's packages
                solves = make(importlib.import_module(module), problem, tolerance)
        except ImportError as error:
            absent[module] = f"not installed: {error}"
            continue
        for name, solve in solves.items():
            contestants.append(Contestant(name, Role.PEER, _quiet(_work(task, problem, solve))))
    return contestants, absent


def _work(task: str, problem: DenseProblem, solve: Solve) -> Callable[[], Tensor]:
    if task == "loss":
        return lambda: nested_loss_gradient(problem, solve, problem.x)
    return lambda: first_gradient(problem, solve)


def _quiet(action: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return action()
    return run


def _torchdeq(torchdeq: ModuleType, problem: DenseProblem, tolerance: float) -> dict[str, Solve]:
    options: dict[str, Any] = {"f_solver": "anderson", "b_solver": "anderson", "f_max_iter": 100, "b_max_iter": 100,
                               "f_tol": tolerance, "b_tol": tolerance, "f_stop_mode": "rel", "b_stop_mode": "rel"}

    def solver(**more: Any) -> Solve:
        def solve(x: Tensor) -> Tensor:
            layer = torchdeq.get_deq(**options, **more)
            layer.train()
            outputs, _ = layer(lambda z: problem.f(z, x), problem.start(x))
            return outputs[-1]
        return solve

    picard = {**options, "f_solver": "fixed_point_iter", "b_solver": "fixed_point_iter"}

    def plain(x: Tensor) -> Tensor:
        layer = torchdeq.get_deq(**picard, ift=True)
        layer.train()
        outputs, _ = layer(lambda z: problem.f(z, x), problem.start(x))
        return outputs[-1]

    return {"torchdeq ift": solver(ift=True), "torchdeq ift, picard": plain}


def _xitorch(xitorch: ModuleType, problem: DenseProblem, tolerance: float) -> dict[str, Solve]:
    optimize = importlib.import_module("xitorch.optimize")

    def picard(function: Callable[..., Tensor], z: Tensor, params: Any, **_: Any) -> Tensor:
        for _step in range(_MOST_STEPS):
            residual = function(z, *params)  # z - f(z)
            z = z - residual
            if residual.norm() <= tolerance * z.norm():
                break
        return z

    def solve(x: Tensor) -> Tensor:
        def function(z: Tensor, x: Tensor, weight: Tensor, injection: Tensor, bias: Tensor) -> Tensor:
            return torch.nn.functional.softplus(z @ weight.T + x @ injection.T + bias)

        return optimize.equilibrium(
            function, problem.start(x), params=(x, *problem.parameters[:3]), method=picard,
            bck_options={"method": "bicgstab", "rtol": tolerance, "atol": tolerance})

    return {"xitorch": solve}


def _torchopt(torchopt: ModuleType, problem: DenseProblem, tolerance: float) -> dict[str, Solve]:
    solver = torchopt.linear_solve.solve_normal_cg(rtol=tolerance, atol=tolerance, maxiter=_MOST_STEPS)

    def residual(z: Tensor, x: Tensor, weight: Tensor, injection: Tensor, bias: Tensor) -> Tensor:
        return torch.nn.functional.softplus(z @ weight.T + x @ injection.T + bias) - z

    @torchopt.diff.implicit.custom_root(residual, argnums=(1, 2, 3, 4), solve=solver)
    def root(z: Tensor, x: Tensor, weight: Tensor, injection: Tensor, bias: Tensor) -> Tensor:
        with torch.no_grad():
            for _ in range(_MOST_STEPS):
                new = torch.nn.functional.softplus(z @ weight.T + x @ injection.T + bias)
                gap = (new - z).norm()
                z = new
                if gap <= tolerance * z.norm():
                    break
        return z

    def solve(x: Tensor) -> Tensor:
        return root(problem.start(x).requires_grad_(), x, *problem.parameters[:3])

    return {"torchopt custom_root": solve}


def _torchidl(torchidl: ModuleType, problem: DenseProblem, tolerance: float) -> dict[str, Solve]:
    base: Any = importlib.import_module("torchidl.implicit_function").ImplicitFunction

    class Softplus(base):  # its maps are phi(A X + B U), samples as columns; ReLU unless told otherwise
        @staticmethod
        def phi(preactivation: Tensor) -> Tensor:
            return torch.nn.functional.softplus(preactivation)

        @staticmethod
        def dphi(preactivation: Tensor) -> Tensor:
            return torch.sigmoid(preactivation)

    Softplus.set_parameters(mitr=_MOST_STEPS, grad_mitr=_MOST_STEPS, tol=tolerance, grad_tol=tolerance)

    def solve(x: Tensor) -> Tensor:
        inputs = torch.cat((x, x.new_ones(len(x), 1)), 1)
        injection = torch.cat((problem.injection, problem.bias.unsqueeze(1)), 1)
        return Softplus.apply(problem.weight, injection, problem.start(x).T, inputs.T).T

    return {"torchidl": solve}
