"""[SM] 3.4: where training under phantom gradients ends, beside exact ones; read from stored runs of `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from verification.context import Context
from verification.evidence import Evidence, Method, Outcome
from verification.experiments.outcome import Paired, common, curves, interval, paired
from verification.needs import NotAtHand
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("training-outcome", "Where training ends under phantom and exact gradients (stored runs)", weight=0.1)
STORED = Path(__file__).parents[2] / "results" / "exact-vs-phantom.json"
TABLE, EXACT, PHANTOM = "parkinson", "exact", "phantom-2"
#: Equal means: within this share of the exact rule's loss. Fixed before the runs, at the smallest gap between the rows
#: of table 2 that differ in depth alone on the same data (-123.7 and -124.8, three and eight layers).
MARGIN = 0.01


def _stored() -> list[dict[str, Any]]:
    if not STORED.is_file():
        raise NotAtHand("results:exact-vs-phantom", f"the stored runs {STORED.name} are not in results/",
                        "deqproof compare --steps 1500")
    cells = json.loads(STORED.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["table"] == TABLE]


def judge(found: Paired, margin: float) -> Outcome:
    """Holds: the interval of the mean difference lies within the margin. Fails: it leaves out zero, and is not within.

    In between, where it is wider than the margin and has zero inside, the runs cannot tell.
    """
    low, high = found.interval
    if -margin <= low and high <= margin:
        return Outcome.HOLDS
    return Outcome.UNKNOWN if low <= 0 <= high else Outcome.FAILS


def _ends(cells: list[dict[str, Any]], shift: float = 0.0) -> list[Evidence]:
    """The paired comparison; `shift` is added to what phantom training reaches, in shares of the exact rule's loss."""
    seeds, steps = common(cells, (EXACT, PHANTOM))
    late = steps[-max(1, len(steps) // 4):]
    level = float(curves(cells, EXACT, "exact", seeds, late).mean())
    found = paired(cells, PHANTOM, EXACT, ("exact", "exact"))
    moved = Paired(found.seeds, found.step, tuple(gap + shift * abs(level) for gap in found.differences),
                   found.mean + shift * abs(level), found.half_width)
    last = paired(cells, PHANTOM, EXACT, ("exact", "exact"), share=0)
    own = paired(cells, PHANTOM, EXACT, ("own", "own"))
    deployed = paired(cells, PHANTOM, EXACT, ("deployed", "exact"))
    about = cells[0]["provenance"]
    domain = (f"DEQ-SM of table 2, {TABLE} data, seeds {', '.join(map(str, seeds))}, reduced: {steps[-1]} of "
              f"{cells[0]['steps_of_the_paper']} steps; exact test losses, averaged over the evaluations at steps "
              f"{late[0]} to {late[-1]}, phantom minus exact, alpha solved anew under exact derivatives; runs of "
              f"commit {about['commit'][:10]}, {about['date'][:10]}")
    return [Evidence(Method.MEASUREMENT, judge(moved, MARGIN * abs(level)), domain, {
        "mean difference": moved.mean, "half width of its 95 % interval": moved.half_width,
        "margin": MARGIN * abs(level), "mean loss of exact training": level,
        "smallest difference": min(moved.differences), "largest difference": max(moved.differences),
        "mean difference at the last step": last.mean, "half width at the last step": last.half_width,
        "mean difference, each under its own rule": own.mean, "half width, own rules": own.half_width,
        "mean difference, alpha by the phantom": deployed.mean, "half width, alpha by the phantom":
            deployed.half_width})]


def _record(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """For the figure: mean and half width of the 95 % t interval at each step, by rule and kind, and the difference."""
    seeds, steps = common(cells, (EXACT, PHANTOM))
    losses: dict[str, Any] = {}
    for rule in (EXACT, PHANTOM):
        losses[rule] = {kind: _spread(curves(cells, rule, kind, seeds, steps)) for kind in ("own", "exact", "deployed")}
    gaps = curves(cells, PHANTOM, "exact", seeds, steps) - curves(cells, EXACT, "exact", seeds, steps)
    late = curves(cells, EXACT, "exact", seeds, steps[-max(1, len(steps) // 4):])
    reported = curves(cells, PHANTOM, "own", seeds, steps) - curves(cells, PHANTOM, "exact", seeds, steps)
    return {"steps": steps, "losses": losses, "difference": {**_spread(gaps), "seeds": gaps},
            "reported": _spread(reported),
            "margin": MARGIN * abs(float(late.mean()))}


def _spread(values: np.ndarray) -> dict[str, list[float]]:
    pairs = [interval(column) for column in values.T]
    return {"mean": [mean for mean, _ in pairs], "half_width": [half for _, half in pairs]}


@TOPIC.claim(
    id="sm-6e94", title="Training with K = 2 phantom gradients ends where exact gradients do",
    source="[SM] section 3.4",
    statement=r"Training with $K = 2$ phantom gradients ends where training with exact gradients does (our reading: "
              r"from the same weights and over the same batches, the 95 % interval of the mean difference of the exact "
              r"test losses over seeds lies within 1 % of the loss). Tested at reduced length: nothing follows for "
              r"the paper's 11,100 steps, later in which the phantom's error is larger.",
    # no difference shows in 1,400 steps of three seeds, but the interval reaches just past the margin: not shown equal
    expected=Verdict.UNDECIDED, control=lambda context: _ends(_stored(), 0.05),
    control_note="the phantom's losses raised by 5 %", figures=("training-outcome",))
def outcome(context: Context) -> list[Evidence]:
    """Paired differences of the true test losses."""
    cells = _stored()
    context.record("training-outcome", _record(cells))
    return _ends(cells)


def _reported(cells: list[dict[str, Any]], rule: str) -> list[Evidence]:
    """Loss by the model's own derivatives minus loss by exact ones, same weights, alpha solved under each."""
    seeds, steps = common(cells, (EXACT, PHANTOM))
    level = float(curves(cells, rule, "exact", seeds, steps[-max(1, len(steps) // 4):]).mean())
    found = paired(cells, rule, rule, ("own", "exact"))
    domain = (f"DEQ-SM of table 2 trained under {rule}, {TABLE} data, {len(seeds)} seeds, reduced: up to step "
              f"{found.step}; loss by its own derivatives minus loss by exact ones, last quarter of the evaluations")
    return [Evidence(Method.MEASUREMENT, judge(found, MARGIN * abs(level)), domain, {
        "mean difference": found.mean, "half width of its 95 % interval": found.half_width,
        "margin": MARGIN * abs(level), "mean exact loss": level, "smallest difference": min(found.differences),
        "largest difference": max(found.differences)})]


@TOPIC.claim(
    id="own-b2d7", title="A phantom tells the test loss of the model it trained", source="[SM] section 4.2, table 2",
    statement=r"The score-matching loss on test rows that a model trained with $K = 2$ shows under its phantom "
              r"derivatives is its loss under exact derivatives, to 1 %.",
    expected=Verdict.REFUTED, control=lambda context: _reported(_stored(), EXACT),
    control_note="models trained and evaluated under the exact rule, which must hold", figures=("training-outcome",))
def reported(context: Context) -> list[Evidence]:
    """The reported loss against the true one."""
    return _reported(_stored(), PHANTOM)
