"""A deep kernel model with equilibrium features, trained on real data: the subject of [SM] appendix C and of others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

import deq
from deq.data import Tabular, parkinson_or_stand_in
from deq.models import DKEF
from deq.models.dkef_features import EquilibriumFeatures
from deq.training.dkef import DKEFProtocol, DKEFResult, DKEFTraining, Hook
from verification.context import Context, Scale


@dataclass(frozen=True)
class Cell:
    """One kernel's equilibrium map `z = softplus(W z + softplus(U x + b))` with its trained numbers, float64.

    Attributes:
        W: `[h, h]`, normalised.
        U: `[h, d]`.
        b: `[h]`.
    """

    W: Tensor
    U: Tensor
    b: Tensor

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        """The map at one sample: z `[h]`, x `[d]`."""
        inside = torch.nn.functional.softplus(self.U @ x + self.b)
        return torch.nn.functional.softplus(self.W @ z + inside)


@dataclass(frozen=True)
class TrainedDKEF:
    """What training left.

    Attributes:
        model: the trained model, both stages done, phantom-trained with K = 2.
        table: its data.
        result: the course of training.
        objective: "sm" or "ssm".
    """

    model: DKEF
    table: Tabular
    result: DKEFResult
    objective: str

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The trained map of each kernel."""
        features = equilibrium_features(self.model)
        weights = features.weight().detach()
        return tuple(Cell(W, U, b) for W, U, b in zip(weights, features.injection.detach(), features.bias.detach(),
                                                       strict=True))

    @property
    def inputs(self) -> Tensor:
        """A handful of test rows, `[8, d]`."""
        return self.table.test[:8]

    def domain(self) -> str:
        """The setting in a line, for evidence."""
        stand_in = [note for note in self.table.notes if "stands in" in note]
        return (f"DKEF with equilibrium features (width 32, 3 kernels, 64 inducing points), {self.table.name} data "
                f"(d = {self.table.dimension}), trained by {self.objective.upper()} for {self.result.steps} steps"
                + "".join(f". {note}" for note in stand_in))


def equilibrium_features(model: DKEF) -> EquilibriumFeatures:
    """The model's features, which must be an equilibrium.

    Raises:
        TypeError: they are explicit.
    """
    if not isinstance(model.features, EquilibriumFeatures):
        raise TypeError("this model has explicit features; build it with variant='deq'")
    return model.features


def training_settings(context: Context, objective: str) -> DKEFTraining:
    """The protocol at the run's scale: in full only at `paper`."""
    config = DKEFTraining(objective=objective, seed=context.seed)
    if context.scale is Scale.PAPER:
        return config
    steps = context.choose(6, 200, 0)
    return replace(config, max_steps=steps, validate_every=context.choose(6, 40, 1), patience=None, alpha_rows=500,
                   final_steps=context.choose(5, 100, 1000))


def train_dkef(context: Context, objective: str = "sm", hook: Hook | None = None,
               settings: DKEFTraining | None = None, *, variant: str = "deq", steps: int = 2) -> TrainedDKEF:
    """Train afresh, phantom K = 2 as in the paper; `hook` looks on and changes nothing.

    Args:
        context: data folder, seed and scale.
        objective: "sm" or "ssm".
        hook: called before every step.
        settings: the protocol; that of the scale where None.
        variant: of the features: "deq" is equation (5), "deq-released" the authors' own map.
        steps: K of the phantom that trains it: 2 in print, 3 in the released code.
    """
    table = parkinson_or_stand_in(context.data)
    seeds = torch.Generator().manual_seed(context.seed)
    model = DKEF(table.dimension, variant=variant, gradient=deq.Phantom(steps), generator=seeds)
    trainer = DKEFProtocol(model, table, settings or training_settings(context, objective), hook=hook)
    return TrainedDKEF(model, table, trainer.run(), objective)


def trained_dkef(context: Context, objective: str = "sm") -> TrainedDKEF:
    """The trained subject, made once a run."""
    return context.shared(f"trained-dkef-{objective}", lambda: train_dkef(context, objective))
