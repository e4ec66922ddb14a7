"""The page of the report on known faults of torch: which this machine has, and what the library does about each."""

from __future__ import annotations

from typing import Any

from figures.pages import page
from verification.doctor import words
from verification.report import Block, Table, Words


@page(name="doctor", title="What this machine's torch gets wrong", records=("doctor",))
def make(record: dict[str, Any]) -> list[Block]:
    """The table of `deqproof doctor`."""
    return [
        Words(f"Small probes of known faults, run apart with a time limit on torch {record['torch']}."),
        Table(("fault", "here", "found", "known from", "what the library does"),
              [(item["title"], words(item["state"]), item["detail"], item["source"], item["answer"])
               for item in record["findings"]], "Written by `deqproof doctor`."),
    ]
