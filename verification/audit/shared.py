"""What several checks look at, measured once: the owner's answer, the equilibrium, J there, its spectrum, gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from deq.linear.linearization import Linearization
from deq.linear.spectrum import Spectrum, arnoldi, dense_spectrum, largest_singular_value
from verification.audit import limits
from verification.audit.case import Case, find_parameters
from verification.audit.point import Found, Gradient, Gradients, Owner, gradients, polish, relative, run_owner
from verification.audit.result import AuditVerdict


@dataclass
class Shared:
    """Measurements by need; each is made when the first check asks for it.

    Attributes:
        case: the subject.
        verdicts: of the checks so far, by name.
    """

    case: Case
    verdicts: dict[str, AuditVerdict] = field(default_factory=dict)

    @cached_property
    def owner(self) -> Owner:
        """What the owner's forward gave."""
        return run_owner(self.case)

    @cached_property
    def owner_residual(self) -> Tensor:
        """Relative residual of the owner's z, every sample of the batch, [batch]; in the owner's dtype."""
        flat = self.owner.flat
        if flat is None:
            raise ValueError("the owner has no forward")
        with torch.no_grad():
            value = self.case.call(flat).double()
        size = torch.linalg.vector_norm(value, dim=1).clamp_min(self.case.smallest)
        return torch.linalg.vector_norm(value - flat.double(), dim=1) / size

    @cached_property
    def begin(self) -> Tensor:
        """The owner's z of the measured samples as systems, where they have one; else their start."""
        flat = self.owner.flat if self.owner.flat is not None else self.case.start()
        return self.case.systems(flat[self.case.rows].to(self.case.dtype))

    @cached_property
    def found(self) -> Found:
        """The equilibrium nearest to it."""
        start = self.begin
        if not bool(start.isfinite().all()):
            start = self.case.systems(self.case.start()[self.case.rows].to(self.case.dtype))
        return polish(self.case, start)

    @cached_property
    def solved(self) -> bool:
        """Whether every measured system has an equilibrium."""
        return bool(self.found.converged.all())

    @cached_property
    def line(self) -> Linearization:
        """F linearised there."""
        return Linearization(self.case.f, self.found.z)

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """What gradients are taken in."""
        return find_parameters(self.case, self.line.value, self.line.z)

    @cached_property
    def gradients(self) -> Gradients:
        """Exact and phantom gradients at the equilibrium."""
        return gradients(self.case, self.line, self.parameters, self.case.steps)

    @cached_property
    def size(self) -> int:
        """State entries of a system."""
        return int(self.found.z.shape[1])

    @cached_property
    def jacobian(self) -> Tensor | None:
        """Matrices J, [s, m, m], of the systems in `looked_at`, where a system is small."""
        if self.size > limits.DENSE or not self.line.differentiable:
            return None
        return self.line.dense(self.looked_at)

    @cached_property
    def looked_at(self) -> Tensor:
        """Systems whose eigenvalues are computed: all if few, else those in which a vector grows most under J^T."""
        most = 8 if self.size <= 64 else 4
        if len(self.found.z) <= most:
            return torch.arange(len(self.found.z))
        return self.growth.topk(most).indices

    @cached_property
    def growth(self) -> Tensor:
        """Rate at which a random vector grows or shrinks under J^T in the long run, by system, [r]."""
        half = max(8, int(16 * self.case.effort))
        product = self.line.transposed if self.line.differentiable else self.line.difference
        v = self.case.random(self.found.z)
        for _ in range(half):
            v = product(v)
            v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(1e-30)
        logs = torch.zeros(len(v), dtype=torch.float64)
        for _ in range(half):
            v = product(v)
            length = torch.linalg.vector_norm(v, dim=1).clamp_min(1e-30)
            logs += length.double().cpu().log()
            v = v / length[:, None]
        return (logs / half).exp()

    @cached_property
    def spectrum(self) -> Spectrum:
        """Eigenvalues of J, all of them or those that a Krylov space shows."""
        if self.jacobian is not None:
            return dense_spectrum(self.jacobian)
        return self.krylov(max(10, int(40 * self.case.effort)))

    def krylov(self, steps: int) -> Spectrum:
        """Ritz values from so many products."""
        product = self.line.transposed if self.line.differentiable else self.line.difference
        return arnoldi(product, self.case.random(self.found.z), steps)

    @cached_property
    def norm(self) -> float:
        """|J|_2, worst system; from below where J is not formed."""
        if self.jacobian is not None:
            return float(torch.stack([torch.linalg.matrix_norm(one.double(), 2) for one in self.jacobian]).max())
        if not self.line.differentiable:
            return float("nan")
        steps = max(6, int(16 * self.case.effort))
        return float(largest_singular_value(self.line.forward, self.line.transposed, self.case.random(self.found.z),
                                            steps).max())

    @cached_property
    def amplification(self) -> float:
        """|(I - J)^{-1} w| / |w| for a random w, worst system: what a residual costs in z."""
        if not self.line.differentiable:
            return 1.0
        w = self.case.random(self.found.z)
        u = self.line.solve(w, rtol=1e-3, max_iter=max(20, int(100 * self.case.effort))).value
        return max(1.0, float((torch.linalg.vector_norm(u, dim=1) / torch.linalg.vector_norm(w, dim=1)).max()))

    @cached_property
    def scale(self) -> Tensor:
        """What errors of z are relative to, by system [r]: its length, or the way from the start."""
        z0 = self.case.systems(self.case.start()[self.case.rows].to(self.case.dtype))
        with torch.no_grad():
            way = torch.linalg.vector_norm(self.case.f(z0) - z0, dim=1)
        own = torch.maximum(torch.linalg.vector_norm(self.found.z, dim=1), way)
        # A sample whose equilibrium is 0 is measured by the size of its neighbours.
        largest = float(own.max())
        return own.clamp_min(1e-2 * largest if largest > 0 else 1.0)

    @cached_property
    def owner_gradient(self) -> tuple[Gradient | None, str]:
        """The owner's gradient of their loss on the measured samples, or why there is none."""
        tree, tensors = self.owner.tree, list(self.parameters.values())
        rows = self.case.rows
        if tree is None:
            return None, self.owner.problem or "the subject has no forward"
        with torch.enable_grad():
            total = self.case.loss(tree, None, False)
            total = total[rows].sum() if total.dim() else total
        if not total.requires_grad:
            return dict.fromkeys(self.parameters), ""
        try:
            parts = torch.autograd.grad(total, tensors, retain_graph=True, allow_unused=True)
        except Exception as error:  # a backward of the owner's own making
            return None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return dict(zip(self.parameters, parts, strict=True)), ""

    @cached_property
    def gradients_at_owner(self) -> Gradients:
        """Exact gradient by the formula at the owner's z, converged or not."""
        return gradients(self.case, Linearization(self.case.f, self.begin), self.parameters)

    def phantoms(self, steps: tuple[int, ...]) -> dict[int, Gradient]:
        """Phantom gradients at the equilibrium by number of steps."""
        have = self.gradients.phantom
        return have if set(steps) <= set(have) else gradients(self.case, self.line, self.parameters, steps).phantom

    def residual_floor(self, count: int = 3) -> float:
        """Relative residual that rounding leaves in the owner's dtype at the equilibrium, worst of a few roundings."""
        case = self.case
        flat = case.samples(self.found.z)
        rows = None if len(case.rows) == case.layout.batch else case.rows
        native = flat.to(case.layout.dtype)
        worst, last = 0.0, None
        for index in range(count):
            z = native if index == 0 else native * (1 + case.eps * case.random(native).sign())
            z = case.layout.pack(case.layout.unpack(z))
            with torch.no_grad():
                value = case.call(z, rows).double()
                if case.promoted:  # the same function without the owner's rounding
                    noise = value - case.samples(case.f(case.systems(z.to(case.dtype)))).double()
                else:  # what a change of z by one unit of rounding does
                    noise = torch.zeros_like(value) if last is None else value - last
            last = value
            size = torch.linalg.vector_norm(value, dim=1).clamp_min(1e-300)
            worst = max(worst, float((torch.linalg.vector_norm(noise, dim=1) / size).max()))
        return worst

    def left(self, z: Tensor) -> Tensor:
        """Relative residual by system."""
        return relative(self.case, z)
