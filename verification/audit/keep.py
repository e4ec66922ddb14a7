"""Puts a subject back as it was: buffers, parameters, gradients, training flags, plain attributes, random states."""

from __future__ import annotations

import functools
import random
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: How far references are followed: a closure over a list of modules, a method of an object that holds one.
_DEPTH = 5


class Reached:
    """Modules, tensors and generators that functions can reach: closures, defaults, bound objects, named globals."""

    def __init__(self, *roots: Any) -> None:
        self.modules: list[nn.Module] = []
        self.tensors: list[Tensor] = []
        self.generators: list[torch.Generator] = []
        self.objects: list[Any] = []
        self.functions: list[types.FunctionType] = []
        #: Names by which functions know modules.
        self.labels: dict[int, str] = {}
        self._seen: set[int] = set()
        for root in roots:
            self._visit(root, 0)

    def _visit(self, value: Any, depth: int) -> None:
        if depth > _DEPTH or id(value) in self._seen or value is None or isinstance(value, str | int | float | type):
            return
        self._seen.add(id(value))
        if isinstance(value, Tensor):
            self.tensors.append(value)
        elif isinstance(value, nn.Module):
            for module in value.modules():
                if module is value or id(module) not in self._seen:
                    self._seen.add(id(module))
                    self.modules.append(module)
                    for name, item in vars(module).items():
                        if name not in ("_modules", "_parameters", "_buffers"):
                            self._visit(item, depth + 1)
        elif isinstance(value, torch.Generator):
            self.generators.append(value)
        elif isinstance(value, types.ModuleType | np.ndarray):
            return
        elif isinstance(value, functools.partial):
            self._visit((value.func, value.args, value.keywords), depth)
        elif isinstance(value, types.MethodType):
            self._visit(value.__self__, depth + 1)
            self._visit(value.__func__, depth)
        elif isinstance(value, types.FunctionType):
            self.functions.append(value)
            self._visit(value.__defaults__, depth + 1)
            self._visit(value.__kwdefaults__, depth + 1)
            known = {name: value.__globals__.get(name) for name in _names(value.__code__)}
            for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
                try:
                    known[name] = cell.cell_contents
                except ValueError:  # a name that is not bound yet
                    continue
            for name, item in known.items():
                if isinstance(item, nn.Module):
                    self.labels.setdefault(id(item), name)
                self._visit(item, depth + 1)
        elif isinstance(value, list | tuple | set | frozenset):
            for item in value:
                self._visit(item, depth + 1)
        elif isinstance(value, dict):
            for item in value.values():
                self._visit(item, depth + 1)
        elif hasattr(value, "__dict__") and not type(value).__module__.startswith(("torch", "numpy", "builtins")):
            self.objects.append(value)
            self._visit(vars(value), depth + 1)


def _names(code: types.CodeType) -> Iterator[str]:
    """Global names that a function uses, those of functions inside it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


class Keeper:
    """A snapshot of all that a subject can reach, and the way back to it."""

    def __init__(self, reached: Reached) -> None:
        # A scripted module keeps what it holds elsewhere: its tensors are put back, it has no attributes of its own.
        plain = [module for module in reached.modules if not isinstance(module, torch.jit.ScriptModule)]
        self._attributes = [(item, dict(vars(item))) for item in (*plain, *reached.objects)
                            if hasattr(item, "__dict__")]
        self._tables: list[tuple[Any, dict[str, Any]]] = [(table, dict(table)) for module in plain
                        for table in (module._parameters, module._buffers, module._modules)]
        tensors = {id(tensor): tensor for tensor in reached.tensors}
        for module in reached.modules:
            tensors |= {id(item): item for item in (*module.parameters(), *module.buffers())}
        self._tensors = [(tensor, tensor.detach().clone()) for tensor in tensors.values()
                         if not tensor.is_sparse and not tensor.is_meta]
        self._gradients = [(t, t.grad, None if t.grad is None else t.grad.detach().clone(), t.requires_grad)
                           for t in tensors.values() if t.is_leaf]
        self._generators = [(generator, generator.get_state()) for generator in reached.generators]
        self._random = random_state()

    def restore(self) -> None:
        """Put everything back that has changed."""
        with torch.no_grad():
            for item, attributes in self._attributes:
                _put_back(vars(item), attributes)
            for table, entries in self._tables:
                _put_back(table, entries)
            for tensor, values in self._tensors:
                _put_values(tensor, values)
            for tensor, gradient, value, flag in self._gradients:
                if tensor.grad is not gradient:
                    tensor.grad = gradient
                if gradient is not None and value is not None:
                    _put_values(gradient, value)
                if tensor.requires_grad != flag:
                    tensor.requires_grad_(flag)
        self.restore_random()

    def restore_random(self) -> None:
        """Put the random states back."""
        for generator, state in self._generators:
            generator.set_state(state)
        set_random_state(self._random)


def _put_back(table: Any, entries: dict[str, Any]) -> None:
    if len(table) == len(entries) and all(table.get(key) is value for key, value in entries.items()):
        return
    for key in [key for key in table if key not in entries]:
        del table[key]
    table.update(entries)


def _put_values(tensor: Tensor, value: Tensor) -> None:
    if tensor.shape != value.shape:
        tensor.data = value
    elif not torch.equal(tensor, value) and not bool((tensor.isnan() & value.isnan() | (tensor == value)).all()):
        tensor.data.copy_(value)  # not `tensor.copy_`: graphs of the owner hold it


def random_state() -> tuple[Any, ...]:
    """State of the global generators: torch on all its devices, numpy, Python."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate()  # noqa: NPY002


def set_random_state(state: tuple[Any, ...]) -> None:
    """Set what `random_state` returned."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state_all(state[1])
    np.random.set_state(state[2])  # noqa: NPY002
    random.setstate(state[3])


@contextmanager
def kept(*roots: Any) -> Iterator[Keeper]:
    """Run a block and put back all that the roots can reach, also after an exception."""
    keeper = Keeper(Reached(*roots))
    modes = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    try:
        yield keeper
    finally:
        keeper.restore()
        torch.set_default_dtype(modes[0])
        torch.set_grad_enabled(modes[1])
        if torch.get_num_threads() != modes[2]:
            torch.set_num_threads(modes[2])
