"""The watcher as a callback of Lightning Fabric: `Fabric(callbacks=[WatchCallback(every=50)])`."""

from __future__ import annotations

from typing import Any

from torch import nn

from deq.watching.watcher import Action, Watcher, watch

__all__ = ["WatchCallback"]


class WatchCallback:
    """Watches a module between `fabric.call("on_train_start", module=...)` and `fabric.call("on_train_end")`.

    Args:
        every: as in `deq.watch`.
        action: as in `deq.watch`.
        options: further ones.

    Attributes:
        watcher: of the module, or None before the start.
    """

    def __init__(self, every: int = 50, action: Action = "warn", **options: Any) -> None:
        self._make = lambda module: watch(module, every, action, **options)
        self.watcher: Watcher | None = None

    def on_train_start(self, module: nn.Module, **_: Any) -> None:
        """Begin; a module that Fabric has wrapped is unwrapped."""
        if self.watcher is not None:
            self.watcher.close()
        self.watcher = self._make(getattr(module, "module", module))

    def on_train_end(self, **_: Any) -> None:
        """Stop."""
        if self.watcher is not None:
            self.watcher.close()
