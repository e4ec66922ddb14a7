"""What may stand in the page as markup: MathML elements and drawings, and never a script.

The texts of a report come from files (records, `claims.json`, error messages), so a formula or a drawing is taken apart
and written anew from what is known to be harmless.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, ParseError, fromstring

from markupsafe import Markup, escape

_ELEMENTS = frozenset((
    "math", "maction", "menclose", "merror", "mfenced", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded",
    "mphantom", "mprescripts", "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable",
    "mtd", "mtext", "mtr", "munder", "munderover", "none"))
_ATTRIBUTES = frozenset((
    "accent", "accentunder", "bevelled", "close", "columnalign", "columnlines", "columnspacing", "depth", "display",
    "displaystyle", "fence", "form", "frame", "height", "largeop", "linethickness", "lspace", "mathbackground",
    "mathcolor", "mathsize", "mathvariant", "maxsize", "minsize", "movablelimits", "notation", "open", "rowalign",
    "rowlines", "rowspacing", "rspace", "scriptlevel", "separator", "separators", "stretchy", "symmetric", "voffset",
    "width"))
_ESCAPED_REFERENCE = re.compile(r"&amp;(#x[0-9A-Fa-f]{1,6}|#[0-9]{1,7});")
# Elements of SVG that run, load or change something; drawings of ours have none of them.
_LIVE_ELEMENTS = frozenset((
    "a", "animate", "animateMotion", "animateTransform", "audio", "discard", "embed", "foreignObject", "handler",
    "iframe", "listener", "mpath", "object", "script", "set", "video"))
_LIVE_TEXT = re.compile(r"script\s*:|@import|url\(\s*[^#\s)]", re.I)


def math_text(element: Element) -> str:
    """The markup of a formula as the converter's tree has it; texts may hold character references such as `&#x0221E;`.

    Raises:
        ValueError: an element that no formula has.
    """
    if element.tag not in _ELEMENTS:
        raise ValueError(f"a formula has no element <{element.tag}>")
    attributes = "".join(f' {name}="{_characters(value)}"' for name, value in element.attrib.items()
                         if name in _ATTRIBUTES)
    inside = _characters(element.text or "") + "".join(math_text(child) + _characters(child.tail or "")
                                                       for child in element)
    if element.tag == "mspace":
        return f"<mspace{attributes}/>"
    return f"<{element.tag}{attributes}>{inside}</{element.tag}>"


def _characters(text: str) -> str:
    return _ESCAPED_REFERENCE.sub(r"&\1;", str(escape(text)))


def drawing(svg: str) -> Markup:
    """An SVG drawing that can go into the page.

    Raises:
        ValueError: it is not well-formed, or holds something that runs or loads.
    """
    try:
        root = fromstring(f'<page xmlns:xlink="http://www.w3.org/1999/xlink">{svg}</page>')  # a page knows the prefix
    except ParseError as error:
        raise ValueError(f"the drawing is not well-formed: {error}") from None
    for element in root.iter():
        tag = _local(element.tag)
        if tag in _LIVE_ELEMENTS:
            raise ValueError(f"the drawing holds a <{tag}>, which may act in a reader's browser")
        if tag == "style" and _LIVE_TEXT.search(element.text or ""):
            raise ValueError("a style of the drawing loads something")
        for name, value in element.attrib.items():
            inside = value.startswith(("#", "data:image/")) or _local(name) not in ("href", "src")
            if _local(name).startswith("on") or not inside or _LIVE_TEXT.search(value):
                raise ValueError(f"the drawing has {_local(name)}={value[:40]!r}, which may act in a reader's browser")
    return Markup(svg)


def _local(name: str) -> str:
    return str(name).rpartition("}")[2]
