"""`deqproof certify`: prove statements about a person's own model, or check a certificate again."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from analysis.rigorous import (
    CertificateRejected,
    CheckpointError,
    NotCertified,
    certify_layer,
    load_input,
    load_weights,
    recheck,
    summary,
)
from analysis.rigorous.schema import read_certificate
from verification.errors import UserError

EXAMPLES = """\
examples:
  deqproof certify model.safetensors --input x.csv
  deqproof certify model.safetensors --input test.npy --row 3 --steps 1 2 4 8 --out model.certificate.json
  deqproof certify model.safetensors --input x.npy --tensor W=cell.weight U=cell.inputs b=cell.bias --activation tanh
  deqproof certify --check model.certificate.json             by the weights that the certificate carries
  deqproof certify --check model.certificate.json model.safetensors    and by those of this file

CHECKPOINT is a safetensors file with tensors W [n, n], U [n, d], b [n] of the layer z = sigma(W z + U x + b), W being
the weight that acts (after any normalisation), and the metadata entry `activation`. Optional: the metadata entry
`injection`, an activation tau for z = sigma(W z + tau(U x + b)), and the readout
log p = a.z + c |z|^2 - |x|^2 / (2 s^2) as tensors a [n] (default: ones), c and s.

exit status: 0 proved, or confirmed; 1 it could not be proved, or the certificate is wrong; 2 usage, unreadable files.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "certify", help="prove statements about your own model", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Proves, in ball arithmetic, that a layer has an equilibrium, encloses it with its derivatives, "
                    "score and Hessian trace, and bounds the error of the phantom gradient from both sides. Writes a "
                    "certificate that --check verifies by other arithmetic and other algorithms.")
    parser.add_argument("checkpoint", type=Path, nargs="?", metavar="CHECKPOINT", help="safetensors file of weights")
    parser.add_argument("--input", type=Path, metavar="FILE", help="one input: .csv, .npy or .safetensors")
    parser.add_argument("--row", type=int, metavar="N", help="which row of the input file (from 0)")
    parser.add_argument("--steps", type=_positive, nargs="+", default=[1, 2, 3, 4, 8], metavar="K",
                        help="phantom steps to certify (default: 1 2 3 4 8)")
    parser.add_argument("--activation", metavar="NAME", help="where the checkpoint does not name it")
    parser.add_argument("--tensor", nargs="+", default=[], metavar="KEY=NAME",
                        help="where a tensor has another name: W=cell.weight")
    parser.add_argument("--bits", type=int, default=192, metavar="N", help="working precision (default: 192)")
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help="the certificate (default: CHECKPOINT.certificate.json)")
    parser.add_argument("--check", type=Path, metavar="CERT", help="check a certificate instead of making one")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make or check a certificate; return the exit status."""
    try:
        return _check(arguments) if arguments.check else _certify(arguments)
    except CheckpointError as error:
        raise UserError(str(error)) from None
    except CertificateRejected as error:
        print(f"REJECTED: {error}", file=sys.stderr)
        return 1
    except NotCertified as error:
        print(f"not certified: {error}", file=sys.stderr)
        return 1


def _certify(arguments: argparse.Namespace) -> int:
    if arguments.checkpoint is None or arguments.input is None:
        raise UserError("give a CHECKPOINT and --input FILE, or --check CERT; see deqproof certify --help")
    if arguments.bits < 64:
        raise UserError(f"--bits must be at least 64, not {arguments.bits}")
    weights = load_weights(arguments.checkpoint, names=_names(arguments.tensor), activation=arguments.activation)
    x = load_input(arguments.input, weights.input_size, arguments.row)
    certificate = certify_layer(weights, x, arguments.steps, bits=arguments.bits)
    target = arguments.out or arguments.checkpoint.with_name(arguments.checkpoint.name + ".certificate.json")
    try:
        target.write_text(json.dumps(certificate, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from None
    print(summary(certificate))
    print(f"certificate: {target} (verify it with: deqproof certify --check {target})")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    if arguments.input is not None:
        raise UserError("--check takes the input from the certificate; drop --input")
    try:
        certificate = read_certificate(arguments.check)
    except OSError as error:
        raise UserError(f"cannot read {arguments.check}: {error.strerror}") from None
    weights = None
    if arguments.checkpoint is not None:
        weights = load_weights(arguments.checkpoint, names=_names(arguments.tensor), activation=arguments.activation)
    confirmed = recheck(certificate, weights)
    print("\n".join(f"  confirmed: {line}" for line in confirmed))
    print(f"certificate {arguments.check}: every claim confirmed by the second routine")
    return 0


def _names(pairs: list[str]) -> dict[str, str]:
    names = {}
    for pair in pairs:
        key, equals, name = pair.partition("=")
        if not equals or key not in {"W", "U", "b", "a", "c", "s"} or not name:
            raise UserError(f"--tensor {pair!r} is not of the form KEY=NAME with KEY one of W, U, b, a, c, s")
        names[key] = name
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 10000")
    return int(text)
