"""The claims on equations, equivalent networks and spectra come out as registered, and fill their pictures."""

import pytest

from figures.registry import load_figures
from figures.style import DARK
from verification.claims import equivalent_families, equivalent_networks, equivalent_trust, four_equations, spectra
from verification.context import Context, Scale
from verification.runner import run_claim

TOPICS = {topic.name: topic for topic in (four_equations.TOPIC, equivalent_networks.TOPIC, equivalent_families.TOPIC,
                                         spectra.TOPIC, equivalent_trust.TOPIC)}


@pytest.mark.parametrize("name", TOPICS)
def test_claims_hold_and_pictures_draw(name):
    context = Context(scale=Scale.SMOKE)
    records = {}
    for claim in TOPICS[name].claims:
        result, left = run_claim(claim, name, context)
        assert result.verdict is claim.expected, (claim.id, result.error, result.evidence)
        records |= left
    drawn = 0
    for figure in load_figures().values():
        if figure.records and all(record in records for record in figure.records):
            drawing = figure.draw(*(records[record] for record in figure.records), theme=DARK)
            assert drawing.axes
            assert all(ax.get_xlabel() or ax.get_title() for ax in drawing.axes)
            drawn += 1
    assert drawn or name == "rmt-equivalent-families"
