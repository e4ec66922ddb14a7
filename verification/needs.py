"""What a claim may need, whether it is at hand, and how to get it where it is not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from deq.data import DATASETS, missing
from deq.data.locate import ENVIRONMENT_VARIABLE
from verification.context import Context, Scale


@dataclass(frozen=True)
class Missing:
    """Something that is not at hand.

    Attributes:
        need: as the claim names it ("data:parkinson").
        what: what is missing, in a line.
        remedy: how to get it.
    """

    need: str
    what: str
    remedy: str


class NotAtHand(Exception):
    """Raised by a check that finds out late that it lacks something: the claim becomes `UNTESTED`, not `ERROR`."""

    def __init__(self, need: str, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.missing = Missing(need, what, remedy)


def missing_needs(needs: Iterable[str], context: Context) -> tuple[Missing, ...]:
    """Return what of `needs` is not at hand in this run.

    Raises:
        ValueError: a need that nothing here knows how to look up.
    """
    return tuple(found for need in needs if (found := _look_up(need, context)) is not None)


def _look_up(need: str, context: Context) -> Missing | None:
    kind, _, name = need.partition(":")
    if kind == "data" and name in DATASETS:
        return _missing_data(need, name, context)
    if need == "cuda":
        return None if torch.cuda.is_available() else Missing(need, "no CUDA device", "run on a machine with one")
    if kind == "scale" and name in tuple(Scale):
        order = list(Scale)
        if order.index(context.scale) >= order.index(Scale(name)):
            return None
        return Missing(need, f"this run is at scale {context.scale}", f"deqproof verify --scale {name}")
    known = [f"data:{name}" for name in DATASETS] + ["cuda"] + [f"scale:{scale}" for scale in Scale]
    raise ValueError(f"unknown need {need!r}; known are {', '.join(known)}")


def _missing_data(need: str, name: str, context: Context) -> Missing | None:
    dataset = DATASETS[name]
    lacking = missing(dataset.files, context.data)
    if not lacking or (dataset.alternatives and len(lacking) < len(dataset.files)):
        return None
    fetch = f"run `deqproof data fetch {name}`, or " if all(file.urls for file in lacking) else ""
    return Missing(need, f"{lacking[0].name} is not at hand ({dataset.title})",
                   f"{fetch}point --data or {ENVIRONMENT_VARIABLE} at a folder that holds it")
