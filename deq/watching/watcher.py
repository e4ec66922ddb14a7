"""`deq.watch`: looks at equilibria while they are trained, and warns before the true loss breaks."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from deq.solvers import solve
from deq.status import DEQError
from deq.subject import Subject
from deq.watching.course import Warned, judge
from deq.watching.events import Solved, subscribe, unsubscribe
from deq.watching.measure import Reading, measure, steps_of

__all__ = ["TrainingWarning", "WatchedFault", "Watcher", "watch"]

Action = Literal["warn", "raise"] | Callable[[Warned], None]
LOG = logging.getLogger("deq.watch")
#: Share of the training time that looks may take.
SHARE = 0.05


class TrainingWarning(RuntimeWarning):
    """A number of a watched training has left its course.

    Example:
        >>> import deq
        >>> issubclass(deq.TrainingWarning, Warning)
        True
    """


class WatchedFault(DEQError, RuntimeError):
    """The same with action="raise".

    Attributes:
        warned: the warning.

    Example:
        >>> import deq
        >>> issubclass(deq.WatchedFault, Exception)
        True
    """

    def __init__(self, warned: Warned) -> None:
        self.warned = warned
        super().__init__(warned.text)


class Watcher:
    """Readings of a training and the warnings that follow from them; made by `watch`.

    Attributes:
        readings: so far.
        warned: warnings so far; each rule speaks once until its number is back in bounds.
        step: training steps counted.
        seconds: spent on looks.

    Example:
        >>> import torch, deq
        >>> layer = deq.DEQ(deq.DenseCell(3, 4))
        >>> watcher = deq.watch(layer, every=1)
        >>> type(watcher).__name__
        'Watcher'
    """

    def __init__(self, target: nn.Module | Subject, every: int, action: Action, samples: int, share: float,
                 writer: Any) -> None:
        self.every, self.action, self.samples, self.share, self.writer = every, action, samples, share, writer
        self.readings: list[Reading] = []
        self.warned: list[Warned] = []
        self.step = 0
        self.seconds = 0.0
        self._target = target
        self._last_step: int | None = None
        self._last_cost = 0.0
        self._silent: set[str] = set()
        self._began = time.perf_counter()
        self._inside = 0
        self._handles: list[Any] = []
        self._looked = False
        self._busy = False
        if isinstance(target, nn.Module):
            self._handles = [target.register_forward_pre_hook(self._enter),
                             target.register_forward_hook(self._leave, always_call=True)]
            subscribe(self._hear)

    # -- stepping --------------------------------------------------------------------------------------------------

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        if self._inside == 0 and self._counts():
            self.step += 1
            self._looked = False
        self._inside += 1

    def _leave(self, module: nn.Module, arguments: Any, value: Any) -> None:
        self._inside = max(0, self._inside - 1)

    def _counts(self) -> bool:
        return bool(getattr(self._target, "training", True)) and torch.is_grad_enabled()

    def _due(self) -> bool:
        """Whether a look may be taken now: enough steps since the last one, and within the share of the time."""
        since = self.step - (self._last_step or 0)
        if since < self.every:
            return False
        # The next look may cost more than the last one: what is promised is an upper bound.
        expected = self.seconds + 1.5 * self._last_cost
        return self.share == 1 or expected <= 0.9 * self.share * (time.perf_counter() - self._began)

    def _hear(self, event: Solved) -> None:
        if self._busy or not self._inside or not self._counts() or self._looked or not self._due():
            return
        self._looked = True
        steps, damping = steps_of(event.rule)
        self._look(event.f, event.z, event.inputs, steps, damping,
                   float("nan") if event.iterations is None else float(event.iterations))

    def tick(self) -> Reading | None:
        """Count a training step of a watched `Subject` (call it once a step); the reading, where a look was taken."""
        if not isinstance(self._target, Subject):
            raise TypeError("tick() is for a watched Subject; a watched module counts its own forward passes")
        self.step += 1
        return self.look() if self._due() else None

    def look(self) -> Reading:
        """Look at a watched `Subject` now, whatever is due: solves from its z0 and reads all numbers there."""
        subject = self._target
        if not isinstance(subject, Subject):
            raise TypeError("look() is for a watched Subject; a watched module is looked at as it solves")
        layout, began = subject.layout, time.perf_counter()
        dtype = layout.dtype if layout.dtype.itemsize >= 4 else torch.float32

        def f(flat: Tensor) -> Tensor:
            return layout.pack(subject.f(layout.unpack(flat), *subject.inputs), dtype)

        with torch.no_grad():
            solution = solve(f, layout.pack(subject.z0, dtype).detach(), tol=max(1e-6, 50 * torch.finfo(dtype).eps))
        return self._look(subject.f, layout.unpack(solution.z), subject.inputs, subject.declared_steps, 1.0,
                          float(solution.iterations.max()), began)

    def _look(self, f: Callable[..., Any], z: Any, inputs: tuple[Any, ...], steps: int | None, damping: float,
              iterations: float, began: float | None = None) -> Reading:
        began = time.perf_counter() if began is None else began
        self._busy = True
        modes = torch.get_rng_state()
        buffers = [(buffer, buffer.detach().clone()) for buffer in self._target.buffers()] \
            if isinstance(self._target, nn.Module) else []
        try:
            with torch.autocast(_device(z), enabled=False):
                numbers = measure(f, z, inputs, steps=steps, damping=damping, samples=self.samples)
        finally:
            self._busy = False
            torch.set_rng_state(modes)
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.data.copy_(before)
        self._last_step, self._last_cost = self.step, time.perf_counter() - began
        self.seconds += self._last_cost
        reading = Reading(step=self.step, iterations=iterations, seconds=self._last_cost, **numbers)
        self.readings.append(reading)
        self._tell(reading)
        return reading

    # -- telling ---------------------------------------------------------------------------------------------------

    def _tell(self, reading: Reading) -> None:
        if self.writer is not None:
            for name in ("residual", "radius", "bias", "cosine", "iterations"):
                self.writer.add_scalar(f"watch/{name}", getattr(reading, name), reading.step)
        LOG.debug("step %d: %s", reading.step, reading)
        found = judge(self.readings)
        self._silent &= {warned.rule for warned in found}
        for warned in found:
            if warned.rule in self._silent:
                continue
            self._silent.add(warned.rule)
            self.warned.append(warned)
            LOG.warning(warned.text)
            if callable(self.action):
                self.action(warned)
            elif self.action == "raise":
                self.close()
                raise WatchedFault(warned)
            else:
                warnings.warn(warned.text, TrainingWarning, stacklevel=2)

    @property
    def history(self) -> dict[str, np.ndarray[Any, Any]]:
        """All readings as arrays by name: step, residual, radius, bias, cosine, iterations, seconds."""
        names = Reading.__dataclass_fields__
        return {name: np.array([getattr(reading, name) for reading in self.readings]) for name in names}

    @property
    def share_spent(self) -> float:
        """Part of the time since the start that looks have taken."""
        return self.seconds / max(time.perf_counter() - self._began, 1e-9)

    def picture(self, path: Any = None) -> Any:
        """The history as a matplotlib figure; saved where a path is given.

        Raises:
            ValueError: nothing has been read yet.
        """
        from matplotlib.figure import Figure  # slow to import, and needed for this alone
        history = self.history
        if not len(history["step"]):
            raise ValueError(f"nothing has been read yet: {self.step} steps, a look every {self.every}")
        figure = Figure(figsize=(7.2, 6.0), layout="constrained")
        for axes, (name, text) in zip(figure.subplots(3, 1, sharex=True), (
                ("radius", "spectral radius"), ("bias", "bias and cosine"), ("residual", "relative residual")),
                strict=True):
            axes.plot(history["step"], history[name], ".-", label=name)
            if name == "bias":
                axes.plot(history["step"], history["cosine"], ".-", label="cosine")
                axes.legend(frameon=False)
            if name == "residual":
                axes.set_yscale("symlog", linthresh=1e-12)
            for warned in self.warned:
                axes.axvline(warned.step, color="tab:red", linewidth=0.8, linestyle=":")
            axes.set_ylabel(text)
        axes.set_xlabel("training step")
        if path is not None:
            figure.savefig(path)
        return figure

    # -- life ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop watching; what was read stays."""
        unsubscribe(self._hear)
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def watch(target: nn.Module | Subject, every: int = 50, action: Action = "warn", *, samples: int = 4,
          share: float = SHARE, writer: Any = None) -> Watcher:
    """Watch the equilibria of a training: radius, residual, bias and cosine of the gradient rule, on a few samples.

    A module counts its forward passes in training mode with grad on as steps, and is looked at as it solves by
    `deq.DEQ` or a plain `deq.equilibrium`; a `Subject` is stepped by `tick()`. A look costs a dozen products, and comes
    later than `every` where it would take more than `share` of the time. Nothing is changed: no gradient, no buffer, no
    global random number.

    Args:
        target: a module, or a Subject.
        every: steps between looks, at least.
        action: "warn" (a `TrainingWarning`), "raise" (`WatchedFault`), or a function that gets the `Warned`. All are
            logged by the logger "deq.watch".
        samples: looked at.
        share: of the time since the start that looks may take; 1 for no such limit.
        writer: a TensorBoard `SummaryWriter`, or whatever has its `add_scalar`.

    Returns:
        The watcher, to be used as a context manager or as it is; `.history`, `.warned`, `.picture()`, `.close()`.

    Raises:
        TypeError: the target is neither.
        ValueError: a number or the action is out of range.

    Example:
        >>> import deq
        >>> layer = deq.DEQ(deq.DenseCell(input_size=3, state_size=8), gradient=deq.Phantom(2))
        >>> with deq.watch(layer, every=1, share=1.0) as seen:
        ...     for _ in range(3):
        ...         layer(torch.randn(16, 3)).sum().backward()
        >>> len(seen.history["radius"])
        3
    """
    if not isinstance(target, nn.Module | Subject):
        raise TypeError(f"watch takes a module or a deq.Subject, got {type(target).__name__}")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every must be a whole number of at least 1, got {every!r}")
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share!r}")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be a whole number of at least 1, got {samples!r}")
    if not callable(action) and action not in ("warn", "raise"):
        raise ValueError(f"action must be 'warn', 'raise' or a function, got {action!r}")
    return Watcher(target, every, action, samples, share, writer)


def _device(z: Any) -> str:
    return z.device.type if isinstance(z, Tensor) else "cpu"
