"""What the engine trains: a task owns model, optimisers and data, and says what one update and one evaluation are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from deq.training.config import MODELS, Config, ConfigError
from deq.training.options import OptimizerOptions

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
    """Adam, RMSprop or plain SGD."""
    kept = [p for p in parameters if p.requires_grad]
    kinds: dict[str, Callable[..., Optimizer]] = {
        "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}
    return kinds[options.name](kept, lr=options.lr, weight_decay=options.weight_decay)


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


class MovingAverage(AveragedModel):
    """An exponential moving average of a model's parameters, as a copy of the model; torch's own average.

    Args:
        model: to follow.
        decay: 0.999 for NCSN version 2.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must lie between 0 and 1, not {decay}")
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.n_averaged += 1        # the copy made here is the first value; the next one moves it
        self.requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        """The copy."""
        return self.module

    def follow(self, model: nn.Module) -> None:
        """Move the copy a little towards the model."""
        self.update_parameters(model)
