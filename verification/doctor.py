"""What `deqproof doctor` found, as a record and as a table for terminal and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from deq.interop.doctor import Finding, State

#: A state in the words of a reader.
WORDS = {State.RIGHT: "not here", State.WRONG: "wrong, silently", State.RAISES: "raises", State.HANGS: "hangs",
         State.CRASHES: "kills the process", State.UNKNOWN: "the probe broke"}


def record(findings: Sequence[Finding]) -> dict[str, Any]:
    """Plain data: versions and one object a fault."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "findings": [
        {"name": item.fault.name, "title": item.fault.title, "source": item.fault.source, "state": str(item.state),
         "detail": item.detail, "answer": item.fault.answer} for item in findings]}


def words(state: str) -> str:
    """The state for a reader."""
    return WORDS[State(state)]


def terminal(found: Mapping[str, Any]) -> str:
    """One block a fault, the state first."""
    width = max(len(text) for text in WORDS.values())
    lines = [f"torch {found['torch']}"]
    for item in found["findings"]:
        lines += [f"{words(item['state']):<{width}}  {item['title']} ({item['source']}; {item['detail']})",
                  f"{'':<{width}}  here: {item['answer']}"]
    present = sum(item["state"] not in (State.RIGHT, State.UNKNOWN) for item in found["findings"])
    broken = sum(item["state"] == State.UNKNOWN for item in found["findings"])
    lines.append(f"{present} of {len(found['findings'])} known faults are present"
                 + (f"; {broken} could not be probed" if broken else ""))
    return "\n".join(lines)
