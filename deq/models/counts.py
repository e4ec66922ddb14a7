"""Every architecture behind a "#Param" column of [SM], its count, and what the paper prints beside it.

Models are built on the meta device, so counting costs neither memory nor time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from deq.models.blocks import count_parameters
from deq.models.dkef import DKEF
from deq.models.ncsn import NCSN
from deq.models.nice import NICE
from deq.models.ssmvae import SSMVAE


@dataclass(frozen=True)
class CountRow:
    """One row.

    Attributes:
        table: number of the paper's table.
        row: the paper's name of the row, with the data set where the table has several.
        build: makes the network that the column counts.
        printed: the paper's figure, in millions.
        note: which reading this is.
    """

    table: int
    row: str
    build: Callable[[], nn.Module]
    printed: float
    note: str = "literal"

    def count(self) -> int:
        """Parameters of the rebuilt network."""
        with torch.device("meta"):
            return count_parameters(self.build())


def _score(size: int, variant: str, depth: int = 8) -> Callable[[], nn.Module]:
    return lambda: SSMVAE(image_size=size, variant=variant, depth=depth).score_network


def _dkef(dim: int, layers: int, inducing: int) -> Callable[[], nn.Module]:
    if layers == 0:
        return lambda: DKEF(dim, variant="deq", inducing=inducing)
    return lambda: DKEF(dim, layers=layers, inducing=inducing)


ROWS: tuple[CountRow, ...] = (
    CountRow(1, "CelebA SSM VAE", _score(64, "base"), 8.8),
    CountRow(1, "CelebA SSM VAE Aug(8)", _score(64, "aug", 8), 15),
    CountRow(1, "CelebA SSM VAE Aug(16)", _score(64, "aug", 16), 19),
    CountRow(1, "CelebA DEQ-SSM VAE", _score(64, "deq"), 9.7),
    CountRow(1, "CIFAR-10 SSM VAE", _score(32, "base"), 7.1),
    CountRow(1, "CIFAR-10 SSM VAE Aug(8)", _score(32, "aug", 8), 13),
    CountRow(1, "CIFAR-10 SSM VAE Aug(16)", _score(32, "aug", 16), 17),
    CountRow(1, "CIFAR-10 DEQ-SSM VAE", _score(32, "deq"), 7.5),
    *(CountRow(2, f"{name} {layers}-layer DKEF", _dkef(dim, layers, 64), printed / 1000)
      for name, dim, counts in (("Parkinson", 15, (10, 26, 51)), ("Wine", 11, (9, 25, 50)))
      for layers, printed in zip((3, 8, 16), counts, strict=True)),
    CountRow(2, "Parkinson DEQ DKEF", _dkef(15, 0, 64), 0.010),
    CountRow(2, "Wine DEQ DKEF", _dkef(11, 0, 64), 0.009),
    *(CountRow(3, f"{dim}-d {layers}-layer DKEF", _dkef(dim, layers, 200), printed / 1000)
      for dim, counts in ((100, (22, 41, 66)), (200, (33, 50, 76)))
      for layers, printed in zip((3, 8, 16), counts, strict=True)),
    CountRow(4, "SSM NICE", NICE, 15),
    CountRow(4, "DEQ-SSM NICE", lambda: NICE(variant="deq"), 14),
    CountRow(4, "DEQ-SSM NICE", lambda: NICE(variant="deq-released"), 14, "released map, without its unused modules"),
    CountRow(5, "SSM-VR NCSN", NCSN, 28),
    CountRow(5, "SSM-VR NCSN", lambda: NCSN(variant="cascaded-released"), 28, "released trunk"),
    CountRow(5, "TwoRes-SSM-VR NCSN", lambda: NCSN(variant="two-res"), 9, "literal net, DEQ applied once"),
    CountRow(5, "TwoRes-SSM-VR NCSN", lambda: NCSN(variant="two-res-released"), 9, "released trunk"),
    CountRow(5, "DEQ-SSM-VR NCSN", lambda: NCSN(variant="deq"), 9),
    CountRow(5, "DEQ-SSM-VR NCSN", lambda: NCSN(variant="deq-released"), 9, "released trunk"),
)


def report() -> str:
    """The rows as lines of text: rebuilt count beside the printed one."""
    lines = [f"{'table':>5}  {'row':<26} {'rebuilt':>12} {'paper':>8}  reading"]
    lines += [f"{row.table:>5}  {row.row:<26} {row.count():>12,} {row.printed:>7g}M  {row.note}" for row in ROWS]
    return "\n".join(lines)
