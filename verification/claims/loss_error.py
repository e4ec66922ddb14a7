"""From derivative error to loss error: the bounds, their rates, and the least number of steps, on a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import torch

import deq
from analysis.phantom.loss_error import fisher_divergence_error, least_phantom_steps, loss_error_bounds
from analysis.phantom.loss_gradient_error import gradient_error_bounds
from verification.context import Context
from verification.evidence import Evidence, Method, Outcome, holds_if, largest
from verification.experiments.small_trained import LossValues, TrainedModel, loss_values, mixture_score, train_small
from verification.methods.scalar_rates import error_ratios
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("loss-error", "From the error of derivatives to the error of losses")

LEVELS = ("sharp", "powers", "law")
QUANTITIES = ("score", "trace", "loss", "gradient")


def _trained(context: Context) -> TrainedModel:
    steps = context.choose(20, 150, 600)
    return context.shared("small trained model", lambda: train_small(context.rng("small trained model"), steps=steps))


def _steps(context: Context) -> list[int]:
    return context.choose([1, 2, 4], [1, 2, 3, 4, 6, 8, 12], [1, 2, 3, 4, 6, 8, 12, 16])


def _table(context: Context) -> list[dict[str, Any]]:
    """For each sample and K the measured errors and the bounds of every level."""
    return context.shared("loss error table", lambda: _make_table(context))


def _make_table(context: Context) -> list[dict[str, Any]]:
    trained, steps = _trained(context), _steps(context)
    count = context.choose(2, 8, 24)
    rows = []
    for x, z in zip(trained.inputs[:count], trained.equilibria[:count], strict=True):
        exact = loss_values(trained.model, x, z, deq.Exact(order=3))
        bounds = {level: _bounds(trained, x, z, max(steps) + 2, level) for level in LEVELS}
        for k in steps:
            rough = loss_values(trained.model, x, z, deq.Phantom(steps=k))
            rows.append({"steps": k, "measured": _errors(exact, rough), "exact": exact, "rough": rough,
                         "bounds": {level: bounds[level][k - 1] for level in LEVELS},
                         "later": {level: bounds[level][k + 1] for level in LEVELS}})
    return rows


def _bounds(trained: TrainedModel, x: torch.Tensor, z: torch.Tensor, steps: int, level: Any) -> list[dict[str, float]]:
    losses = loss_error_bounds(trained.model.step, trained.model.log_density, x, z, steps, level=level)
    gradients = gradient_error_bounds(trained.model, x, z, steps, level=level)
    return [{"score": item.score, "trace": item.trace, "loss": item.score_matching, "gradient": gradient.gradient}
            for item, gradient in zip(losses, gradients, strict=True)]


def _errors(exact: LossValues, rough: LossValues) -> dict[str, float]:
    return {"score": float((exact.score - rough.score).norm()), "trace": abs(exact.trace - rough.trace),
            "loss": abs(exact.loss - rough.loss), "gradient": float((exact.gradient - rough.gradient).norm())}


def _violations(rows: list[dict[str, Any]], which: str, names: Sequence[str]) -> tuple[int, int, dict[str, float]]:
    """How many inequalities hold and fail, and the median of sharp bound over error."""
    held = broken = 0
    slack: dict[str, list[float]] = {name: [] for name in names}
    for row in rows:
        for name in names:
            for level in LEVELS:
                # not "error > bound": a NaN must count as broken
                if row["measured"][name] <= row[which][level][name]:
                    held += 1
                else:
                    broken += 1
            if row["measured"][name] > 0:
                slack[name].append(row[which]["sharp"][name] / row["measured"][name])
    return held, broken, {name: median(values) for name, values in slack.items() if values}


def _hold(context: Context, which: str, names: Sequence[str]) -> list[Evidence]:
    rows = _table(context)
    held, broken, slack = _violations(rows, which, names)
    trained = _trained(context)
    if which == "bounds":
        context.record("loss_error_bounds", _record(rows, trained))
    return [Evidence(Method.NUMERICAL, holds_if(broken == 0 and held > 0),
                     f"softplus layer, n = {len(trained.model.bias)}, d = 2, trained by exact score matching; "
                     f"{len({id(row['exact']) for row in rows})} held-out samples, K = {_steps(context)}, three levels",
                     {f"sharp bound / error, median, {name}": value for name, value in slack.items()},
                     counts={"hold": held, "fail": broken})]


def _record(rows: list[dict[str, Any]], trained: TrainedModel) -> dict[str, Any]:
    """Relative to the root mean square of the exact quantity over the samples; medians and extremes over them."""
    exact = list({id(row["exact"]): row["exact"] for row in rows}.values())
    sizes = {"score": [float(item.score.norm()) for item in exact], "trace": [item.trace for item in exact],
             "loss": [item.loss for item in exact], "gradient": [float(item.gradient.norm()) for item in exact]}
    scale = {name: (sum(value**2 for value in values) / len(values)) ** 0.5 for name, values in sizes.items()}
    steps = sorted({row["steps"] for row in rows})
    panels = {}
    for name in QUANTITIES:
        curves: dict[str, list[list[float]]] = {key: [] for key in ("measured", *LEVELS)}
        for k in steps:
            chosen = [row for row in rows if row["steps"] == k]
            for key in curves:
                values = sorted((row["measured"] if key == "measured" else row["bounds"][key])[name] / scale[name]
                                for row in chosen)
                curves[key].append([values[0], median(values), values[-1]])
        panels[name] = curves
    return {"steps": steps, "panels": panels, "samples": len(exact), "n": len(trained.model.bias)}


@TOPIC.claim(
    id="own-3ab7", title="Bounds of score, trace and loss hold on a trained model", source="deqproof",
    statement=r"For every $K$ the errors of the score, of the Hessian trace and of the score-matching loss that $K$ "
              r"phantom steps make are at most the bounds that carry $\|J^j\|$ (or $\kappa q^j$) through them: $q^K$ "
              r"for the score, $K q^K$ for trace and loss.",
    expected=Verdict.SUPPORTED, control=lambda context: _hold(context, "later", ("score", "trace", "loss")),
    control_note="the bound for K + 2 is held against the error at K", figures=("loss-error-bounds",))
def loss_bounds_hold(context: Context) -> Sequence[Evidence]:
    """Measure against autograd."""
    return _hold(context, "bounds", ("score", "trace", "loss"))


@TOPIC.claim(
    id="own-d80e", title="The bound of the parameter gradient holds on a trained model", source="deqproof",
    statement=r"The gradient of the score-matching loss in all parameters, by $K$ phantom steps, differs from the "
              r"exact one by no more than a bound that decays like $K^2 q^K$.",
    expected=Verdict.SUPPORTED, control=lambda context: _gradient_control(context),
    control_note="a bound smaller by the median slack of the sharp one", figures=("loss-error-bounds",))
def gradient_bound_holds(context: Context) -> Sequence[Evidence]:
    """Measure against autograd at third order."""
    return _hold(context, "bounds", ("gradient",))


def _gradient_control(context: Context) -> list[Evidence]:
    rows = _table(context)
    slack = _violations(rows, "bounds", ("gradient",))[2]["gradient"]
    broken = sum(row["measured"]["gradient"] > row["bounds"]["sharp"]["gradient"] / slack for row in rows)
    return [Evidence(Method.NUMERICAL, holds_if(broken == 0), "the same samples", {"divided by": slack},
                     counts={"fail": broken, "hold": len(rows) - broken})]


def _rates(context: Context, orders: dict[str, int]) -> list[Evidence]:
    """In one dimension with 60 digits: error / (K^order J^K) tends to a constant, at least as K^-1."""
    steps = context.choose((50, 100, 200), (100, 200, 400), (400, 800, 1600))
    evidence = []
    for name, order in orders.items():
        low, middle, high = error_ratios(name, order, steps)
        # The next term is smaller by a factor of order 1/K: doubling K must halve the change, within a third.
        first, second = abs(middle / low - 1), abs(high / middle - 1)
        evidence.append(Evidence(Method.HIGH_PRECISION, holds_if(second <= first * 2 / 3 + 1e-20 and second < 0.1),
                                 f"scalar softplus equilibrium, K = {steps}, 60 and 120 digits",
                                 {f"{name}: change of error/(K^{order} J^K), first doubling": first,
                                  f"{name}: second doubling": second}))
    return evidence


@TOPIC.claim(
    id="own-64f2", title="Score, trace and gradient lose one power of K each", source="deqproof",
    statement=r"The errors of the score, of the Hessian trace and of the loss gradient decay like $J^K$, $K J^K$ and "
              r"$K^2 J^K$, no faster.",
    expected=Verdict.SUPPORTED, control=lambda context: _rates(context, {"score": 0, "trace": 0, "gradient": 1}),
    control_note="one power of K less for trace and gradient")
def rates_lose_powers(context: Context) -> Sequence[Evidence]:
    """Ratios in high precision."""
    return _rates(context, {"score": 0, "trace": 1, "gradient": 2})


class _Course:
    """The measured errors of one sample, each K once."""

    def __init__(self, trained: TrainedModel, x: torch.Tensor, z: torch.Tensor) -> None:
        self.trained, self.x, self.z = trained, x, z
        self.exact = loss_values(trained.model, x, z, deq.Exact(order=3))
        self.known: dict[int, dict[str, float]] = {}

    def errors(self, steps: int) -> dict[str, float]:
        if steps not in self.known:
            rough = loss_values(self.trained.model, self.x, self.z, deq.Phantom(steps=steps))
            self.known[steps] = _errors(self.exact, rough)
        return self.known[steps]


def _least(context: Context, factor: float) -> list[Evidence]:
    trained = _trained(context)
    count = context.choose(2, 6, 24)
    broken, promised, needed = 0, [], []
    for x, z in zip(trained.inputs[:count], trained.equilibria[:count], strict=True):
        course = _Course(trained, x, z)
        sizes = {"score": float(course.exact.score.norm()), "loss": abs(course.exact.loss)}
        for accuracy in (0.1, 0.01, 0.001):
            for name, size in sizes.items():
                steps = least_phantom_steps(factor * accuracy, trained.model.step, trained.model.log_density, x, z,
                                            quantity="score_matching" if name == "loss" else name)
                # 1e-9: the measured error carries the solver's tolerance of 1e-13 and float64 rounding
                broken += not course.errors(steps)[name] <= accuracy * size * (1 + 1e-9)
                promised.append(steps)
                needed.append(next(k for k in range(1, 257) if course.errors(k)[name] <= accuracy * size))
    return [Evidence(Method.NUMERICAL, holds_if(broken == 0),
                     f"{count} samples of the trained layer, accuracies 0.1, 0.01, 0.001 of score and loss",
                     {"steps promised, mean": sum(promised) / len(promised),
                      "steps needed, mean": sum(needed) / len(needed)},
                     counts={"kept": len(promised) - broken, "broken": broken})]


@TOPIC.claim(
    id="own-0f5c", title="least_phantom_steps keeps its promise", source="deqproof",
    statement=r"With the $K$ that the function returns for an accuracy, the error of score and loss is below it on "
              r"every sample of a trained model.",
    expected=Verdict.SUPPORTED, control=lambda context: _least(context, 20.0),
    control_note="the function is asked for a twentieth of the accuracy that is then expected")
def least_steps_suffice(context: Context) -> Sequence[Evidence]:
    """Ask, then measure."""
    return _least(context, 1.0)


def _fisher(context: Context, which: str) -> list[Evidence]:
    rows = _table(context)
    trained = _trained(context)
    samples = list({id(row["exact"]): row["exact"] for row in rows}.values())
    data = mixture_score(trained.inputs[:len(samples)])

    def divergence(values: list[LossValues]) -> float:
        gaps = torch.stack([item.score for item in values]) - data
        return 0.5 * float(gaps.square().sum(1).mean())

    exact, broken, worst = divergence(samples), 0, 0.0
    for k in _steps(context):
        chosen = [row for row in rows if row["steps"] == k]
        rough = divergence([row["rough"] for row in chosen])
        bound = fisher_divergence_error(exact, [row[which]["sharp"]["score"] for row in chosen])
        broken += not abs(rough - exact) <= bound
        worst = largest((worst, abs(rough - exact) / bound))
    outcome = holds_if(broken == 0) if exact > 0 else Outcome.VACUOUS
    return [Evidence(Method.NUMERICAL, outcome,
                     f"{len(samples)} samples of a mixture of two Gaussians whose score is known, "
                     f"K = {_steps(context)}", {"Fisher divergence": exact, "largest error / bound": worst})]


@TOPIC.claim(
    id="own-c95d", title="The Fisher divergence moves by no more than its bound", source="deqproof",
    statement=r"$|F_K - F| \le r \sqrt{2F} + r^2/2$, where $r$ is the root mean square of the samples' score bounds.",
    expected=Verdict.SUPPORTED, control=lambda context: _fisher(context, "later"),
    control_note="the score bounds for K + 2 steps are used")
def fisher_divergence_moves_little(context: Context) -> Sequence[Evidence]:
    """Against a density whose score is known."""
    return _fisher(context, "bounds")
