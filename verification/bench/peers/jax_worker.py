"""The JAX side: `python jax_worker.py FOLDER`, one JSON line in, one out; run as a file, so that torch stays out."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

JaxArray = Any


def main() -> None:
    """Answer requests until the input ends."""
    folder = Path(sys.argv[1])
    functions: dict[tuple[str, str], Callable[[], JaxArray]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _answer(request, folder, functions)
        except Exception as error:  # told to the parent, who shows it in the table
            answer = {"problem": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), flush=True)


def _answer(request: dict[str, Any], folder: Path, functions: dict) -> dict[str, Any]:
    if request["do"] == "list":
        has_jax = importlib.util.find_spec("jax") is not None
        return {"available": {name: has_jax and importlib.util.find_spec(name) is not None
                              for name in ("optimistix", "jaxopt")}}
    key = request["name"], request["task"]
    if key not in functions:
        functions[key] = build(*key, folder)
    if request["do"] == "answer":
        np.save(folder / "answer.npy", np.asarray(functions[key]()))
        return {}
    now = time.perf_counter if request["clock"] == "wall" else time.process_time
    start = now()
    functions[key]().block_until_ready()
    return {"seconds": now() - start}


def build(name: str, task: str, folder: Path) -> Callable[[], JaxArray]:
    """The compiled function of a peer for a task."""
    import jax  # optional: only this process has it
    import jax.numpy as jnp

    stored = np.load(folder / "problem.npz")
    weight, injection, bias, amplitude, x = (jnp.asarray(stored[f"arr_{index}"]) for index in range(5))
    tolerance = float(stored["tolerance"])
    solve = {"optimistix": _optimistix, "jaxopt": _jaxopt}[name](tolerance)

    def cell(z: JaxArray, args: tuple) -> JaxArray:
        x, weight, injection, bias = args
        return jax.nn.softplus(weight @ z + injection @ x + bias)

    def log_density(x: JaxArray, parameters: tuple) -> JaxArray:
        weight, injection, bias, amplitude = parameters
        z = solve(cell, jnp.zeros(len(weight)), (x, weight, injection, bias))
        return z @ amplitude + 0.1 * z @ z

    def loss(parameters: tuple, x: JaxArray) -> JaxArray:
        def one(x: JaxArray) -> JaxArray:
            score = jax.grad(log_density)
            # Reverse over reverse: the fastest of optimistix's mode pairs here, and the only one of jaxopt's.
            hessian = jax.jacrev(score)(x, parameters)
            s = score(x, parameters)
            return 0.5 * s @ s + jnp.trace(hessian)
        return jax.vmap(one)(x).mean()

    def mean_density(x: JaxArray, parameters: tuple) -> JaxArray:
        return jax.vmap(log_density, in_axes=(0, None))(x, parameters).mean()

    def flat(tensors: Any) -> JaxArray:
        return jnp.concatenate([t.reshape(-1) for t in tensors])

    parameters = (weight, injection, bias, amplitude)
    if task == "loss":
        compiled = jax.jit(lambda parameters, x: flat(jax.grad(loss)(parameters, x)))
        return lambda: compiled(parameters, x)

    def gradient(parameters: tuple, x: JaxArray) -> JaxArray:
        in_x, in_parameters = jax.grad(mean_density, argnums=(0, 1))(x, parameters)
        return flat((in_x, *in_parameters))

    both = jax.jit(gradient)
    return lambda: both(parameters, x)


def _optimistix(tolerance: float) -> Callable[..., JaxArray]:
    import optimistix

    solver = optimistix.FixedPointIteration(rtol=tolerance, atol=tolerance)

    def solve(cell: Callable, z: JaxArray, args: tuple) -> JaxArray:
        return optimistix.fixed_point(cell, solver, z, args, max_steps=500).value
    return solve


def _jaxopt(tolerance: float) -> Callable[..., JaxArray]:
    import jaxopt

    def linear(matvec: Callable, b: JaxArray, **_: Any) -> JaxArray:
        return jaxopt.linear_solve.solve_normal_cg(matvec, b, tol=tolerance, maxiter=500)

    def solve(cell: Callable, z: JaxArray, args: tuple) -> JaxArray:
        solver = jaxopt.FixedPointIteration(fixed_point_fun=cell, maxiter=500, tol=tolerance, implicit_diff=True,
                                            implicit_diff_solve=linear)
        return solver.run(z, args).params
    return solve


if __name__ == "__main__":
    main()
