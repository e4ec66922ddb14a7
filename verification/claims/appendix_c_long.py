"""Appendix C of [SM] over a long training: read from a stored run, since it takes longer than a verification may."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from verification.claim import Reading
from verification.context import Context
from verification.evidence import Evidence, Method, holds_if, smallest
from verification.needs import NotAtHand
from verification.registry import Topic
from verification.results import FOLDER
from verification.verdict import Verdict

TOPIC = Topic("appendix-c-long", "Phantom derivatives late in training (a stored run)", weight=0.1)
STORED = FOLDER / "course-sm.json"
#: The same readings as over the first steps: nine of ten score errors below this, the gradient's cosine above that.
NEAR_ZERO, NEAR_ONE = 0.05, 0.99


def _stored() -> dict[str, Any]:
    if not STORED.is_file():
        raise NotAtHand("results:course-sm", f"the stored run {STORED.name} is not in verification/results/",
                        "deqproof course --steps 4000 --every 250")
    return dict(json.loads(STORED.read_text(encoding="utf-8")))


def _late(run: dict[str, Any], route: str) -> list[Evidence]:
    found = run["routes"][route]
    late = len(found["steps"]) * 3 // 4
    score, inner = np.array(found["score"][late:]), np.array(found["inner"][late:])
    share = float((score <= NEAR_ZERO).mean())
    about = run["provenance"]
    domain = (f"{run['domain']}; measured steps {found['steps'][late]} to {found['steps'][-1]}; stored run of commit "
              f"{about['commit'][:10]}, {about['date'][:10]}: {about['command']}")
    right = share >= 0.9 and smallest(found["gradient_cosine"][late:]) >= NEAR_ONE
    return [Evidence(Method.MEASUREMENT, holds_if(right),
                     domain, {"median score error": float(np.median(score)), f"share below {NEAR_ZERO}": share,
                              "median gradient error": float(np.median(found["gradient"][late:])),
                              "median gradient error, equilibrium alone": float(np.median(inner)),
                              "smallest gradient cosine": min(found["gradient_cosine"][late:]),
                              "smallest gradient cosine, equilibrium alone": min(found["inner_cosine"][late:]),
                              "largest spectral radius of J": max(run["radius"][late:])})]


@TOPIC.claim(
    id="sm-28fb", title="Phantom derivatives stay close to exact ones through training",
    source="[SM] App. C, Figs. 5 and 7, taken over a long training",
    statement=r"During training with $K = 2$ relative errors of the phantom score stay concentrated near 0 and cosines "
              r"of loss gradients near 1 (our readings as over the first steps: nine of ten score errors below 5 %, "
              r"every cosine above 0.99), over the last quarter of the stored run too.",
    quote="In both cases, the score norm error is small, which indicates that the phantom gradient is a good "
          "approximation of the exact gradient.",
    reading=Reading.OURS,
    reading_note="small and the window, the last quarter of a long run, are ours",
    expected=Verdict.REFUTED, control=lambda context: _late(_stored(), "exact(3)"),
    control_note="the preconditioned rule with three steps on the same run, which must hold",
    figures=("appendix-c-long",))
def late_errors(context: Context) -> list[Evidence]:
    """Errors over the last quarter of a long run."""
    run = _stored()
    names = ("steps", "radius", "norm", "domain", "objective")
    context.record("appendix-c-long", {**{name: run[name] for name in names}, "commit": run["provenance"]["commit"],
                                       "routes": {name: _summary(route) for name, route in run["routes"].items()}})
    return _late(run, "K=2")


def _summary(route: dict[str, Any]) -> dict[str, Any]:
    score = np.array(route["score"])
    return {"steps": route["steps"], "score": np.median(score, 1).tolist(), "score_high": np.quantile(
        score, 0.9, axis=1).tolist(), "gradient": route["gradient"], "inner": route["inner"]}
