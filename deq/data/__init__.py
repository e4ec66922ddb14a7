"""Data sets of the papers: found in a local folder or downloaded, always checked, with the papers' preprocessing."""
# ruff: noqa: E402 - the check comes before the imports that would fail without a word of advice

from deq.rooms import need

need("deq.data", "train", ["numpy", "pooch", "sklearn"])

from deq.data.catalogue import DATASETS, Dataset
from deq.data.fallback import TABULAR, load_breast_cancer_table, load_tabular, parkinson_or_stand_in
from deq.data.gaussians import expected_log_likelihood, load_gaussian
from deq.data.images import load_celeba, load_cifar10, load_mnist
from deq.data.locate import (
    DamagedDataError,
    DataError,
    DataFile,
    MissingDataError,
    cache_folder,
    locate,
    missing,
    search_path,
)
from deq.data.tabular import Preprocessing, Tabular
from deq.data.uci import load_parkinson, load_wine

__all__ = [
    "DATASETS",
    "TABULAR",
    "DamagedDataError",
    "DataError",
    "DataFile",
    "Dataset",
    "MissingDataError",
    "Preprocessing",
    "Tabular",
    "cache_folder",
    "expected_log_likelihood",
    "load_breast_cancer_table",
    "load_celeba",
    "load_cifar10",
    "load_gaussian",
    "load_mnist",
    "load_parkinson",
    "load_tabular",
    "load_wine",
    "locate",
    "missing",
    "parkinson_or_stand_in",
    "search_path",
]
