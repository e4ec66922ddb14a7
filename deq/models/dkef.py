"""Deep kernel exponential families (Wenliang et al. 2019; [SM] section 4.2): density models whose last layer is solved.

    log p(x) = q0(x) + sum_l alpha_l k(x, z_l),   q0(x) = -|x|^2 / (2 * 2^2),
    k(x, y) = sum_r rho_r exp(-|phi_r(x) - phi_r(y)|^2 / (2 * 10^ell_r)),   rho = softmax(logits).

alpha minimises the score-matching objective on one batch, in closed form (every objective here is quadratic in
alpha), and its graph is kept. Choices, where the paper and its released code disagree: the length scale is 10^ell, not
its square; ell starts at (0, 0.5185, 1); width 32 and 64 inducing points (table 2's counts need them; the text says
30); the base measure is fixed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deq.gradients.rules import GradientRule
from deq.models.dkef_features import EquilibriumFeatures, ExplicitFeatures
from deq.models.dkef_kernel import KernelForm, gaussian_parts
from deq.models.jets import input_jet

VARIANTS = ("explicit", "deq", "deq-released")
FIRST_LENGTHS = (0.0, 0.5185, 1.0)


class DKEF(nn.Module):
    """A deep kernel exponential family.

    Args:
        dim: d.
        variant: "explicit" (k-layer features), "deq" ([SM] eq. 5, literal) or "deq-released".
        layers: k of the k-layer features; not used by an equilibrium.
        width: h.
        inducing: M.
        kernels: R, Gaussian kernels in the mixture.
        base_scale: standard deviation of q0, fixed; not normalised.
        gradient, solver, tol, max_iter, margin, eps, skip, output_layer, allow_beyond_order: see `EquilibriumFeatures`.
        generator: source of the initial weights.
        dtype: of all parameters.

    Raises:
        ValueError: an unknown variant or a size that is not positive.

    Example:
        >>> import torch
        >>> from deq.models import DKEF
        >>> model = DKEF(3, variant="deq", width=8, inducing=4).double()
        >>> sum(p.numel() for p in model.parameters()) > 0
        True
    """

    alpha: Tensor

    def __init__(self, dim: int, *, variant: str = "explicit", layers: int = 3, width: int = 32, inducing: int = 64,
                 kernels: int = 3, base_scale: float = 2.0, gradient: GradientRule | None = None,
                 solver: Any = "anderson", tol: float = 5e-6, max_iter: int = 128, margin: float = 1 + 1e-6,
                 eps: float = 1e-6, skip: bool = True, output_layer: bool = False, allow_beyond_order: bool = False,
                 generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
        for name, size in (("dim", dim), ("layers", layers), ("width", width), ("inducing", inducing),
                           ("kernels", kernels)):
            if size < 1:
                raise ValueError(f"{name} must be positive, got {size}")
        self.dim, self.variant, self.base_scale = dim, variant, base_scale
        self.features: ExplicitFeatures | EquilibriumFeatures
        if variant == "explicit":
            self.features = ExplicitFeatures(kernels, dim, width, layers, skip=skip, generator=generator, dtype=dtype)
        else:
            self.features = EquilibriumFeatures(
                kernels, dim, width, gradient=gradient, solver=solver, tol=tol, max_iter=max_iter, margin=margin,
                eps=eps, skip=skip, output_layer=output_layer, released=variant == "deq-released",
                allow_beyond_order=allow_beyond_order, generator=generator, dtype=dtype)
        self.inducing = nn.Parameter(torch.randn(inducing, dim, generator=generator, dtype=dtype))
        self.mixture = nn.Parameter(torch.zeros(kernels, dtype=dtype))
        lengths = [FIRST_LENGTHS[min(r, len(FIRST_LENGTHS) - 1)] for r in range(kernels)]
        self.log_length = nn.Parameter(torch.tensor(lengths, dtype=dtype))
        self.log_ridge = nn.Parameter(torch.tensor(-2.0, dtype=dtype))
        self.register_buffer("alpha", torch.zeros(inducing, dtype=dtype))

    @torch.no_grad()
    def place_inducing(self, rows: Tensor, generator: torch.Generator | None = None) -> None:
        """Start the inducing points at distinct random rows `[n, d]` of the training data.

        Raises:
            ValueError: fewer rows than inducing points.
        """
        if len(rows) < len(self.inducing):
            raise ValueError(f"{len(rows)} rows cannot place {len(self.inducing)} inducing points")
        chosen = torch.randperm(len(rows), generator=generator)[:len(self.inducing)]
        self.inducing.copy_(rows[chosen])

    def anchors(self) -> Tensor:
        """Features of the inducing points, `[R, M, h]`, under the gradient rule."""
        return self.features.jet(input_jet(self.inducing, self.features.kernels)).value

    def kernel_form(self, features: Tensor, anchors: Tensor | None = None) -> KernelForm:
        """The kernel functions at points with these features `[R, n, h]`; anchors as `anchors` gives them."""
        return KernelForm.make(features, self.anchors() if anchors is None else anchors, self.mixture,
                               10**self.log_length)

    def base(self, x: Tensor) -> Tensor:
        """q0, `[n]`."""
        return -x.square().sum(1) / (2 * self.base_scale**2)

    def log_density(self, x: Tensor, alpha: Tensor | None = None, anchors: Tensor | None = None) -> Tensor:
        """Unnormalised log p, `[n]`, as an ordinary function of x and parameters.

        Args:
            x: `[n, d]`.
            alpha: `[M]`; the fitted one where None.
            anchors: features of the inducing points, `[R, M, h]`, where many calls share them; computed where None.

        Raises:
            ValueError: x is not `[n, d]`.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must be [n, {self.dim}], got {list(x.shape)}")
        anchors = self.features(self.inducing) if anchors is None else anchors
        part = gaussian_parts(self.features(x), anchors, self.mixture, 10**self.log_length)
        return self.base(x) + part.sum(0) @ (self.alpha if alpha is None else alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Same as `log_density`."""
        return self.log_density(x)

    def score(self, x: Tensor, alpha: Tensor | None = None) -> Tensor:
        """The model's score under its gradient rule, `[n, d]`, carried forward."""
        slopes, jet = self.features.unit_jet(x, second=False)
        pulled = self.kernel_form(jet.value).combine(self.alpha if alpha is None else alpha)
        return slopes.along(pulled) - x / self.base_scale**2
