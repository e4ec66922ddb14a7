"""What stands in for a data file that is not at hand: real measurements that scikit-learn ships."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
from sklearn.datasets import load_breast_cancer

from deq.data.catalogue import DATASETS
from deq.data.gaussians import load_gaussian
from deq.data.locate import find
from deq.data.tabular import Preprocessing, Tabular, drop_correlated, prepare
from deq.data.uci import load_parkinson, load_wine
from deq.names import unknown

TABULAR = ("parkinson", "redwine", "whitewine", "breast-cancer", "gaussian-D")


def load_breast_cancer_table(options: Preprocessing | None = None) -> Tabular:
    """Breast Cancer Wisconsin (569 rows of 30 measurements) with Parkinson's preprocessing; ships with scikit-learn."""
    options = options or Preprocessing()
    bunch = load_breast_cancer()
    table, columns = drop_correlated(np.asarray(bunch.data, dtype=np.float64), tuple(map(str, bunch.feature_names)),
                                     options.correlation_limit)
    return prepare("breast-cancer", table, columns, options)


def load_tabular(name: str, folder: str | os.PathLike[str] | None = None, options: Preprocessing | None = None, *,
                 download: bool = False) -> Tabular:
    """A table by name: parkinson, redwine, whitewine, breast-cancer or gaussian-D with D the dimension.

    Raises:
        ValueError: the name is unknown.
        DataError: its file is missing or damaged.
    """
    if name == "parkinson":
        return load_parkinson(folder, options, download=download)
    if name in ("redwine", "whitewine"):
        return load_wine(name.removesuffix("wine"), folder, options, download=download)
    if name == "breast-cancer":
        return load_breast_cancer_table(options)
    if name.startswith("gaussian-") and name.removeprefix("gaussian-").isdigit():
        return load_gaussian(int(name.removeprefix("gaussian-")))
    raise ValueError(unknown("table", name, TABULAR))


def parkinson_or_stand_in(folder: str | os.PathLike[str] | None = None,
                          options: Preprocessing | None = None) -> Tabular:
    """Parkinson where it is at hand, else the breast cancer table with a note that says so.

    A damaged Parkinson file is an error all the same: absence is excusable, damage is not.
    """
    if find(DATASETS["parkinson"].files[0], folder) is not None:
        return load_parkinson(folder, options)
    table = load_breast_cancer_table(options)
    return replace(table, notes=(*table.notes, "Parkinson telemonitoring is not at hand: Breast Cancer Wisconsin, "
                                 "which scikit-learn ships, stands in for it"))
