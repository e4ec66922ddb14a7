"""Feature extractors of the deep kernels: k-layer networks and an equilibrium, R of them side by side."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from deq.equilibrium import equilibrium
from deq.gradients.rules import Exact, GradientRule, Neumann, Phantom
from deq.linear.factorise import inverse
from deq.models.dkef_slopes import FactoredSlopes, Slopes, WrittenSlopes
from deq.models.jets import Jet, input_jet
from deq.solution import Solution
from deq.solvers import FixedPointSolver, solve
from deq.status import DerivativeOrderError


def scaled_normal(*shape: int, generator: torch.Generator | None, dtype: torch.dtype) -> nn.Parameter:
    """N(0, 1) / sqrt(fan_out), the released initialisation; `shape` is `[R, out, ...]`."""
    return nn.Parameter(torch.randn(*shape, generator=generator, dtype=dtype) / shape[1] ** 0.5)


class FeatureMap(nn.Module):
    """R maps of x side by side that meet it through one linear map and, where there is one, a linear skip.

    Attributes:
        kernels: R.
        skip: `[R, h, d]`, or None.
    """

    kernels: int
    skip: Tensor | None

    @abstractmethod
    def entry(self) -> tuple[Tensor, Tensor]:
        """The first linear map: weight `[R, h, d]` and bias `[R, h]`."""

    @abstractmethod
    def lift(self, y: Jet) -> Jet:
        """All that follows the first linear map, the skip left out."""

    def jet(self, x: Jet) -> Jet:
        """Push a jet of the input through."""
        y = self.lift(x.linear(*self.entry()))
        return y if self.skip is None else y + x.linear(self.skip)

    def unit_jet(self, x: Tensor, *, second: bool = True, extra: Tensor | None = None) -> tuple[Slopes, Jet]:
        """Derivatives along all d unit vectors of x `[n, d]`, in the smaller of d and h directions.

        Args:
            x: `[n, d]`.
            second: carry second derivatives: summed over the unit vectors or, where `extra` is given, along it alone.
            extra: one more direction a sample, `[n, d]`.

        Returns:
            The slopes along the unit vectors, and a jet of the features: value, `second` as asked for, and as `first`
            the derivative along `extra`, `[R, n, 1, h]`, where there is one.
        """
        weight, bias = self.entry()
        count = min(weight.shape[2], weight.shape[1])
        written = weight.shape[2] == count
        basis = torch.eye(count, dtype=x.dtype, device=x.device)
        if written:
            start, directions = input_jet(x, self.kernels), basis.expand(self.kernels, 1, -1, -1)
        else:
            start = Jet(x @ weight.transpose(1, 2) + bias[:, None])
            directions = basis.expand(self.kernels, 1, -1, -1)
        weights: Tensor | None = None
        if extra is not None:
            more = extra.expand(self.kernels, *extra.shape) if written else extra @ weight.transpose(1, 2)
            directions = torch.cat([directions.expand(-1, len(x), -1, -1), more[:, :, None]], 2)
            weights = x.new_zeros(count + 1)
            weights[-1] = 1
        elif second:
            weights = x.new_ones(count) if written else weight @ weight.transpose(1, 2)
        zero = torch.zeros_like(start.value) if second else None
        start = Jet(start.value, directions, zero, weights if second else None)
        out = self.jet(start) if written else self.lift(start)
        if out.first is None:
            raise RuntimeError("a jet along unit vectors lost its first derivatives")
        value, first, along = out.value, out.first[:, :, :count], out.first[:, :, count:]
        slopes: Slopes = WrittenSlopes(first)
        if not written:
            slopes = FactoredSlopes(first, weight, self.skip)
            if self.skip is not None:
                turned = self.skip.transpose(1, 2)
                value = value + x @ turned
                along = along if extra is None else along + (extra @ turned)[:, :, None]
        return slopes, Jet(value, None if extra is None else along, out.second, out.weights)

    def forward(self, x: Tensor) -> Tensor:
        """Features `[R, n, h]` of x `[n, d]`."""
        return self.jet(input_jet(x, self.kernels)).value


class ExplicitFeatures(FeatureMap):
    """k Linear layers with Softplus between them, plus a linear skip: x `[n, d]` to `[R, n, h]`."""

    def __init__(self, kernels: int, dim: int, width: int, layers: int, *, skip: bool = True,
                 generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.kernels = kernels
        sizes = [dim] + [width] * layers
        self.weights = nn.ParameterList(scaled_normal(kernels, width, size, generator=generator, dtype=dtype)
                                        for size in sizes[:-1])
        self.biases = nn.ParameterList(scaled_normal(kernels, width, generator=generator, dtype=dtype)
                                       for _ in range(layers))
        self.skip = scaled_normal(kernels, width, dim, generator=generator, dtype=dtype) if skip else None

    def entry(self) -> tuple[Tensor, Tensor]:
        """The first layer."""
        return self.weights[0], self.biases[0]

    def lift(self, y: Jet) -> Jet:
        """The other layers."""
        for weight, bias in list(zip(self.weights, self.biases, strict=True))[1:]:
            y = y.softplus().linear(weight, bias)
        return y


class EquilibriumFeatures(FeatureMap):
    """`z = softplus(W z + softplus(A x + b))` ([SM] eq. 5), plus a linear skip: x `[n, d]` to `[R, n, h]`.

    W is divided by `margin (|W|_F + eps)`, so the map contracts (softplus is 1-Lipschitz, W dense).
    `released=True` is the released code's map `W z + softplus(A x + b)`, affine in z, its normaliser held constant
    and W detached in the first differentiated application.

    Derivatives come two ways, tested against each other: `forward` attaches the equilibrium with `deq.equilibrium`
    and leaves the rest to autograd; `jet` carries derivatives forward through the rule's own iteration, which for
    score-matching losses costs one backward pass in all. M of the rule is formed densely there.

    Args:
        kernels: R.
        dim: d.
        width: h.
        gradient: any rule of `deq`; None is the paper's `Phantom(steps=2)`, or the released code's three steps. The
            released map takes undamped phantom rules only.
        solver, tol, max_iter: as in `deq.solve`; each sample converges on its own.
        margin: lambda; the paper says > 1, the released code has 1 + 1e-6.
        eps: as released.
        skip: add a linear map of x to the equilibrium.
        output_layer: one more biased Linear after the equilibrium (it makes table 2's parameter counts fit).
        released: the released code's map.
        allow_beyond_order: compute derivatives of an order above the rule's (they are approximations then) instead of
            raising; for measuring how wrong they are.
    """

    def __init__(self, kernels: int, dim: int, width: int, *, gradient: GradientRule | None = None,
                 solver: str | FixedPointSolver[Any] = "anderson", tol: float = 5e-6, max_iter: int = 128,
                 margin: float = 1 + 1e-6, eps: float = 1e-6, skip: bool = True, output_layer: bool = False,
                 released: bool = False, allow_beyond_order: bool = False,
                 generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        if not margin > 1:
            raise ValueError(f"margin must exceed 1 for a contraction, got {margin}")
        self.kernels, self.margin, self.eps, self.released = kernels, margin, eps, released
        self.gradient: GradientRule = Phantom(3 if released else 2) if gradient is None else gradient
        if released and not (isinstance(self.gradient, Phantom) and self.gradient.damping == 1):
            raise ValueError(f"the released variant is defined by its own phantom iteration; it cannot take "
                             f"{self.gradient!r}, only Phantom(steps) without damping")
        self.solver, self.tol, self.max_iter = solver, tol, max_iter
        self.allow_beyond_order = allow_beyond_order
        self.last: Solution | None = None

        def draw(*shape: int) -> nn.Parameter:
            return scaled_normal(kernels, width, *shape, generator=generator, dtype=dtype)

        self.recurrent = draw(width)
        self.injection, self.bias = draw(dim), draw()
        self.skip = draw(dim) if skip else None
        self.output: nn.Parameter | None = draw(width) if output_layer else None
        self.output_bias: nn.Parameter | None = draw() if output_layer else None

    def weight(self) -> Tensor:
        """The normalised W of every kernel, `[R, h, h]`, `|W_r|_F < 1 / margin`."""
        norm = torch.linalg.vector_norm(self.recurrent, dim=(1, 2), keepdim=True)
        return self.recurrent / (self.margin * ((norm.detach() if self.released else norm) + self.eps))

    def entry(self) -> tuple[Tensor, Tensor]:
        """A and b of the injection."""
        return self.injection, self.bias

    def inject(self, x: Jet) -> Jet:
        """`g(x) = softplus(A x + b)`."""
        return x.linear(self.injection, self.bias).softplus()

    def map(self, z: Tensor, u: Tensor, weight: Tensor | None = None) -> Tensor:
        """The map f for a batch: z and u `[n, R, h]`, with u = g(x)."""
        product = torch.einsum("rij,nrj->nri", self.weight() if weight is None else weight, z)
        return product + u if self.released else torch.nn.functional.softplus(product + u)

    def fixed_point(self, u: Tensor) -> Tensor:
        """The equilibrium for the injection u `[R, n, h]`, detached, `[R, n, h]`.

        Raises:
            NotConverged: a sample did not reach the tolerance.
        """
        with torch.no_grad():
            weight, start = self.weight().detach(), u.detach().transpose(0, 1).contiguous()
            self.last = solve(lambda z, v: self.map(z, v, weight), torch.zeros_like(start), inputs=(start,),
                              solver=self.solver, tol=self.tol, max_iter=self.max_iter).raise_if_failed()
            return self.last.z.transpose(0, 1).contiguous()

    def jacobian(self, z: Tensor, u: Tensor) -> Tensor:
        """J = df/dz of every kernel and sample, `[R, n, h, h]`, detached."""
        weight = self.weight().detach()
        if self.released:
            return weight[:, None].expand(-1, z.shape[1], -1, -1)
        slope = torch.sigmoid(z.detach() @ weight.transpose(1, 2) + u.detach())
        return slope[..., None] * weight[:, None]

    def preconditioner(self, z: Tensor, u: Tensor) -> Tensor | float:
        """M of the gradient rule at the fixed point, dense `[R, n, h, h]`, or a number times the identity."""
        rule = self.gradient
        if isinstance(rule, Phantom):
            return rule.damping
        jacobian = self.jacobian(z, u)
        identity = torch.eye(z.shape[2], dtype=z.dtype, device=z.device)
        if isinstance(rule, Exact):
            return inverse(identity - jacobian, "I - df/dz of kernel and sample")
        if isinstance(rule, Neumann):
            total = identity.expand_as(jacobian)
            for _ in range(rule.terms - 1):
                total = identity + jacobian @ total
            return total
        raise TypeError(f"the jet of an equilibrium knows Phantom, Neumann and Exact, not {rule!r}")

    def lift(self, y: Jet) -> Jet:
        """Push the jet of `A x + b` through the rule's iteration.

        Raises:
            DerivativeOrderError: a parameter gradient of the result would be of an order above the rule's.
            NotConverged: no equilibrium was found.
        """
        self._check_order(y)
        u = y.softplus()
        z = Jet(self.fixed_point(u.value))
        matrix = self.preconditioner(z.value, u.value)
        weight = self.weight()
        for step in range(self.gradient.steps):
            product = z.linear(weight.detach() if self.released and step == 0 else weight) + u
            applied = product if self.released else product.softplus()
            z = applied if isinstance(matrix, float) and matrix == 1 else z + (applied - z).fixed_map(matrix)
        return z if self.output is None else z.linear(self.output, self.output_bias)

    def _check_order(self, x: Jet) -> None:
        asked = (x.first is not None) + (x.second is not None)
        asked += torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        limit = self.gradient.max_order
        if limit is not None and asked > limit and not self.allow_beyond_order:
            raise DerivativeOrderError(f"{self.gradient!r} vouches for derivatives up to order {limit}; this needs "
                                       f"order {asked}, parameters included. Take such a rule, or use no_grad")

    def _read_out(self, z: Jet, x: Jet) -> Jet:
        if self.output is not None:
            z = z.linear(self.output, self.output_bias)
        return z if self.skip is None else z + x.linear(self.skip)

    def forward(self, x: Tensor) -> Tensor:
        """Features `[R, n, h]` of x `[n, d]` through `deq.equilibrium`, differentiable under any transform."""
        entry = input_jet(x, self.kernels)
        u = self.inject(entry).value.transpose(0, 1)
        weight = self.weight()
        if self.released:
            z = Jet(self.fixed_point(u.transpose(0, 1))).linear(weight.detach()).value + u.transpose(0, 1)
            for _ in range(self.gradient.steps - 1):
                z = z @ weight.transpose(1, 2) + u.transpose(0, 1)
            return self._read_out(Jet(z), entry).value
        z = equilibrium(lambda state: self.map(state, u, weight), torch.zeros_like(u.detach()), gradient=self.gradient,
                        solver=self.solver, tol=self.tol, max_iter=self.max_iter)
        return self._read_out(Jet(z.transpose(0, 1)), entry).value
