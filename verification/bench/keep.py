"""Where benchmark results are kept: the record `bench` of a results folder, which later runs add to."""

from __future__ import annotations

from typing import Any

from verification.errors import UserError
from verification.store import Store

RECORD = "bench"


def keep(store: Store, about: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Put one benchmark's result into the folder, in the place of an older one of its name; returns the record."""
    record = store.load_record(RECORD) if store.has_record(RECORD) else {"benchmarks": {}}
    record["benchmarks"][result["name"]] = {**result, "about_run": about}
    store.save_record(RECORD, record)
    store.save_record(f"{RECORD}-{result['name']}", record["benchmarks"][result["name"]])
    try:
        store.load_run()
    except UserError:  # no `verify` was run here: an empty run carries the page
        store.save_claims([])
        store.save_run("complete", {**about, "claims": 0, "seconds": 0.0}, [])
    return record
