"""What the claims cover of the papers, place by place, and what they leave open; derived, so that it stays true."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verification.paper.places import PLACES, Place
from verification.results import FOLDER


@dataclass(frozen=True)
class NotCovered:
    """A place of a paper that no claim tests, or not wholly.

    Attributes:
        place: paper and place, "[SM] table 5".
        what: what stands there, in a line.
        reason: why it is left out.
        claims: those that test a part of it.
    """

    place: str
    what: str
    reason: str
    claims: tuple[str, ...] = ()


def stored_facts(results: Path = FOLDER) -> dict[str, str]:
    """What the stored runs amount to, a phrase a table ("table1" ... "table5") and for the paired runs ("compare")."""
    facts = {f"table{number}": _runs(list(_of_table(number, results))) for number in (1, 2, 3, 4, 5)}
    cells = _cells(results / "exact-vs-phantom.json")
    shares = {cell["table"]: cell["steps"][-1] / cell["steps_of_the_paper"] for cell in cells if cell["steps"]}
    told = ", ".join(f"{table} {share:.0%}" for table, share in sorted(shares.items()))
    facts["compare"] = f"paired runs are stored of {told} of the printed steps" if told else "no paired run is stored"
    return facts


def _runs(runs: list[tuple[str, float, bool]]) -> str:
    if not runs:
        return "no run is stored"
    shares = [share for _, share, _ in runs]
    reduced = sum(reduced for *_, reduced in runs)
    low, high = f"{min(shares):.1%}", f"{max(shares):.1%}"
    length = low if low == high else f"{low} to {high}"
    return (f"{len(runs)} runs of {len({row for row, *_ in runs})} rows are stored, of {length} of the printed steps"
            + (f", {reduced} of them at reduced width or length" if reduced else ""))


def _of_table(number: int, results: Path) -> Iterable[tuple[str, float, bool]]:
    """Row, share of the printed steps that was made, and whether the model or the run was made smaller."""
    for cell in _cells(results / f"table{number}.json"):
        if "numbers" in cell:
            # A row that is computed, not trained, has no steps.
            printed_steps = cell["steps_of_the_paper"]
            yield cell["row"], cell["steps"] / printed_steps if printed_steps else 1.0, bool(cell["reduced"])
    # Printed: 10^5 updates of the VAEs, 1000 of NICE, 2 10^5 of NCSN.
    printed = {1: 100_000, 4: 1000, 5: 200_000}
    for path in sorted(results.glob(f"run-table{number}-*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        yield run["row"], run["final"]["step"] / printed.get(number, run["steps"]), bool(run["reduced"])


def _cells(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["cells"]) if path.is_file() else []


def not_covered(places: Iterable[Place] = PLACES, results: Path = FOLDER) -> tuple[NotCovered, ...]:
    """Places with no claim, and what the claims of the others leave open."""
    facts = stored_facts(results)
    return tuple(NotCovered(place.where, place.what, place.left.format(**facts), place.claims)
                 for place in places if place.left)


def faults(known: Iterable[str], places: Iterable[Place] = PLACES) -> list[str]:
    """What is wrong with the list of places, in a line each; empty where it is whole.

    Args:
        known: ids of all claims.
        places: the list.
    """
    ids, rows = set(known), list(places)
    named = {claim for place in rows for claim in place.claims}
    found = [f"{place.where} has neither a claim nor a reason" for place in rows if not (place.claims or place.left)]
    found += [f"{claim} is named and does not exist" for claim in sorted(named - ids)]
    # A claim of a paper whose place is not listed is a place that was forgotten.
    found += [f"{claim} tests a place that is not listed" for claim in sorted(ids - named)
              if claim.startswith(("sm-", "rmt-")) and claim not in BEYOND]
    wheres = [place.where for place in rows]
    found += [f"{where} is listed twice" for where in sorted({where for where in wheres if wheres.count(where) > 1})]
    return found


#: Claims with a paper's prefix that go beyond it: their ids were given before results of our own had a prefix.
BEYOND = ("rmt-c9a7", "rmt-dc0e", "rmt-2607", "rmt-c7af", "rmt-9c3d")
