"""Exact checks by computer algebra as evidence: a list of named identities, each true or not."""

from __future__ import annotations

from collections.abc import Mapping

from verification.evidence import Evidence, Method, Subject, holds_if


def identities(checks: Mapping[str, bool], domain: str, *, complete: bool = False,
               subject: Subject = Subject.STATEMENT) -> Evidence:
    """One piece of evidence from named exact checks; it holds when all do.

    Args:
        checks: what was checked and whether it is true; must not be empty.
        domain: what was covered, for a reviewer.
        complete: the checks prove the whole statement (kept only if all of them hold).
        subject: the statement or its correction.

    Raises:
        ValueError: no checks at all, which would hold vacuously.
    """
    if not checks:
        raise ValueError("a proof needs at least one identity; an empty list would hold vacuously")
    true = all(checks.values())
    numbers = {name: "true" if value else "false" for name, value in checks.items()}
    counts = {"true": sum(map(bool, checks.values())), "false": sum(not value for value in checks.values())}
    return Evidence(Method.SYMBOLIC, holds_if(true), domain, numbers, complete=complete and true, subject=subject,
                    counts=counts)
