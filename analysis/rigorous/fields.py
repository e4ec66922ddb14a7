"""Reading the fields of a certificate that is not trusted: exact numbers, or a refusal that names the field."""

from __future__ import annotations

import base64
import re
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DECIMAL = re.compile(r"-?\d{1,400}(\.\d{1,400})?(e[+-]?\d{1,3})?", re.ASCII)


class CertificateRejected(ValueError):
    """A certificate is damaged, about another model, or claims something that could not be confirmed."""


def decode(field: dict[str, Any], name: str, dimensions: int) -> NDArray[np.float64]:
    """The array that `certificate.encode` wrote.

    Raises:
        CertificateRejected: bytes, shape or values are not those of a finite float64 array.
    """
    try:
        shape = field["shape"]
        if not all(type(size) is int and size >= 0 for size in shape):  # -1 would be worked out from the bytes
            raise ValueError(f"shape {shape} is none")
        data = np.frombuffer(base64.b64decode(field["float64"], validate=True), dtype="<f8")
        array = data.reshape(shape).astype(np.float64)
        # The last character may hold bits that no byte takes: another text for the same numbers.
        if base64.b64encode(data.tobytes()).decode() != field["float64"]:
            raise ValueError("its text is not the one that the bytes are written as")
    except ValueError as error:
        raise CertificateRejected(f"{name} is damaged: {error}") from None
    if array.ndim != dimensions or array.size == 0 or not np.all(np.isfinite(array)):
        raise CertificateRejected(f"{name} is damaged: shape {array.shape}, or numbers that are not finite")
    return array


def ends_of(claim: dict[str, str], name: str) -> tuple[Fraction, Fraction]:
    """Both ends of a claimed interval, exactly.

    Raises:
        CertificateRejected: not decimals, or in the wrong order.
    """
    low, high = decimal_of(claim["low"], name), decimal_of(claim["high"], name)
    if low > high:
        raise CertificateRejected(f"{name} is an empty interval")
    return low, high


def decimal_of(text: str, name: str) -> Fraction:
    """A decimal, exactly.

    Raises:
        CertificateRejected: another kind of text, or one too long to be honest.
    """
    if not isinstance(text, str) or not _DECIMAL.fullmatch(text):
        raise CertificateRejected(f"{name} is not a decimal: {text!r}")
    return Fraction(text)


def hex_of(text: str, name: str) -> float:
    """A finite float in hexadecimal.

    Raises:
        CertificateRejected: anything else.
    """
    try:
        value = float.fromhex(text)
    except (TypeError, ValueError, OverflowError):
        raise CertificateRejected(f"{name} is not a hexadecimal float: {text!r}") from None
    if not np.isfinite(value):
        raise CertificateRejected(f"{name} is not finite")
    return value
