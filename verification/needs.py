"""What a claim may need, whether it is at hand, and how to get it where it is not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from verification.context import Context, Scale

#: Files that make up a data set, below the data folder.
DATA_FILES: dict[str, tuple[str, ...]] = {
    "parkinson": ("uci/parkinsons_updrs.data",),
    "wine-red": ("uci/winequality-red.csv",),
    "wine-white": ("uci/winequality-white.csv",),
    "mnist": tuple(f"mnist/{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1",
                                                         "t10k-images-idx3", "t10k-labels-idx1")),
    "fashion-mnist": tuple(f"fashion-mnist/{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1",
                                                                         "t10k-images-idx3", "t10k-labels-idx1")),
    "cifar10": ("cifar10/cifar10-jpeg.zip",),
}


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


def data_file(context: Context, name: str, index: int = 0) -> Path:
    """Path of the data set's file, for checks that read it.

    Raises:
        NotAtHand: the data folder or the file is not there.
        KeyError: no such data set.
    """
    relative = DATA_FILES[name][index]
    if context.data is None or not (context.data / relative).is_file():
        missing = _missing_data(f"data:{name}", name, context)
        raise NotAtHand("data:" + name, missing.what if missing else relative, missing.remedy if missing else "")
    return context.data / relative


def missing_needs(needs: Iterable[str], context: Context) -> tuple[Missing, ...]:
    """Return what of `needs` is not at hand in this run.

    Raises:
        ValueError: a need that nothing here knows how to look up.
    """
    return tuple(found for need in needs if (found := _look_up(need, context)) is not None)


def _look_up(need: str, context: Context) -> Missing | None:
    kind, _, name = need.partition(":")
    if kind == "data" and name in DATA_FILES:
        return _missing_data(need, name, context)
    if need == "cuda":
        return None if torch.cuda.is_available() else Missing(need, "no CUDA device", "run on a machine with one")
    if kind == "scale" and name in tuple(Scale):
        order = list(Scale)
        if order.index(context.scale) >= order.index(Scale(name)):
            return None
        return Missing(need, f"this run is at scale {context.scale}", f"deqproof verify --scale {name}")
    known = [f"data:{name}" for name in DATA_FILES] + ["cuda"] + [f"scale:{scale}" for scale in Scale]
    raise ValueError(f"unknown need {need!r}; known are {', '.join(known)}")


def _missing_data(need: str, name: str, context: Context) -> Missing | None:
    if context.data is None:
        return Missing(need, "no data folder is set",
                       f"point --data or DEQPROOF_DATA at a folder with {DATA_FILES[name][0]}")
    lacking = [path for path in DATA_FILES[name] if not (context.data / path).is_file()]
    if not lacking:
        return None
    return Missing(need, f"{lacking[0]} is not in the data folder", "put it there, or point --data or DEQPROOF_DATA at "
                   "a folder that has it")
