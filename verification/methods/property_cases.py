"""Randomly drawn cases as evidence: every case is counted, the worst is shown, none is dropped silently."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from verification.evidence import Evidence, Method, Outcome, Subject, largest


@dataclass(frozen=True)
class Comparison:
    """One case: an error held against its derived tolerance.

    Attributes:
        error: distance between two independent routes.
        tolerance: what rounding explains.
        scale: norm of the reference; a tolerance not below it would show nothing, and the case counts as vacuous.
        label: which case, for the worst one.
    """

    error: float
    tolerance: float
    scale: float
    label: str = ""

    @property
    def ratio(self) -> float:
        """Error over tolerance; above 1 fails."""
        return self.error / self.tolerance if self.tolerance > 0 else (0.0 if self.error == 0 else float("inf"))


def gather(comparisons: Iterable[Comparison], domain: str, *, method: Method = Method.PROPERTY,
           subject: Subject = Subject.STATEMENT) -> Evidence:
    """Evidence from many comparisons: fails if one fails (a NaN fails), vacuous if none could have failed.

    Raises:
        ValueError: no comparison at all.
    """
    items = list(comparisons)
    if not items:
        raise ValueError("no case was drawn")
    vacuous = [item for item in items if item.tolerance >= item.scale]  # NaN is none
    tested = [item for item in items if not item.tolerance >= item.scale]
    wrong = [item for item in tested if not (item.error <= item.tolerance < item.scale)]
    counts = {"true": len(tested) - len(wrong), "false": len(wrong), "vacuous": len(vacuous)}
    if not tested:
        return Evidence(method, Outcome.VACUOUS, domain, subject=subject, counts=counts)
    # NaN sorts as the worst.
    worst = max(tested, key=lambda item: item.ratio if item.ratio == item.ratio else float("inf"))
    numbers: dict[str, float | int | str] = {
        "largest relative error": largest(item.error / item.scale for item in tested),
        "worst error": worst.error, "its tolerance": worst.tolerance, "its scale": worst.scale}
    if worst.label:
        numbers["worst case"] = worst.label
    return Evidence(method, Outcome.FAILS if wrong else Outcome.HOLDS, domain, numbers, subject=subject, counts=counts)
