"""Reading a person's own model for certification: weights from safetensors, inputs from csv, npy or safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from analysis.rigorous.balls import finite_array

Array = NDArray[np.float64]


class CheckpointError(ValueError):
    """A file cannot be used for a certificate; the message says why and what would help."""


@dataclass(frozen=True)
class LayerWeights:
    """Float weights of `z = sigma(W z + tau(U x + b))` with the readout `a.z + c |z|^2 - |x|^2 / (2 s^2)`.

    Attributes:
        weight: W [n, n]; inputs: U [n, d]; bias: b [n].
        activation: a name of `BALL_ACTIVATIONS`.
        linear: a [n]; ones where the checkpoint has none.
        quadratic: c.
        base_width: s, or None for no term in x.
        injection: tau, another name of an activation.
        sha256: of the file they came from, or "".
    """

    weight: Array
    inputs: Array
    bias: Array
    activation: str
    linear: Array
    quadratic: float = 0.0
    base_width: float | None = None
    injection: str = "identity"
    sha256: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        w, u = finite_array(self.weight, "W", 2), finite_array(self.inputs, "U", 2)
        b, a = finite_array(self.bias, "b", 1), finite_array(self.linear, "a", 1)
        n = len(b)
        if w.shape != (n, n) or u.shape[0] != n or a.shape != (n,):
            raise ValueError(f"shapes do not fit: W {w.shape}, U {u.shape}, b {b.shape}, a {a.shape}; wanted "
                             "[n, n], [n, d], [n], [n]")
        finite_array([self.quadratic], "c", 1)
        if self.base_width is not None:
            width = finite_array([self.base_width], "s", 1)
            if width[0] <= 0:
                raise ValueError(f"the base width s must be positive, not {self.base_width}")
        for name, value in (("weight", w), ("inputs", u), ("bias", b), ("linear", a)):
            object.__setattr__(self, name, value)

    @property
    def size(self) -> int:
        """The width n."""
        return len(self.bias)

    @property
    def input_size(self) -> int:
        """The input width d."""
        return int(self.inputs.shape[1])


def load_weights(path: Path, *, names: Mapping[str, str] | None = None, activation: str | None = None) -> LayerWeights:
    """Read a checkpoint.

    The file holds tensors `W`, `U`, `b` and perhaps `a`, `c`, `s`, and names the activation (and perhaps an
    `injection`) in its metadata. `W` is the weight that acts, after any normalisation. Tensors of lower precision are
    widened, which is exact.

    Args:
        path: a safetensors file.
        names: where a tensor has another name, such as `{"W": "cell.weight"}`.
        activation: where the metadata name none.

    Raises:
        CheckpointError: the file is missing, damaged or incomplete, or its numbers are not finite or do not fit.
    """
    tensors, metadata = _read(path)
    place = dict(names or {})

    def find(key: str) -> Array | None:
        name = place.get(key, key)
        if name in tensors:
            return tensors[name]
        if key in place:
            raise CheckpointError(f"{path} has no tensor {name!r}; it holds {', '.join(sorted(tensors)) or 'none'}")
        return None

    found = {key: find(key) for key in ("W", "U", "b", "a", "c", "s")}
    weight, inputs, bias = found["W"], found["U"], found["b"]
    missing = [key for key in ("W", "U", "b") if found[key] is None]
    if weight is None or inputs is None or bias is None:
        raise CheckpointError(f"{path} has no tensor named {' or '.join(missing)}; it holds "
                              f"{', '.join(sorted(tensors)) or 'none'}. Name them, as in W=cell.weight")
    sigma = activation or metadata.get("activation")
    if not sigma:
        raise CheckpointError(f"{path} does not name its activation; put `activation` into the metadata or give it")
    linear = np.ones(bias.size) if found["a"] is None else found["a"]
    try:
        return LayerWeights(weight, inputs, bias, sigma, linear, _number(found["c"], "c", 0.0) or 0.0,
                            _number(found["s"], "s", None), metadata.get("injection", "identity"), sha256(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def load_input(path: Path, size: int, row: int | None = None) -> Array:
    """Read one input vector of that size.

    Args:
        path: `.csv` (numbers with commas or blanks), `.npy` or `.safetensors` (its only tensor, or `x`).
        size: d.
        row: which row of a table with several.

    Raises:
        CheckpointError: the file is missing, damaged, of another width, or holds several rows and none is chosen.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no input file {path}")
    try:
        match path.suffix.lower():
            case ".npy":
                values = np.load(path, allow_pickle=False)
            case ".safetensors":
                tensors, _ = _read(path)
                if "x" not in tensors and len(tensors) != 1:
                    held = ", ".join(sorted(tensors)) or "nothing"
                    raise CheckpointError(f"{path} must hold a tensor `x`; it holds {held}")
                values = tensors["x"] if "x" in tensors else next(iter(tensors.values()))
            case ".csv" | ".txt":
                text = path.read_text(encoding="utf-8").replace(",", " ")
                lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
                if len({len(line) for line in lines}) > 1:
                    raise CheckpointError(f"{path} has rows of different lengths")
                values = np.array([[float(entry) for entry in line] for line in lines])
                if values.ndim == 2 and values.shape[1] == 1 and size != 1:
                    values = values.T
            case other:
                raise CheckpointError(f"{path}: an input is a .csv, .npy or .safetensors file, not {other!r}")
    except CheckpointError:
        raise
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    return _choose(path, np.asarray(values), size, row)


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _choose(path: Path, values: NDArray[np.generic], size: int, row: int | None) -> Array:
    table = values[None, :] if values.ndim == 1 else values
    if table.ndim != 2 or table.shape[1] != size:
        raise CheckpointError(f"{path} must hold {size} numbers a row, not shape {values.shape}")
    if row is None and len(table) > 1:
        raise CheckpointError(f"{path} holds {len(table)} rows; choose one with --row")
    index = row or 0
    if not 0 <= index < len(table):
        raise CheckpointError(f"{path} has no row {index}; it holds rows 0 to {len(table) - 1}")
    try:
        return finite_array(table[index], "input x", 1)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _read(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        with safe_open(str(path), framework="pt") as handle:
            tensors = {name: handle.get_tensor(name).double().numpy() for name in handle.keys()}  # noqa: SIM118
            return tensors, handle.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from None


def _number(values: Array | None, name: str, default: float | None) -> float | None:
    if values is None:
        return default
    if values.size != 1:
        raise ValueError(f"{name} must be one number, not shape {values.shape}")
    return float(values.reshape(()))
