"""Errors of the phantom gradient against K on a trained model: derivatives with their bounds, score, loss gradient."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from analysis import newton_equilibrium, score_error
from analysis.phantom.bounds import bounds_at
from analysis.phantom.derivatives import derivatives_at, iterate_derivatives
from analysis.phantom.equilibrium_point import equilibrium_point
from deq.gradients import Phantom
from deq.losses import score_matching
from deq.models.jets import Jet, input_jet
from verification.experiments.dkef_routes import UnrolledFeatures, follow, unroll_steps
from verification.experiments.dkef_subject import Cell, TrainedDKEF, equilibrium_features


def derivative_errors(cell: Cell, x: Tensor, most: int) -> dict[str, Any]:
    """Measured errors of Dz and D^2 z for K = 1 .. most at one sample, and their bounds; Frobenius norms."""
    point = equilibrium_point(cell, x, newton_equilibrium(cell, x, torch.zeros(len(cell.b), dtype=x.dtype)))
    exact = derivatives_at(point, 2)
    iterates = list(islice(iterate_derivatives(point), 1, most + 1))
    bounds = bounds_at(point, most)
    return {
        "steps": list(range(1, most + 1)),
        "first": [float((exact.first - it.first).norm()) for it in iterates],
        "second": [float((exact.second - it.second).norm()) for it in iterates],
        "first_size": float(exact.first.norm()), "second_size": float(exact.second.norm()),
        **{name: [float(getattr(bound, name)) for bound in bounds]
           for name in ("first_powers", "second_powers", "first_law", "second_law", "rounding")},
        "first_sharp": [float(bound.first) for bound in bounds],
        "second_sharp": [float(bound.second) for bound in bounds],
        "radius": bounds[0].spectral_radius, "q": bounds[-1].q, "kappa": bounds[-1].kappa}


def model_errors(subject: TrainedDKEF, most: int, rows: int = 64) -> dict[str, Any]:
    """Relative errors of score (median and 90 % quantile) and loss gradient of K = 1 .. most on the trained model."""
    model, train, test = subject.model, subject.table.train, subject.table.test
    fitting, held = train[:rows], test[:rows]
    truth = follow(model, unroll_steps(model, torch.cat([fitting, held])), fitting, held, subject.objective)
    medians, quantiles, gradients = [], [], []
    for k in range(1, most + 1):
        found = follow(model, Phantom(k), fitting, held, subject.objective)
        relative = score_error(truth.score, found.score).relative
        medians.append(float(relative.median()))
        quantiles.append(float(relative.quantile(0.9)))
        gradients.append(float(score_error(truth.gradient, found.gradient).relative))
    return {"steps": list(range(1, most + 1)), "score_median": medians, "score_high": quantiles, "gradient": gradients}


def independent_check(subject: TrainedDKEF, rows: int = 4) -> dict[str, float]:
    """Hold the truth of the experiment against two other routes on a few test rows.

    "autograd": loss and parameter gradient by nested autograd of log p through the unrolled iteration, no jets.
    "implicit": first derivatives and Laplacians of each kernel's equilibrium by Proposition 1 (dense solves).

    Returns:
        Relative differences.
    """
    model, x = subject.model, subject.table.test[:rows]
    features = equilibrium_features(model)
    parameters = [p for p in model.parameters() if p is not model.log_ridge]
    steps = unroll_steps(model, x)
    truth = follow(model, steps, x, x, "sm", alpha=model.alpha)
    model.features = UnrolledFeatures(features, steps)  # type: ignore[assignment]
    try:
        loss = score_matching(model.log_density, x)
        nested = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    finally:
        model.features = features
    flat = truth.gradient[_keep(model, parameters)]
    return {"loss": abs(loss.item() - truth.loss) / abs(truth.loss),
            "gradient": float((nested - flat).norm() / nested.norm()), **_laplacian_check(subject, x[:2], steps)}


def _keep(model: torch.nn.Module, parameters: list[torch.nn.Parameter]) -> Tensor:
    wanted = {id(p) for p in parameters}
    flags = [torch.full((p.numel(),), id(p) in wanted) for _, p in model.named_parameters()]
    return torch.cat(flags)


def _laplacian_check(subject: TrainedDKEF, x: Tensor, steps: int) -> dict[str, float]:
    """Jets of the unroll against Proposition 1, kernel by kernel, the skip connection taken off."""
    features = equilibrium_features(subject.model)
    n = len(x)
    with torch.no_grad():
        from_jets = UnrolledFeatures(features, steps).jet(_unit_jet(x, features.kernels))
        slopes, laplacians = from_jets.first, from_jets.second
        if slopes is None or laplacians is None:
            raise RuntimeError("a jet along unit directions has no derivatives")
        if features.skip is not None:
            slopes = slopes - features.skip.transpose(1, 2)[:, None]
    first, second = 0.0, 0.0
    for r, cell in enumerate(subject.cells):
        for i in range(n):
            start = torch.zeros(len(cell.b), dtype=x.dtype)
            exact = derivatives_at(equilibrium_point(cell, x[i], newton_equilibrium(cell, x[i], start)), 2)
            laplacian = exact.second.diagonal(dim1=1, dim2=2).sum(1)
            first = max(first, float((slopes[r, i].T - exact.first).norm() / exact.first.norm()))
            second = max(second, float((laplacians[r, i] - laplacian).norm() / laplacian.norm()))
    return {"first": first, "laplacian": second}


def _unit_jet(x: Tensor, kernels: int) -> Jet:
    d = x.shape[1]
    return input_jet(x, kernels, torch.eye(d, dtype=x.dtype).expand(len(x), -1, -1), x.new_ones(d))


def scaled_errors(cell: Cell, x: Tensor, most: int) -> dict[str, Any]:
    r"""|Dz - Dz^(K)| / rho^K and |D^2 z - D^2 z^(K)| / rho^K for K = 0 .. most, rho the spectral radius of J.

    Errors themselves sink below rounding near K = 20; divided by rho^K step by step they do not, so the asymptotic law
    shows. With h = W z + g(x), `E_k = J^k Dz` and `G_k = s''(h) (Dh x WE_k + WE_k x Dh - WE_k x WE_k)`,

        D^2 z - D^2 z^(K) = J^K D^2 z + sum_{k<K} J^{K-1-k} G_k.
    """
    point = equilibrium_point(cell, x, newton_equilibrium(cell, x, torch.zeros(len(cell.b), dtype=x.dtype)))
    exact = derivatives_at(point, 2)
    inner = torch.sigmoid(cell.U @ x + cell.b)
    slope = torch.sigmoid(cell.W @ point.z + torch.nn.functional.softplus(cell.U @ x + cell.b))
    bend = (slope * (1 - slope))[:, None, None]
    dh = cell.W @ exact.first + inner[:, None] * cell.U
    jacobian = slope[:, None] * cell.W
    radius = float(torch.linalg.eigvals(jacobian).abs().max())
    first, tail, total = exact.first, exact.second, torch.zeros_like(exact.second)
    out: dict[str, Any] = {"steps": list(range(most + 1)), "radius": radius, "first": [], "second": []}
    for k in range(most + 1):
        out["first"].append(float(first.norm()))
        out["second"].append(float((tail + total).norm()))
        moved = cell.W @ first
        cross = dh[:, :, None] * moved[:, None, :]
        gap = bend * (cross + cross.transpose(1, 2) - radius**k * moved[:, :, None] * moved[:, None, :])
        total = (torch.tensordot(jacobian, total, dims=1) + gap) / radius
        first, tail = jacobian @ first / radius, torch.tensordot(jacobian, tail, dims=1) / radius
    return out


def growth(scaled: dict[str, Any], start: int) -> tuple[float, float]:
    """Exponents p of K^p in the scaled first and second errors, K >= start, by least squares in logarithms."""
    steps = torch.tensor(scaled["steps"][start:], dtype=torch.float64).log()
    design = torch.stack([steps, torch.ones_like(steps)], 1)

    def slope(values: list[float]) -> float:
        return float(torch.linalg.lstsq(design, torch.tensor(values[start:], dtype=torch.float64).log()[:, None])
                     .solution[0])

    return slope(scaled["first"]), slope(scaled["second"])
