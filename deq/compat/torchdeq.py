"""The calls of torchdeq 0.1 (Geng and Kolter, 2023), with implicit derivatives that are right to any order.

`from deq.compat import torchdeq` takes the place of `import torchdeq` for `get_deq`, `reset_deq`, `fp_correction`,
`jac_reg` and `VariationalDropout`. What differs, and why, stands in the documentation (docs/guide/from-torchdeq.md):
the implicit gradient solves its linear system to rounding whatever `b_solver`, `b_max_iter` and `b_tol` say, and can be
differentiated again; a solve that misses `f_tol` warns; an option that does not exist is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from deq.compat.trajectory import Statistics, run
from deq.equilibrium import equilibrium
from deq.gradients import Exact
from deq.linear.jacobian import as_rows
from deq.names import unknown

__all__ = ["TorchDEQ", "VariationalDropout", "fp_correction", "get_deq", "jac_reg", "reset_deq"]

_DEFAULTS: dict[str, Any] = {
    "core": "sliced", "f_solver": "fixed_point_iter", "b_solver": "fixed_point_iter", "no_stat": None,
    "f_max_iter": 40, "b_max_iter": 40, "f_tol": 1e-3, "b_tol": 1e-6, "f_stop_mode": "abs", "b_stop_mode": "abs",
    "eval_factor": 1.0, "eval_f_max_iter": 0, "ift": False, "hook_ift": False, "grad": 1, "tau": 1.0, "sup_gap": -1,
    "sup_loc": (), "n_states": 1, "indexing": (), "order": 3,
}
_SOLVERS = ("fixed_point_iter", "simple_fixed_point_iter", "anderson", "broyden")


def get_deq(args: argparse.Namespace | Mapping[str, Any] | None = None, **options: Any) -> TorchDEQ:
    """A `TorchDEQ` from the options of torchdeq's `get_deq`.

    Args:
        args: a namespace or mapping; names in it that are no options are passed over, since it often holds a whole
            program's arguments.
        options: options by name, which go before `args`: core ("sliced" | "indexing"), f_solver, b_solver, f_max_iter,
            b_max_iter, f_tol, b_tol, f_stop_mode, b_stop_mode ("abs" | "rel"), eval_factor, eval_f_max_iter, ift,
            hook_ift, grad, tau, sup_gap, sup_loc, n_states, indexing, no_stat; and order, of this library: the highest
            order of derivative of the implicit gradient.

    Raises:
        TypeError: an option that does not exist.
        ValueError: a value that an option cannot have.

    Example:
        >>> from deq.compat import torchdeq
        >>> layer = torchdeq.get_deq(ift=True, f_tol=1e-6)
        >>> z_out, info = layer(lambda z: 0.5 * torch.cos(z), torch.zeros(2, 3))
        >>> z_out[-1].shape, info["nstep"].shape
        (torch.Size([2, 3]), torch.Size([2]))
    """
    given = dict(args) if isinstance(args, Mapping) else vars(args) if args is not None else {}
    for name in options:
        if name not in _DEFAULTS:
            raise TypeError(unknown("option of get_deq", name, _DEFAULTS))
    known = {name: value for name, value in given.items() if name in _DEFAULTS}
    return TorchDEQ({**_DEFAULTS, **known, **options})


class TorchDEQ(nn.Module):
    """An equilibrium as torchdeq's `DEQSliced` and `DEQIndexing` give it; made by `get_deq`.

    Args:
        options: all options, by name.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.options = dict(options)
        for name, allowed in (("core", ("sliced", "indexing")), ("f_solver", _SOLVERS), ("b_solver", _SOLVERS),
                              ("f_stop_mode", ("abs", "rel")), ("b_stop_mode", ("abs", "rel"))):
            if self.options[name] not in allowed:
                raise ValueError(unknown(name, str(self.options[name]), allowed))
        grad = self.options["grad"]
        self._grad = [grad] if isinstance(grad, int) else list(grad)
        if not self._grad or any(steps < 1 for steps in self._grad):
            raise ValueError(f"grad is {grad!r}; a phantom gradient takes at least one step")
        self._implicit = bool(self.options["ift"] or self.options["hook_ift"])
        count = len(self._marks(self.options["f_max_iter"]))
        if len(self._grad) not in (1, count):
            raise ValueError(f"grad has {len(self._grad)} entries for {count} states")

    def forward(self, func: Callable[..., Any], z_init: Tensor | Sequence[Tensor], *,
                solver_kwargs: Mapping[str, Any] | None = None, sradius_mode: bool = False,
                **ignored: Any) -> tuple[list[Any], dict[str, Tensor]]:
        """States and statistics.

        Args:
            func: f(z), or f(*z) for a list of states.
            z_init: start, [batch, ...], or a list of such.
            solver_kwargs: `f_max_iter`, `tau` for this call.
            sradius_mode: whether to estimate the spectral radius of df/dz, outside of training.
            ignored: what torchdeq takes here and has no use for (`backward_writer`: there is no backward solver).

        Returns:
            A list of states in the form of z_init (in training those that n_states, indexing, sup_gap and sup_loc ask
            for, the last one being the equilibrium, all with their gradients; else the equilibrium alone), and a
            dictionary of `abs_lowest`, `rel_lowest`, `nstep` [batch], `abs_trace`, `rel_trace` [batch, steps] and
            `sradius`.
        """
        shape = _Shape(z_init)
        f, z = shape.map_of(func), shape.pack(z_init).detach()
        extra = dict(solver_kwargs or {})
        limit = int(extra.pop("f_max_iter", self.options["f_max_iter"] if self.training else self._eval_limit()))
        if not self.training:
            z, _, statistics = self._solve(f, z, limit, (), extra)
            radius = _spectral_radius(f, z) if sradius_mode else z.new_zeros(1)
            return [shape.unpack(z)], statistics.as_dict(radius)
        marks = self._marks(limit)
        produced: list[Tensor] = []
        if self.options["core"] == "indexing":
            _, states, statistics = self._solve(f, z, limit, marks, extra)
            for index, state in enumerate(states[:len(marks)]):
                produced += self._attach(f, state, index, len(marks))
        else:
            for index, part in enumerate(marks):
                z, _, statistics = self._solve(f, z, part, (), extra)
                produced += self._attach(f, z, index, len(marks))
                z = produced[-1].detach()
        return [shape.unpack(state) for state in produced], statistics.as_dict(z.new_full((1,), -1.0))

    def extra_repr(self) -> str:
        """Options that are not the defaults."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items() if value != _DEFAULTS[name])

    def _eval_limit(self) -> int:
        own = self.options["eval_f_max_iter"]
        return int(own) if own > 0 else int(self.options["f_max_iter"] * self.options["eval_factor"])

    def _marks(self, limit: int) -> list[int]:
        """Steps at which states are taken ("indexing"), or the lengths of the slices ("sliced")."""
        states, chosen = int(self.options["n_states"]), list(self.options["indexing"] or ())
        if self.options["core"] == "indexing":
            if states <= 1:
                return [*chosen, limit]
            count = max(min(limit, states), 1)
            gap = limit // count
            return [limit - (count - k - 1) * gap for k in range(count)]
        if states > 1:
            return [limit // states] * states
        ends = [0, *chosen, limit]
        return [end - start for start, end in pairwise(ends)]

    def _solve(self, f: Callable[[Tensor], Tensor], z: Tensor, limit: int, marks: Sequence[int],
               extra: Mapping[str, Any]) -> tuple[Tensor, list[Tensor], Statistics]:
        return run(f, z, solver=self.options["f_solver"], limit=limit, tolerance=self.options["f_tol"],
                   mode=self.options["f_stop_mode"], marks=marks, damping=float(extra.get("tau", 1.0)))

    def _attach(self, f: Callable[[Tensor], Tensor], z: Tensor, index: int, count: int) -> list[Tensor]:
        """A state with its gradient: implicit for the last one where asked for, else phantom steps."""
        z = z.detach()
        if self._implicit and index == count - 1:
            tolerance = float(self.options["f_tol"])
            relative = self.options["f_stop_mode"] == "rel"
            return [equilibrium(f, z, gradient=Exact(int(self.options["order"])), solver="picard",
                                atol=tolerance * (1e-3 if relative else 1.0), rtol=tolerance if relative else 0.0,
                                max_iter=max(1, int(self.options["f_max_iter"])), on_failure="warn")]
        steps = self._grad[index] if len(self._grad) == count else self._grad[0]
        tau, gap, places = self.options["tau"], self.options["sup_gap"], self.options["sup_loc"] or ()
        found = []
        for step in range(1, steps + 1):
            z = f(z) if tau == 1.0 else tau * f(z) + (1 - tau) * z
            if (gap > 0 and step % gap == 0) or (gap <= 0 and step in places):
                found.append(z)
        return found if gap > 0 else [*found, z]


class _Shape:
    """One tensor, or a list of them as one matrix."""

    def __init__(self, z: Tensor | Sequence[Tensor]) -> None:
        self._single = isinstance(z, Tensor)
        if not self._single and not isinstance(z, list | tuple):
            raise TypeError(f"z_init must be a tensor or a list of tensors, got {type(z).__name__}")
        self._shapes = [tuple(part.shape[1:]) for part in ([z] if self._single else z)]  # type: ignore[union-attr,list-item]

    def pack(self, z: Any) -> Tensor:
        return z if self._single else torch.cat([as_rows(part) for part in z], 1)

    def unpack(self, rows: Tensor) -> Any:
        if self._single:
            return rows
        sizes = [int(torch.Size(shape).numel()) for shape in self._shapes]
        return [part.reshape(len(rows), *shape) for part, shape in zip(rows.split(sizes, 1), self._shapes, strict=True)]

    def map_of(self, func: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
        if self._single:
            return func
        return lambda rows: self.pack(func(*self.unpack(rows)))


def _spectral_radius(f: Callable[[Tensor], Tensor], z: Tensor, steps: int = 100) -> Tensor:
    """|largest eigenvalue| of df/dz by power iteration on J^T, [batch]."""
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        value = f(point)
    v, radius = torch.randn_like(z), z.new_zeros(len(z))
    for _ in range(steps):
        (pulled,) = torch.autograd.grad(value, point, v, retain_graph=True)
        radius = torch.linalg.vector_norm(as_rows(pulled), dim=1)
        v = pulled / radius.clamp_min(torch.finfo(z.dtype).tiny).reshape(-1, *(1,) * (z.dim() - 1))
    return radius


def jac_reg(f0: Tensor, z0: Tensor, vecs: int = 1, create_graph: bool = True) -> Tensor:
    """|df/dz|_F^2 / number of entries by Hutchinson's estimate, from a value and the point it was taken at.

    Raises:
        ValueError: `create_graph=False` while gradients are recorded: the penalty would have none, silently (use
            `torch.no_grad()` to only look at it).
    """
    if not create_graph and torch.is_grad_enabled():
        raise ValueError("jac_reg(create_graph=False) has no gradient, so that a loss with it trains nothing; leave "
                         "the default, or call it under torch.no_grad() to only look at the number")
    total = f0.new_zeros(())
    for _ in range(vecs):
        with torch.enable_grad():
            (pulled,) = torch.autograd.grad(f0, z0, torch.randn_like(z0), retain_graph=True, create_graph=create_graph)
        total = total + pulled.square().sum()
    return total / (vecs * z0.numel())


def fp_correction(crit: Callable[..., Tensor], args: Sequence[Any], weight_func: str = "exp",
                  return_loss_values: bool = False, **options: float) -> Any:
    """A weighted sum of losses over states that approach the equilibrium (fixed-point correction).

    Args:
        crit: the loss of one state.
        args: its arguments; lists are walked through together, shorter ones from their start again.
        weight_func: "exp" (gamma^(n - k - 1), gamma = 0.8), "linear" (1 - (n - k - 1) gamma / n + bias, gamma = 0.9) or
            "const" (c = 1).
        return_loss_values: whether to return the single losses, as numbers, too.
        options: gamma, bias, c.

    Raises:
        ValueError: an unknown weight function.

    Example:
        >>> from deq.compat import torchdeq
        >>> states = [torch.full((2,), 2.0), torch.full((2,), 1.0)]
        >>> round(float(torchdeq.fp_correction(lambda z, y: (z - y).mean(), (states, torch.zeros(2)))), 6)
        2.6
    """
    lists = [item if isinstance(item, list | tuple) else [item] for item in args]
    count = max(len(item) for item in lists)
    gamma = options.get("gamma", 0.8 if weight_func == "exp" else 0.9)
    weights = {"exp": lambda k: gamma ** (count - k - 1),
               "linear": lambda k: 1 - (count - k - 1) / count * gamma + options.get("bias", 0.0),
               "const": lambda k: options.get("c", 1.0)}
    if weight_func not in weights:
        raise ValueError(unknown("weight_func", weight_func, weights))
    losses = [crit(*(item[k % len(item)] for item in lists)) for k in range(count)]
    total = sum((weights[weight_func](k) * loss for k, loss in enumerate(losses)), start=torch.zeros(()))
    return (total, [float(loss.detach()) for loss in losses]) if return_loss_values else total


class VariationalDropout(nn.Module):
    """Dropout whose mask is drawn once and kept until `reset_deq`, so that f stays one function during a solve.

    Args:
        dropout: the share of entries that are set to zero, in [0, 1).
    """

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must lie in [0, 1)")
        self.dropout, self.mask = dropout, None

    mask: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """The mask applied, in training; else x."""
        if not self.training or self.dropout == 0:
            return x
        if self.mask is None or self.mask.shape != x.shape:
            kept = torch.full_like(x, 1 - self.dropout).bernoulli() / (1 - self.dropout)
            self.mask = kept.detach()
        return self.mask * x


def reset_deq(model: nn.Module) -> None:
    """Draw fresh dropout masks at the next call; weight normalisation here needs no reset."""
    for module in model.modules():
        if isinstance(module, VariationalDropout):
            module.mask = None
