"""What is not covered follows from claims and stored results; the list of places is whole."""

import json
import os
import re
from pathlib import Path

import pytest

from verification.coverage import BEYOND, faults, not_covered, stored_facts
from verification.paper import printed
from verification.paper.places import PLACES, Place
from verification.registry import load_topics
from verification.report import typeset

IDS = [claim.id for topic in load_topics() for claim in topic.claims]


def test_every_place_has_a_claim_or_a_reason_and_every_claim_a_place():
    assert faults(IDS) == []
    assert set(BEYOND) <= set(IDS)


def test_a_gap_in_the_list_is_noticed():
    assert faults(["sm-0001"], [Place("[SM] x", "y")]) == [
        "[SM] x has neither a claim nor a reason", "sm-0001 tests a place that is not listed"]
    assert faults([], [Place("[SM] x", "y", ("sm-0002",))]) == ["sm-0002 is named and does not exist"]
    assert faults([], [Place("[SM] x", "y", (), "r")] * 2) == ["[SM] x is listed twice"]


def test_gaps_can_be_typeset_and_hold_no_open_brace():
    for item in not_covered():
        typeset.phrase(item.what, strict=True)
        typeset.phrase(item.reason, strict=True)
        assert "{" not in item.reason


def test_every_numbered_thing_of_the_paper_is_a_place():
    text = " ".join(place.where for place in PLACES if place.where.startswith("[SM]"))
    for number in range(1, 12):
        if number not in (5, 6, 7, 8, 9, 10):
            assert f"eq. ({number})" in text
    for number in (6, 7, 8, 9):
        assert f"({number})" in text
    assert re.search(r"eq\. \(5\).*Prop\. 1.*Prop\. 2, eq\. \(10\)", text)
    for number in (1, 2, 3, 4, 5, 10):
        assert f"table {number}" in text
    assert "tables 6 and 7" in text
    assert "tables 8 and 9" in text
    for figures in ("figure 1", "figures 2 and 3", "figure 4", "figures 5 to 7", "figures 8 and 9"):
        assert figures in text


def test_facts_follow_the_stored_runs(tmp_path):
    assert set(stored_facts(tmp_path).values()) == {"no run is stored", "no paired run is stored"}
    cells = [{"row": "a", "steps": steps, "steps_of_the_paper": 100, "reduced": steps < 20, "numbers": {}}
             for steps in (10, 50)]
    (tmp_path / "table2.json").write_text(json.dumps({"schema": 1, "cells": cells}))
    assert stored_facts(tmp_path)["table2"] == ("2 runs of 1 rows are stored, of 10.0% to 50.0% of the printed steps, "
                                                "1 of them at reduced width or length")


def test_printed_numbers_are_those_of_the_text():
    folder = Path(os.environ.get("DEQPROOF_PAPERS", Path(__file__).parents[3] / "shared" / "papers"))
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.txt")] if folder.is_dir() else []
    text = next((text for text in texts if "EFFICIENT SCORE MATCHING" in text), "")
    if not text:
        pytest.skip("the paper's text is not at hand; DEQPROOF_PAPERS names its folder")
    rows = [line for line in text.splitlines() if "|" in line]
    cells = {re.sub(r"<[^>]*>|[\s$*]", "", cell) for line in rows for cell in line.split("|")}
    for losses in printed.TABLE_1_FID.values():
        assert all(rf"{value:.2f}\pm{error:.2f}" in cells for value, error in losses)
    for memory in (f"{row[1]:g}GB" if row[1] > 10 else f"{row[1]:.1f}GB" for row in printed.TABLE_1_COSTS.values()):
        assert memory in cells
    for loss, likelihood, count, memory in printed.TABLE_2.values():
        assert rf"{loss[0]}\pm{loss[1]}" in cells
        assert rf"{likelihood[0]}\pm{likelihood[1]}" in cells
        assert {f"{count}k", f"{memory}"} <= cells
    for loss, likelihood, fisher, count, memory in printed.TABLE_3.values():
        assert {f"{loss:.2f}", f"{likelihood:.2f}", f"{fisher:.2f}", f"{count:g}k", f"{memory:.1f}GB"} <= cells
    for fid, time, count, graph, total in printed.TABLE_5.values():
        assert {rf"{fid[0]}\pm{fid[1]}", rf"{time[0]}\pm{time[1]}", f"{count:g}M", f"{graph:g}MiB",
                f"{total}GB"} <= cells
    for tolerance, mean in printed.TABLE_10.values():
        assert {f"{mean}", f"{tolerance:g}".replace("e-0", "e-")} <= cells


def test_a_row_without_steps_is_no_division_by_zero(tmp_path):
    cell = {"row": "mle", "numbers": {}, "steps": 0, "steps_of_the_paper": 0, "reduced": False}
    (tmp_path / "table4.json").write_text(json.dumps({"cells": [cell]}))
    assert "of 100.0% of the printed steps" in stored_facts(tmp_path)["table4"]
