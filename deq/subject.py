"""What an audit looks at: somebody's map, start, solve and loss, and what they believe of the gradient."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from deq.interop.pytree import Layout
from deq.status import DEQError

__all__ = ["Subject", "SubjectError"]

_DECLARED = re.compile(r"exact|phantom:(\d+)")


class SubjectError(DEQError, ValueError):
    """Something that cannot be audited as it stands; the text is one line that says what and how to mend it.

    Example:
        >>> import torch, deq
        >>> try:
        ...     deq.Subject("no function", torch.zeros(1, 1))
        ... except deq.SubjectError as error:
        ...     print(error)
        Subject(f=...) must be callable, got str
    """


@dataclass(frozen=True, eq=False)
class Subject:
    """An implicit model, as its owner uses it.

    Args:
        f: the map f(z, *inputs) -> z.
        z0: a start, [batch, ...]: a tensor or a tree (tuple, list, dict, dataclass) of them, of any floating dtype.
        inputs: what f gets after z; tensors whose first dimension is the batch are taken apart by samples.
        parameters: tensors, or a module, in which gradients are compared; by default every leaf that f's graph reaches.
        loss: loss(z, *inputs) -> [batch] or a number; by default |z|^2 / 2 of each sample.
        forward: forward() -> z, the owner's own solve with the gradient that their training uses.
        declared: what the owner believes of that gradient: "exact", or "phantom:K".
        name: for headings.
        tol: the tolerance that the owner's solver is given, where it should be judged; else it is looked for in
            `forward`.

    Raises:
        SubjectError: f, loss or forward cannot be called, z0 is no state, or `declared` is not known.

    Example:
        >>> import torch
        >>> subject = Subject(lambda z, x: torch.tanh(0.5 * z + x), torch.zeros(4, 3), inputs=(torch.randn(4, 3),))
        >>> subject.layout.size
        3
    """

    f: Callable[..., Any]
    z0: Any
    inputs: Any = ()
    parameters: nn.Module | Tensor | Iterable[Tensor] | None = None
    loss: Callable[..., Any] | None = None
    forward: Callable[[], Any] | None = None
    declared: str = "exact"
    name: str = ""
    tol: float | None = None
    layout: Layout = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("f", "loss", "forward"):
            value = getattr(self, name)
            if not callable(value) and (name == "f" or value is not None):
                raise SubjectError(f"Subject({name}=...) must be callable, got {type(value).__name__}")
        try:
            layout = Layout.of(self.z0)
        except (TypeError, ValueError) as error:
            raise SubjectError(f"Subject(z0=...): {error}") from error
        if not layout.batch or not layout.size:
            raise SubjectError(f"Subject(z0=...) is empty: {layout.describe()}")
        object.__setattr__(self, "layout", layout)
        if not isinstance(self.inputs, tuple):
            object.__setattr__(self, "inputs", tuple(self.inputs) if isinstance(self.inputs, list) else (self.inputs,))
        if not isinstance(self.declared, str) or not _DECLARED.fullmatch(self.declared):
            raise SubjectError(f"Subject(declared=...) must be 'exact' or 'phantom:K', got {self.declared!r}")
        if self.declared_steps == 0:
            raise SubjectError("Subject(declared='phantom:0'): K must be at least 1, since nothing depends on the "
                               "parameters without a step")
        if self.tol is not None and not self.tol > 0:
            raise SubjectError(f"Subject(tol=...) must be positive, got {self.tol!r}")
        if not isinstance(self.name, str):
            raise SubjectError(f"Subject(name=...) must be a string, got {type(self.name).__name__}")
        object.__setattr__(self, "parameters", _kept(self.parameters))

    @property
    def declared_steps(self) -> int | None:
        """K of a declared phantom gradient, or None where the gradient is believed exact."""
        match = _DECLARED.fullmatch(self.declared)
        return int(match[1]) if match and match[1] else None

    def named_parameters(self) -> dict[str, Tensor] | None:
        """The given parameters by name, or None where none were given."""
        given = self.parameters
        if given is None:
            return None
        if isinstance(given, nn.Module):
            return dict(given.named_parameters())
        if isinstance(given, Tensor):
            return {"parameters": given}
        if isinstance(given, dict):
            return {str(key): value for key, value in given.items()}
        return {f"parameter {index}": value for index, value in enumerate(given)}


def _kept(given: Any) -> Any:
    """Parameters as a module, a tensor, a dict or a tuple: a generator can be read once only."""
    if isinstance(given, nn.Module | Tensor | None):
        return given
    try:
        items = dict(given) if isinstance(given, dict) else tuple(given)
    except TypeError:
        raise SubjectError("Subject(parameters=...) must be a module or tensors, got "
                           f"{type(given).__name__}") from None
    if isinstance(items, tuple) and items and all(isinstance(item, tuple) and len(item) == 2 for item in items):
        items = dict(items)  # module.named_parameters()
    for value in items.values() if isinstance(items, dict) else items:
        if not isinstance(value, Tensor):
            raise SubjectError("Subject(parameters=...) must be a module or tensors (module.parameters()), got "
                               f"{type(value).__name__} among them")
    return items
