"""`deqproof sample`: a grid of images from a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deq.evaluation import save_image_grid
from deq.training import CheckpointError, ConfigError
from deq.training.trained import load_trained, sample_images
from verification.errors import UserError

EXAMPLES = """\
examples:
  deqproof sample runs/00001-table4-deq-ssm
  deqproof sample runs/00002-table5-deq --count 16 --sampler released --grid released.png
"""
#: Channels, height and width by data set.
SHAPES = {"mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32), "celeba": (3, 64, 64)}


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("sample", help="draw images from a trained model", epilog=EXAMPLES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter,
                                   description="Draws images from the newest checkpoint of a run and writes a grid.")
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--count", type=int, default=64, metavar="N", help="images (default: 64)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint (default: the newest)")
    parser.add_argument("--sampler", choices=("standard", "released"), default="standard",
                        help="Langevin update of NCSN: as published, or as the released code runs it")
    parser.add_argument("--grid", type=Path, metavar="FILE", help="PNG to write (default: RUN/samples.png)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw and write; the exit status."""
    if arguments.count < 1:
        raise UserError(f"--count must be at least 1, not {arguments.count}")
    path = arguments.grid or arguments.folder / "samples.png"
    try:
        model, config = load_trained(arguments.folder, arguments.step)
        data = config.data
        shape = SHAPES.get(data.name, (data.channels, data.size, data.size))
        images = sample_images(model, arguments.count, shape, arguments.seed, sampler=arguments.sampler)
    except (ConfigError, CheckpointError) as error:
        raise UserError(str(error)) from error
    save_image_grid(path, images)
    print(f"{arguments.count} images of {config.name} in {path}")
    return 0
