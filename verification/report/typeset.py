"""Prose with LaTeX to HTML with MathML, and numbers as a reader wants them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from latex2mathml.converter import convert_to_element
from markupsafe import Markup, escape

from verification.plain import restore
from verification.report.markup import math_text

_PIECES = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>(?:\\\$|[^$])+?)\$|`(?P<code>[^`]+)`"
                     r"|\*\*(?P<bold>[^*\s](?:[^*]*[^*\s])?)\*\*", re.S)
_LEFT_OVER = re.compile(r">[^<]*\\[A-Za-z]+")
_PAIRS = tuple((re.compile(left), re.compile(right)) for left, right in (
    (r"(?<!\\)\{", r"(?<!\\)\}"), (r"\\left(?![A-Za-z])", r"\\right(?![A-Za-z])"), (r"\\begin\{", r"\\end\{")))
_NAMED_FUNCTION = re.compile(r"(<mi>(?:log|ln|exp|sin|cos|tanh|erf|det)</mi>)(?=<m(?:i|n|frac|sqrt|sub|sup|subsup)>)")
_BAR = re.compile(r"<mo([^>]*)>(\||&#x0007C;|&#x02016;)</mo>")
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "kappa": "κ", "lambda": "λ", "phi": "φ", "rho": "ρ", "sigma": "σ",
          "tau": "τ"}
_GREEK_WORD = re.compile(rf"\b({'|'.join(_GREEK)})(?=\^|_(?:\d+|[A-Za-z])(?![A-Za-z]))")
_POWER = re.compile(r"(?<=[\w)\]|])\^(?:[({]([^(){}]{1,12})[)}]|(-?\d+|[A-Za-z]\b))")
_INDEX = re.compile(r"(\b[A-Za-zα-ω]|[|)\]])_(?:\{([^{}]{1,12})\}|(\d+|[A-Za-z])\b)")
_THIN = "\u202f"  # narrow no-break space, between groups of digits


def mathml(latex: str, display: str = "inline") -> Markup:
    r"""LaTeX to a `<math>` element.

    Raises:
        ValueError: it cannot be parsed, or has a command that the converter does not know (it would print `\name`).
    """
    for left, right in _PAIRS:  # the converter guesses a missing half instead of refusing it
        if len(left.findall(latex)) != len(right.findall(latex)):
            raise ValueError(f"cannot typeset ${latex}$: {left.pattern} and {right.pattern} do not pair up")
    try:
        element = math_text(convert_to_element(latex.strip(), display=display))
    except Exception as error:  # the converter raises a zoo of classes
        raise ValueError(f"cannot typeset ${latex}$: {type(error).__name__} {error}") from error
    if _LEFT_OVER.search(element):
        unknown = _LEFT_OVER.search(element).group().rpartition(">")[2]  # type: ignore[union-attr]
        raise ValueError(f"cannot typeset ${latex}$: unknown command {unknown}")
    # Infinity is a value: as an operator it would get an operator's space around it.
    element = element.replace("<mo>&#x0221E;</mo>", "<mi>&#x0221E;</mi>")
    element = re.sub(r"<mi>(&#x0203[23];)</mi>", r"<mo>\1</mo>", element)  # primes
    element = _BAR.sub(r'<mo\1 lspace="0em" rspace="0em">\2</mo>', element)  # norms, not infix operators
    element = _NAMED_FUNCTION.sub(r'\1<mspace width="0.167em"/>', element)
    return Markup(element)


def prose(text: str, strict: bool = False) -> Markup:
    """Text with `$...$`, `$$...$$`, backticks and `**...**` to HTML; blank lines make paragraphs.

    With `strict`, mathematics that cannot be typeset raises ValueError; else its LaTeX is shown as code.
    """
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return Markup("").join(Markup("<p>{}</p>").format(_line(part, strict)) for part in paragraphs)


def phrase(text: str, strict: bool = False) -> Markup:
    """The same for a line, without a paragraph around it."""
    return _line(text.strip(), strict)


def _line(text: str, strict: bool) -> Markup:
    out, end = Markup(""), 0
    for match in _PIECES.finditer(text):
        out += _raised(text[end:match.start()])
        end = match.end()
        if match["code"] is not None:
            out += Markup("<code>{}</code>").format(match["code"])
            continue
        if match["bold"] is not None:
            out += Markup("<b>{}</b>").format(_raised(match["bold"]))
            continue
        latex, display = (match["block"], "block") if match["block"] else (match["inline"], "inline")
        # Punctuation that follows must not start the next line on its own.
        tail = re.match(r"[.,;:!?)\]]+", text[end:]) if display == "inline" else None
        end += tail.end() if tail else 0
        try:
            element = mathml(latex, display)
        except ValueError:
            if strict:
                raise
            element = Markup("<code>{}</code>").format(latex)
        out += Markup('<span class="nobreak">{}{}</span>').format(element, tail.group()) if tail else element
    rest = text[end:]
    if strict and "$" in rest:
        raise ValueError(f"a dollar sign is left over in {rest!r}")
    return out + _raised(rest)


def _raised(text: str) -> Markup:
    """Plain words, with what stands outside mathematics put right: 10^6, I_100, sigma_a^2, <=, >=."""
    words = str(escape(text)).replace("&lt;=", "≤").replace("&gt;=", "≥")
    words = _GREEK_WORD.sub(lambda match: _GREEK[match[1]], words)
    words = _POWER.sub(lambda match: f"<sup>{(match[1] or match[2]).replace('-', '−')}</sup>", words)
    return Markup(_INDEX.sub(lambda match: f"{match[1]}<sub>{match[2] or match[3]}</sub>", words))


def number(value: Any) -> Markup:
    """A number for reading: five significant digits, powers of ten as such, digits grouped."""
    value = restore(value)
    if isinstance(value, bool):
        return Markup("yes" if value else "no")
    if isinstance(value, int):
        return Markup(_grouped(str(value)))
    if isinstance(value, float):
        return _real(value)
    if isinstance(value, list | tuple):
        return Markup(", ").join(number(item) for item in value)
    if isinstance(value, Mapping):
        return Markup(", ").join(Markup("{} {}").format(label(key), number(item)) for key, item in value.items())
    return phrase(str(value))


def _real(value: float) -> Markup:
    if math.isnan(value):
        return Markup("NaN")
    if math.isinf(value):
        return Markup("∞" if value > 0 else "−∞")
    if value == 0:
        return Markup("0")
    if 1e-3 <= abs(value) < 1e6:
        digits = max(0, 4 - math.floor(math.log10(abs(value))))
        text = f"{value:.{digits}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return Markup(_grouped(text.replace("-", "−")))
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".").replace("-", "−")
    power = str(int(exponent)).replace("-", "−")
    return Markup(f'<span class="nobreak">{mantissa}{_THIN}×{_THIN}10<sup>{power}</sup></span>')


def _grouped(text: str) -> str:
    whole, dot, fraction = text.partition(".")
    sign, whole = ("−", whole[1:]) if whole[:1] in ("-", "−") else ("", whole)
    if len(whole) > 4:
        whole = f"{int(whole):,}".replace(",", _THIN)
    return sign + whole + dot + fraction


_LEADING = re.compile(r"(?P<whole>[-−]?\d+)(?P<rest>\D.*)?")


def column(values: Sequence[Any]) -> list[Markup]:
    """The cells of a column of numbers, aligned at their decimal points; None is an empty cell.

    A text counts as a number where it begins with one ("-1.5 ± 0.2*"); what follows the whole part stands to the right
    of the point. Powers of ten and words are left as they are.
    """
    split: list[tuple[str, str] | None] = []
    for value in values:
        text = "" if value is None else str(number(value)) if not isinstance(value, str) else str(_raised(value))
        found = _LEADING.fullmatch(text.replace(_THIN, ""))
        split.append((_grouped(found["whole"]), found["rest"] or "") if found and "<" not in text else None)
    wide = max((len(pair[1]) for pair in split if pair), default=0)
    cells = []
    for value, pair in zip(values, split, strict=True):
        if pair is None:
            cells.append(Markup("") if value is None else number(value))
        elif not wide:
            cells.append(Markup(escape(pair[0])))
        else:
            cells.append(Markup('{}<span class="tail" style="width:{}ch">{}</span>').format(pair[0], wide, pair[1]))
    return cells


def label(name: str) -> Markup:
    """A name of a number as words: `max_error` loses its underscores; words with spaces or `$...$` are prose."""
    text = str(name)
    return phrase(text if "$" in text or " " in text else text.replace("_", " "))


def duration(seconds: float) -> str:
    """Seconds as a reader says them."""
    if seconds < 0.1:
        return "< 0.1 s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
