import json
import logging
from importlib import resources

import numpy as np
import pytest
import torch
from torch import nn

import deq
from deq.linear.linearization import Linearization
from deq.watching import Reading, WatchCallback
from deq.watching.course import gathers_speed, judge
from deq.watching.measure import measure, truncation


def reading(step, **numbers):
    return Reading(**{"step": step, "residual": 1e-6, "radius": 0.5, "bias": 0.1, "cosine": 0.99, "iterations": 9,
                      "seconds": 0.0} | numbers)


def layer(gradient=None, norm=0.9):
    torch.manual_seed(0)
    cell = deq.DenseCell(input_size=3, state_size=8)
    return deq.DEQ(cell, gradient=gradient or deq.Phantom(2))


def train(model, steps=6, batch=10):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(batch, 3, generator=torch.Generator().manual_seed(1))).square().mean().backward()
        optimizer.step()


def test_numbers_are_those_of_the_whole_jacobian():
    torch.manual_seed(0)
    w, x = torch.randn(7, 7, dtype=torch.float64) / 7, torch.randn(3, 7, dtype=torch.float64)
    f = lambda z, x: torch.tanh(z @ w.T + x)  # noqa: E731
    z = deq.solve(f, torch.zeros_like(x), inputs=(x,), tol=1e-13).z
    found = measure(f, z, (x,), steps=2, products=7)
    jacobian = Linearization(lambda z: f(z, x), z).dense()
    start = torch.randn((3, 7), generator=torch.Generator().manual_seed(20_240_511), dtype=torch.float64)
    exact = torch.linalg.solve(torch.eye(7) - jacobian.mT, start)
    rest = torch.einsum("bji,bj->bi", jacobian @ jacobian, exact)
    bias = float((rest.norm(dim=1) / exact.norm(dim=1)).max())
    assert found["radius"] == pytest.approx(float(torch.linalg.eigvals(jacobian).abs().max()), rel=1e-9)
    assert found["bias"] == pytest.approx(bias, rel=1e-9)
    cosine = torch.nn.functional.cosine_similarity(exact - rest, exact).min()
    assert found["cosine"] == pytest.approx(float(cosine), rel=1e-9)
    assert found["residual"] < 1e-12


def test_damping_slows_a_phantom_gradient():
    error, _ = truncation(torch.tensor([[0.5]], dtype=torch.float64), 2, damping=0.5)
    assert error == pytest.approx(0.75**2)


@pytest.mark.parametrize("rule", [deq.Phantom(2), deq.Neumann(terms=2), deq.Exact()])
def test_a_layer_is_watched(rule):
    model = layer(rule)
    with deq.watch(model, every=2, share=1.0) as seen:
        train(model)
    history = seen.history
    assert history["step"].tolist() == [2, 4, 6]
    assert (history["radius"] < 1).all()
    assert ((history["bias"] == 0) == (rule.exact)).all()
    train(model)
    assert seen.step == 6


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.head = nn.Linear(3, 3), nn.Linear(3, 1)
        self.register_buffer("calls", torch.zeros(()))
        with torch.no_grad():
            self.w.weight.mul_(0.5)

    def f(self, z, x):
        self.calls += 1
        return torch.tanh(self.w(z) + x)

    def forward(self, x):
        return self.head(deq.equilibrium(lambda z: self.f(z, x), torch.zeros_like(x), gradient=deq.Phantom(1)))


def test_a_plain_equilibrium_in_any_module_is_watched():
    model = Plain()
    with deq.watch(model, every=1, share=1.0) as seen:
        train(model, 3)
        deq.equilibrium(lambda z: 0.5 * z + 1, torch.zeros(2, 2))  # somebody else's
    assert seen.history["step"].tolist() == [1, 2, 3]


