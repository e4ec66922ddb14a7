"""The accuracy study by script.

`python -m verification.experiments.accuracy --dataset mnist --data FOLDER --size full --out FILE`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from verification.experiments.accuracy.cifar import cifar_features
from verification.experiments.accuracy.data import IMAGE_SETS, image_data
from verification.experiments.accuracy.study import FULL, StudySize, accuracy_study

#: Samples a class for training and test: a minute or two on two cores, and [RMT]'s own numbers.
SAMPLES = {"reduced": (200, 100), "full": (5000, 800)}
CIFAR_EPOCHS = {"reduced": 2, "full": 60}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and write its rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m verification.experiments.accuracy", description=__doc__)
    parser.add_argument("--dataset", choices=(*IMAGE_SETS, "cifar10"), default="mnist")
    parser.add_argument("--data", type=Path, default=None, help="data folder (default: DEQPROOF_DATA, then the cache)")
    parser.add_argument("--size", choices=tuple(SAMPLES), default="reduced")
    parser.add_argument("--sigma-a2", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("accuracy.json"))
    chosen = parser.parse_args(arguments)
    train, test = SAMPLES[chosen.size]
    if chosen.dataset == "cifar10":
        data = cifar_features(chosen.data, per_class_train=train, per_class_test=test,
                              epochs=CIFAR_EPOCHS[chosen.size], seed=chosen.seed)
    else:
        data = image_data(chosen.dataset, chosen.data, per_class_train=train, per_class_test=test)
    size = FULL if chosen.size == "full" else StudySize()
    result = accuracy_study(data, size, sigma_a2=chosen.sigma_a2, seed=chosen.seed,
                            report=lambda line: print(line, file=sys.stderr, flush=True))
    chosen.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"{len(result['rows'])} rows in {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
