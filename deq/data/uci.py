"""UCI tables of [SM] table 2: Parkinson telemonitoring, red and white wine."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from deq.data.catalogue import DATASETS
from deq.data.locate import DamagedDataError, locate
from deq.data.tabular import Array, Preprocessing, Tabular, dequantise, drop_correlated, prepare


def read_table(path: Path, delimiter: str) -> tuple[Array, tuple[str, ...]]:
    """A delimited file with one header line, every field a number.

    Raises:
        DamagedDataError: it is not such a file; the text names the line.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        header = tuple(next(reader, ()))
        rows = []
        for number, fields in enumerate(reader, start=2):
            try:
                row = [float(field) for field in fields]
            except ValueError as error:
                raise DamagedDataError(f"{path}, line {number}: {error}") from error
            if len(row) != len(header):
                raise DamagedDataError(f"{path}, line {number}: {len(row)} fields, the header has {len(header)}")
            rows.append(row)
    if not rows:
        raise DamagedDataError(f"{path} holds no rows")
    return np.array(rows), header


def load_parkinson(folder: str | os.PathLike[str] | None = None, options: Preprocessing | None = None, *,
                   download: bool = False) -> Tabular:
    """Parkinson telemonitoring, d = 15: subject, age and sex dropped, columns with |correlation| > 0.98 removed.

    Args:
        folder: data folder, looked in first.
        options: preprocessing.
        download: fetch the file where it is missing.

    Raises:
        DataError: the file is missing or damaged.
    """
    options = options or Preprocessing()
    table, columns = read_table(locate(DATASETS["parkinson"].files[0], folder, download=download), ",")
    table, columns = drop_correlated(table[:, 3:], columns[3:], options.correlation_limit)
    return prepare("parkinson", table, columns, options)


def load_wine(colour: str, folder: str | os.PathLike[str] | None = None, options: Preprocessing | None = None, *,
              download: bool = False) -> Tabular:
    """Red or white wine, d = 11: `quality` dropped, columns dequantised.

    Raises:
        ValueError: another colour.
        DataError: the file is missing or damaged.
    """
    if colour not in ("red", "white"):
        raise ValueError(f"colour must be 'red' or 'white', got {colour!r}")
    options = options or Preprocessing()
    name = f"{colour}wine"
    table, columns = read_table(locate(DATASETS[name].files[0], folder, download=download), ";")
    keep = [i for i, column in enumerate(columns) if column != "quality"]
    rng = np.random.RandomState(options.noise_seed)
    return prepare(name, dequantise(table[:, keep], rng), tuple(columns[i] for i in keep), options,
                   ("columns are dequantised with noise twice a quantisation step wide",))
