"""`deqproof distance`: how far a model's images are from real ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deq.data import DataError
from deq.training import CheckpointError, ConfigError
from deq.training.distance import image_distance
from deq.training.trained import load_trained
from figures.commands.sample import SHAPES
from verification.errors import UserError

EXAMPLES = """\
examples:
  deqproof distance runs/00001-table4-deq-ssm --count 1000
  deqproof distance runs/00002-table5-deq --count 10000 --features inception      (needs pytorch-fid and its weights)
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("distance", help="Frechet distance of a model's images from real ones",
                                   epilog=EXAMPLES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter,
                                   description="Draws images and compares their features with those of test images: "
                                               "the "
                                               "FID with Inception, else a distance on features of a classifier that "
                                               "is "
                                               "trained here and is not comparable with FIDs.")
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="images on each side (default: 1000)")
    parser.add_argument("--features", choices=("classifier", "inception"), default="classifier")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="of the classifier (default: 3)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default: DEQPROOF_DATA)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compute and print; the exit status."""
    if arguments.count < 4:
        raise UserError(f"--count must be at least 4, not {arguments.count}: two halves need two images each")
    try:
        model, config = load_trained(arguments.folder)
        data = config.data
        shape = SHAPES.get(data.name, (data.channels, data.size, data.size))
        report = image_distance(model, data, shape, count=arguments.count, features=arguments.features,
                                seed=arguments.seed, epochs=arguments.epochs, folder=arguments.data)
    except (ConfigError, CheckpointError, DataError, ModuleNotFoundError) as error:
        raise UserError(str(error)) from error
    print(f"{report.name} of {config.name}: {report.value:.4g}")
    print(f"  {report.samples} samples against {report.references} real images"
          + ("; FEWER IMAGES THAN FEATURES, the covariance is rank deficient" if report.rank_deficient else ""))
    print(f"  two halves of the real images: {report.floor:.4g}")
    print(f"  with covariances multiplied by 0.642, as the released code does: {report.released_value:.4g}")
    if arguments.features == "classifier":
        print(f"  classifier's accuracy on its training images: {report.accuracy:.3f}; not comparable with an FID")
    return 0
