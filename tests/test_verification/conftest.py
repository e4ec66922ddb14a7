"""A claims package on disk, as a project beside this one would write it; worker processes can import it too."""

import textwrap

import pytest

from verification.context import Context, Scale
from verification.registry import load_topics
from verification.session import Session
from verification.store import Store

HEAD = """
import os, time, math
import numpy as np
import torch
from verification.evidence import Evidence, Method, Outcome, Subject
from verification.registry import Topic
from verification.verdict import Verdict

def said(outcome, **numbers):
    return [Evidence(Method.NUMERICAL, Outcome(outcome), "a test", {"cases": 1, **numbers})]

def refuted(context):
    context.record("from-control", {"wrong": 1})
    return said("fails", error=1.0)

def claim(topic, id, check, expected=Verdict.SUPPORTED, control=refuted, **more):
    topic.claim(id=id, title=f"claim {id}", source="[SM] Prop. 1", statement="$x = 1$", expected=expected,
                control=control, control_note="turned round", **more)(check)
"""

FIRST = HEAD + """
TOPIC = Topic("first", "The first topic")

def draws(context):
    value = float(torch.randn((), generator=context.generator("here"))) + float(torch.rand(()))
    made = context.shared("module", lambda: torch.nn.Linear(3, 3).weight.sum().item())
    context.record("drawn", {"value": value, "array": np.arange(3.0), "nan": math.nan})
    return said("holds", value=value, made=made)

claim(TOPIC, "sm-0001", draws)
claim(TOPIC, "sm-0002", lambda context: said("fails"), Verdict.REFUTED, control=lambda context: said("holds"))
claim(TOPIC, "sm-0003", lambda context: said("holds"), needs=("scale:paper",))
"""

SECOND = HEAD + """
TOPIC = Topic("second", "The second topic")

def uses_global_state(context):
    made = context.shared("module", lambda: torch.nn.Linear(3, 3).weight.sum().item())
    return said("holds", noise=float(torch.rand(())), numpy=float(np.random.rand()), made=made)

claim(TOPIC, "rmt-0001", uses_global_state)
claim(TOPIC, "own-0001", lambda context: said("holds", infinity=math.inf))
"""


@pytest.fixture
def claims_package(tmp_path, monkeypatch, request):
    """A function that writes a claims package (name to source) and returns its import name."""

    def write(**modules):
        name = f"claims_{abs(hash(request.node.nodeid)) % 10**12}_{len(list(tmp_path.glob('packages/*')))}"
        folder = tmp_path / "packages" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        for module, source in (modules or {"first": FIRST, "second": SECOND}).items():
            text = source if source.startswith(HEAD) else HEAD + textwrap.dedent(source)
            (folder / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder.parent))
        return name

    return write


@pytest.fixture
def make_session(tmp_path):
    """A function that makes a session over a claims package."""

    def make(package, jobs=1, out="out", **settings):
        context = Context(**{"scale": Scale.SMOKE, "out": tmp_path / out, **settings})
        store = Store(context.out)
        store.prepare()
        return Session(load_topics(package), context, store, {"scale": "smoke", "seed": 0}, jobs, package)

    return make
