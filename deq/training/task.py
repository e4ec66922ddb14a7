"""What the engine trains: a task owns model, optimisers and data, and says what one update and one evaluation are."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from deq.training.config import MODELS, Config, ConfigError, OptimizerOptions

#: Engine's service to a task: backward, average over processes, check, clip, step. Gives the gradient norm.
Apply = Callable[[str, Tensor], float]


def build_model(config: Config, **extra: Any) -> nn.Module:
    """The model of a configuration, with its gradient rule.

    Raises:
        ConfigError: the model refuses its options.
    """
    try:
        return MODELS[config.model.kind](**config.model.options, gradient=config.gradient.build(), **extra)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model {config.model.kind} cannot be built: {error}") from error


def build_optimizer(parameters: Iterable[nn.Parameter], options: OptimizerOptions) -> Optimizer:
    """Adam, RMSprop or plain SGD.

    Raises:
        ConfigError: unknown name.
    """
    kept = [p for p in parameters if p.requires_grad]
    if options.name == "adam":
        return torch.optim.Adam(kept, lr=options.lr, weight_decay=options.weight_decay)
    if options.name == "rmsprop":
        return torch.optim.RMSprop(kept, lr=options.lr, weight_decay=options.weight_decay)
    if options.name == "sgd":
        return torch.optim.SGD(kept, lr=options.lr, weight_decay=options.weight_decay)
    raise ConfigError(f"optimizer.name {options.name!r} is not known; take adam, rmsprop or sgd")


class Task(ABC):
    """One kind of training.

    Attributes:
        module: everything with parameters or buffers that a checkpoint must hold.
        optimizers: by name.
        rows: number of training rows.
    """

    module: nn.Module
    optimizers: dict[str, Optimizer]
    rows: int

    @abstractmethod
    def update(self, rows: Tensor, apply: Apply) -> dict[str, float]:
        """One training step on these rows; `apply(optimizer_name, loss)` for each update. Gives numbers to log."""

    def evaluate(self) -> dict[str, float]:
        """Numbers on held-out data; none by default."""
        return {}

    def look(self) -> dict[str, float]:
        """Numbers on held-out data along the way; those of `evaluate` by default."""
        return self.evaluate()

    @property
    def done(self) -> bool:
        """Whether training should stop before its last step."""
        return False

    def monitor(self) -> dict[str, float]:
        """Numbers to log beside those of the engine; none by default."""
        return {}

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold beyond module and optimisers: tensors, numbers, strings, lists, dictionaries."""
        return {}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what `extra_state` gave; nothing by default."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no extra state, but the checkpoint holds {', '.join(state)}")

    def finish(self) -> dict[str, float]:
        """Called once after the last step (the second stage of DKEF, say); none by default."""
        return {}

    def parameters(self, name: str) -> list[nn.Parameter]:
        """Parameters of one optimiser."""
        return [p for group in self.optimizers[name].param_groups for p in group["params"]]


class MovingAverage(nn.Module):
    """An exponential moving average of a model's parameters, as a copy of the model.

    Args:
        model: to follow.
        decay: 0.999 for NCSN version 2.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f"decay must lie between 0 and 1, not {decay}")
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Move the copy a little towards the model."""
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs.detach(), 1 - self.decay)
