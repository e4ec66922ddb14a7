"""The register of all claims. One topic a file under `verification/claims/`; a duplicate id stops the import."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from verification.claim import Check, Claim

_ID = re.compile(r"(sm|rmt|own)-[0-9a-f]{4}")


@dataclass
class Topic:
    """A group of claims that a reader looks at together.

    Usage, in `verification/claims/NAME.py`:

        TOPIC = Topic("implicit-derivatives", "Derivatives of the equilibrium")

        @TOPIC.claim(id="sm-1a2b", title=..., source=..., statement=..., expected=Verdict.SUPPORTED,
                     control=..., control_note=...)
        def proposition_1(context): return [Evidence(...)]

    Attributes:
        name: on the command line, letters and dashes.
        title: in the report.
        claims: in the order of the report.
        weight: about how many seconds the topic takes at `cpu` scale; the longest start first.
    """

    name: str
    title: str
    claims: list[Claim] = field(default_factory=list)
    weight: float = 1.0

    def claim(self, **data: Any) -> Callable[[Check], Check]:
        """Register the decorated function as the check of a new claim; keywords are the fields of `Claim`."""

        def register(check: Check) -> Check:
            claim = Claim(check=check, **data)
            if not _ID.fullmatch(claim.id):
                raise ValueError(f"claim id {claim.id!r} is not of the form sm-1a2b, rmt-1a2b or own-1a2b")
            self.claims.append(claim)
            return check

        return register


def load_topics(package: str = "verification.claims") -> list[Topic]:
    """Import every module of the claims package and return its topics, in the package's `READING_ORDER`."""
    root = importlib.import_module(package)
    names = sorted(module.name for module in pkgutil.iter_modules(root.__path__))
    modules = (importlib.import_module(f"{package}.{name}") for name in names)
    topics = [module.TOPIC for module in modules if hasattr(module, "TOPIC")]
    check_unique(topics)
    order = getattr(root, "READING_ORDER", ("*",))
    return sorted(topics, key=lambda topic: _place(topic.name, order))


def _place(name: str, order: Sequence[str]) -> int:
    """Index of the first pattern that matches; "*" is tried last, wherever it stands."""
    fits = [index for index, pattern in enumerate(order) if pattern != "*" and fnmatchcase(name, pattern)]
    return fits[0] if fits else order.index("*")


def check_unique(topics: Iterable[Topic]) -> None:
    """Raise ValueError if two claims share an id."""
    seen: dict[str, str] = {}
    for topic in topics:
        for claim in topic.claims:
            if claim.id in seen:
                raise ValueError(f"claim id {claim.id} is used twice: {seen[claim.id]} and {claim.title}")
            seen[claim.id] = claim.title