def test_nothing_is_changed_by_a_look():
    runs = []
    for every in (99, 1):
        torch.manual_seed(3)
        model = Plain()
        with deq.watch(model, every=every, share=1.0) as seen:
            train(model, 3)
        runs.append((len(seen.readings), torch.rand(1), model.state_dict()))
    assert (runs[0][0], runs[1][0]) == (0, 3)
    assert torch.equal(runs[0][1], runs[1][1])
    assert all(torch.equal(value, runs[0][2][key]) for key, value in runs[1][2].items())


def test_evaluation_is_not_counted():
    model = layer()
    with deq.watch(model, every=1, share=1.0) as seen:
        model.eval()
        model(torch.randn(4, 3))
        model.train()
        with torch.no_grad():
            model(torch.randn(4, 3))
        assert seen.step == 0
        model(torch.randn(4, 3))
    assert seen.step == 1


def test_looks_keep_to_their_share(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("deq.watching.watcher.time.perf_counter", lambda: float(next(clock)))
    subject = deq.Subject(lambda z: 0.5 * z + 1, torch.zeros(2, 3))
    watcher = deq.watch(subject, every=1)
    for _ in range(400):
        watcher.tick()
    assert watcher.readings
    assert watcher.seconds <= 0.05 * next(clock)


def test_a_subject_is_stepped():
    a = torch.tensor(0.5, requires_grad=True)
    subject = deq.Subject(lambda z, x: {"h": torch.tanh(a * z["h"] + x)}, {"h": torch.zeros(4, 2)}, (torch.ones(4, 2),),
                          declared="phantom:1")
    seen = deq.watch(subject, every=3, share=1.0)
    for _ in range(6):
        seen.tick()
    assert seen.history["step"].tolist() == [3, 6]
    h = torch.tensor(0.9)
    for _ in range(60):
        h = torch.tanh(0.5 * h + 1)
    slope = 0.5 * (1 - float(h) ** 2)
    assert seen.history["radius"][0] == pytest.approx(slope, rel=1e-4)
    assert seen.history["bias"][0] == pytest.approx(slope, rel=1e-4)  # one step leaves J^T u


def test_a_number_above_its_level_warns_once_and_names_course_and_remedy(caplog):
    a = torch.tensor(0.5, requires_grad=True)
    subject = deq.Subject(lambda z: a * torch.sin(z) + 1, torch.zeros(1, 1), declared="phantom:1")
    seen = deq.watch(subject, every=1, share=1.0)
    seen.tick()
    with torch.no_grad():
        a.fill_(-3.0)
    caplog.set_level(logging.WARNING, "deq.watch")
    seen.tick()
    with pytest.warns(deq.TrainingWarning, match="last readings") as said:
        seen.tick()
    seen.tick()
    assert {warned.rule for warned in seen.warned} >= {"spectral radius"}
    assert len(said) == len(seen.warned) == len(caplog.records)
    assert "deq.operator_normalize" in next(w.text for w in seen.warned if w.rule == "spectral radius")


@pytest.mark.parametrize("action", ["raise", "call"])
def test_other_actions(action):
    heard = []
    a = torch.tensor(3.0, requires_grad=True)
    subject = deq.Subject(lambda z: -a * torch.sin(z) + 1, torch.zeros(1, 1))
    seen = deq.watch(subject, every=1, share=1.0, action="raise" if action == "raise" else heard.append)
    seen.tick()
    if action == "raise":
        with pytest.raises(deq.WatchedFault, match="spectral radius"):
            seen.tick()
    else:
        seen.tick()
        assert heard == seen.warned
        assert heard


def test_a_course_that_feeds_on_itself_is_told_from_one_that_settles():
    steps = range(0, 500, 50)
    # as read in a training whose phantom loss ran away, and in one that did not
    assert gathers_speed(steps, [0.119, 0.122, 0.125, 0.128, 0.131, 0.136, 0.139, 0.144, 0.149, 0.154], 0.3) is not None
    assert gathers_speed(steps, [0.069, 0.082, 0.095, 0.109, 0.123, 0.135, 0.147, 0.160, 0.174, 0.187], 0.3) is None
    assert gathers_speed(steps, [0.2] * 10, 0.3) is None
    assert gathers_speed(steps, [0.1, float("nan")] * 5, 0.3) is None
    noise = 0.15 * np.exp(0.1 * np.random.default_rng(0).standard_normal((200, 10)))
    alarms = sum(gathers_speed(steps, list(row), 0.3) is not None for row in noise)
    assert alarms <= 4  # curvature above four standard errors with seven degrees of freedom: 0.3 % one-sided


def test_a_single_bad_batch_is_no_fault():
    assert judge([reading(1), reading(2, residual=0.5), reading(3)]) == []
    assert [w.rule for w in judge([reading(1), reading(2, residual=0.5), reading(3, residual=0.4)])] == ["residual"]
    assert [w.rule for w in judge([reading(1), reading(2, bias=float("nan")), reading(3, bias=float("nan"))])]
    assert judge([]) == []


def test_picture_tensorboard_and_fabric(tmp_path):
    scalars = []
    writer = type("Writer", (), {"add_scalar": lambda self, *line: scalars.append(line)})()
    model = layer()
    callback = WatchCallback(every=1, share=1.0, writer=writer)
    callback.on_train_start(module=model)
    with pytest.raises(ValueError, match="nothing has been read"):
        callback.watcher.picture()
    train(model, 3)
    callback.on_train_end()
    train(model, 3)
    assert callback.watcher.step == 3
    assert ("watch/radius", callback.watcher.readings[0].radius, 1) in scalars
    callback.watcher.picture(tmp_path / "watch.svg")
    assert (tmp_path / "watch.svg").stat().st_size > 1000


@pytest.mark.parametrize(("arguments", "error"), [
    ({"target": 3}, TypeError), ({"every": 0}, ValueError), ({"action": "shout"}, ValueError),
    ({"share": 0.0}, ValueError), ({"samples": 0}, ValueError)])
def test_wrong_arguments(arguments, error):
    with pytest.raises(error):
        deq.watch(**{"target": layer()} | arguments)


def test_the_run_that_broke_was_warned_of_in_time_and_the_others_not_at_all():
    """Stored readings of table 2's white-wine row, the same trainings repeated: see the README beside them."""
    stored = json.loads((resources.files("verification.results") / "watch-whitewine.json").read_text())
    first = {}
    for cell in stored["cells"]:
        course = [reading(step, residual=residual, radius=radius, bias=bias, cosine=cosine)
                  for step, residual, radius, bias, cosine in zip(
                      cell["steps"], cell["residual"], cell["radius"], cell["bias"], cell["cosine"], strict=True)]
        found = [warned for end in range(1, len(course) + 1) for warned in judge(course[:end])]
        first[cell["seed"]] = found[0].step if found else None
        if "test_loss" in cell:
            losses = cell["test_loss"]
            turn = losses["steps"][int(np.argmin(losses["exact"]))]
            assert losses["exact"][-1] > min(losses["exact"]) + 10  # it did break
    assert first[0] is None
    assert first[1] is None
    assert first[2] <= turn - 100


class Tree(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Linear(3, 3)
        with torch.no_grad():
            self.w.weight.mul_(0.5)

    def forward(self, x):
        return deq.equilibrium(lambda z: {"a": torch.tanh(self.w(z["b"]) + x), "b": 0.5 * z["a"]},
                               {"a": torch.zeros_like(x), "b": torch.zeros_like(x)}, gradient=deq.Phantom(2))["a"]


def test_a_state_that_is_a_tree_is_watched():
    model = Tree()
    with deq.watch(model, every=1, share=1.0) as seen:
        train(model, 2)
    assert seen.history["step"].tolist() == [1, 2]
    assert (seen.history["bias"] > 0).all()
