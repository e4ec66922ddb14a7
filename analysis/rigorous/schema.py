"""What a certificate may hold: every key, every type, nothing besides.

A key that no routine looks at would travel under the words "every claim confirmed"; so there is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from analysis.rigorous.fields import CertificateRejected, decimal_of, decode, hex_of

FORMAT, VERSION = "deqproof certificate", 2
EQUATION = "z = sigma(W z + tau(U x + b)), log p = a.z + c |z|^2 - |x|^2 / (2 s^2)"
#: Why a certificate claims no contraction; the only words that it may say beside what is tested.
NO_NORM = "the map contracts in none of the norms tried"
NO_BALL = "a norm contracts at the equilibrium, but in no ball that the residual allows"
#: Widest interval that is worth a claim, relative to its ends and absolutely; a changed leading digit is wider.
RELATIVE_WIDTH, ABSOLUTE_WIDTH = "1e-6", "1e-30"

_LARGEST_FILE = 2**30
Check = Callable[[Any, str], None]


def read_certificate(path: Path) -> dict[str, Any]:
    """The certificate of a file, its keys and types checked.

    Raises:
        OSError: the file cannot be read.
        CertificateRejected: not UTF-8, not JSON, a key twice, NaN, or what `check_structure` refuses; says what.
    """
    if path.stat().st_size > _LARGEST_FILE:
        raise CertificateRejected(f"{path} has more than {_LARGEST_FILE >> 20} MiB, too much for a certificate")
    try:
        content = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise CertificateRejected(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise CertificateRejected(f"{path} is nested too deeply for a certificate") from None
    except json.JSONDecodeError as error:
        raise CertificateRejected(f"{path} is not JSON (cut short or damaged): {error}") from None
    except CertificateRejected:
        raise
    except ValueError as error:  # an integer of more digits than Python reads
        raise CertificateRejected(f"{path} holds a number that no certificate has: {error}") from None
    check_structure(content)
    return dict(content)


def check_structure(certificate: Any) -> None:
    """Raise `CertificateRejected` unless keys and types are those of a certificate; names the first that is not."""
    if not isinstance(certificate, Mapping) or certificate.get("format") != FORMAT:
        raise CertificateRejected(f"this is no {FORMAT}: it does not say so in its `format`")
    if type(certificate.get("version")) is not int or certificate["version"] != VERSION:
        raise CertificateRejected(f"the certificate is of version {certificate.get('version')!r}, not {VERSION}; "
                                  "make it again with this version of deqproof")
    _mapping({"format": _text, "version": _whole, "model": _model, "input": _array(1), "claims": _claims,
              "digest": _text})(certificate, "")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise CertificateRejected(f"key {key!r} stands twice in one object")
        seen[key] = value
    return seen


def _no_number(text: str) -> Any:
    raise CertificateRejected(f"{text} is not a number that a certificate may hold")


def _refuse(where: str, value: Any, wanted: str) -> None:
    shown = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise CertificateRejected(f"{where} is {shown}, not {wanted}")


def _text(value: Any, where: str) -> None:
    if type(value) is not str:
        _refuse(where, value, "text")


def _whole(value: Any, where: str) -> None:
    if type(value) is not int:
        _refuse(where, value, "a whole number")


def _steps(value: Any, where: str) -> None:
    if type(value) is not int or not 1 <= value <= 10_000:
        _refuse(where, value, "a whole number from 1 to 10000")


def _constant(*texts: str) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) is not str or value not in texts:
            _refuse(where, value, " or ".join(repr(text) for text in texts))
    return check


def _decimal(value: Any, where: str) -> None:
    _text(value, where)
    decimal_of(value, where)


def _hexadecimal(value: Any, where: str) -> None:
    _text(value, where)
    if hex_of(value, where).hex() != value:
        _refuse(where, value, f"written as {hex_of(value, where).hex()!r}")


def _or_none(check: Check) -> Check:
    def either(value: Any, where: str) -> None:
        if value is not None:
            check(value, where)
    return either


def _mapping(keys: Mapping[str, Check]) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            _refuse(where, value, "an object")
        name = where or "the certificate"
        unknown = sorted(str(key) for key in value if key not in keys)
        missing = [key for key in keys if key not in value]
        if unknown:
            raise CertificateRejected(f"{name} has the unknown key {unknown[0]!r}, which nothing confirms")
        if missing:
            raise CertificateRejected(f"{name} lacks {missing[0]!r}")
        for key, test in keys.items():
            test(value[key], f"{where}.{key}" if where else key)
    return check


def _many(check: Check) -> Check:
    def each(value: Any, where: str) -> None:
        if not isinstance(value, list):
            _refuse(where, value, "a list")
        if not value:
            raise CertificateRejected(f"{where} is empty")
        for index, item in enumerate(value):
            check(item, f"{where}[{index}]")
    return each


def _array(dimensions: int) -> Check:
    whole = _mapping({"shape": _many(_whole), "float64": _text})

    def check(value: Any, where: str) -> None:
        whole(value, where)
        decode(value, where, dimensions)
    return check


_interval = _mapping({"low": _decimal, "high": _decimal})
_phantom = _mapping({
    "steps": _steps, "score_error": _interval, "score_relative": _or_none(_interval), "first_error": _interval,
    "laplacian_error": _interval, "trace_error": _interval})
_contraction = _mapping({
    "norm": _text, "base": _text, "transform": _or_none(_array(2)), "factor": _decimal,
    "factor_at_equilibrium": _decimal, "centre": _array(1), "radius": _or_none(_hexadecimal)})
_model = _mapping({
    "equation": _constant(EQUATION), "sha256": _text, "activation": _text, "injection": _text, "W": _array(2),
    "U": _array(2), "b": _array(1), "a": _array(1), "c": _hexadecimal, "s": _or_none(_hexadecimal)})
_CLAIMS: dict[str, Check] = {
    "equilibrium": _many(_interval), "box_radius": _hexadecimal, "first": _many(_interval),
    "laplacian": _many(_interval), "score": _many(_interval), "score_length": _interval, "trace": _interval,
    "phantom": _many(_phantom), "contraction": _or_none(_contraction)}


def _claims(value: Any, where: str) -> None:
    refused = isinstance(value, Mapping) and value.get("contraction") is None
    _mapping({**_CLAIMS, **({"contraction_refused": _constant(NO_NORM, NO_BALL)} if refused else {})})(value, where)
