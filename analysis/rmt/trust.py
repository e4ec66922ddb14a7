r"""When the paper's equivalent can be trusted: its error predicted from the mixture alone, before any exact kernel.

The refined equivalent keeps each sample's own norm and Hadamard powers of the Gram matrix, so its error is of order
p^(-1) at order 2 and p^(-3/2) at order 3 while the paper's is of order p^(-1/2). Hence

    | paper - refined(3) | / | refined(3) |      predicts      | paper - exact | / | exact |

(spectral norms), and `| refined(3) - refined(2) |` bounds what the prediction leaves out. No fixed point is solved for
a pair of samples; data are drawn from the mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.activations import Activation
from analysis.kernels.implicit import deq_kernels
from analysis.rmt.equations import FourEquations, solve_equations
from analysis.rmt.equivalents import KernelKind, equivalent_kernel, spectral_norm
from analysis.rmt.mixtures import GaussianMixture, MixtureSample
from analysis.rmt.refined_equivalents import refined_equivalent

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EquivalentError:
    """The relative error of the deterministic equivalent, predicted and (if asked for) measured, one a draw.

    Example:
        >>> import numpy as np
        >>> from analysis import EquivalentError
        >>> error = EquivalentError(np.array([0.04]), np.array([0.002]), None, np.array([0.01]), p=400, n=320)
        >>> error.trusted(0.05), error.trusted(0.041), error.trusted(0.01)
        (True, None, False)

    Attributes:
        predicted: |paper - refined| / |refined|, spectral norms, [draws].
        uncertainty: what the refined equivalent itself leaves out, in the same units, [draws].
        measured: |paper - exact| / |exact|, [draws], or None.
        diagonal: the part of `predicted` that the diagonal has (each sample's own norm), [draws].
        p: dimension.
        n: samples.
    """

    predicted: Array
    uncertainty: Array
    measured: Array | None
    diagonal: Array
    p: int
    n: int

    @property
    def range(self) -> tuple[float, float]:
        """Between which values the error is predicted to lie, over draws and the prediction's own uncertainty."""
        return (float(np.min(self.predicted - self.uncertainty)), float(np.max(self.predicted + self.uncertainty)))

    def trusted(self, tolerance: float) -> bool | None:
        """Whether the error stays below `tolerance`: True, False, or None where the prediction cannot tell.

        Raises:
            ValueError: a tolerance that is not positive.
        """
        if not tolerance > 0:
            raise ValueError(f"tolerance must be positive, not {tolerance!r}")
        low, high = self.range
        return True if high <= tolerance else False if low > tolerance else None


def equivalent_error(activation: str | Activation | Callable[[Array], Array], sigma_a2: float,
                     mixture: GaussianMixture, *, sigma_b2: float | None = None, kind: KernelKind | str = "ck",
                     draws: int = 3, seed: int = 0, exact: bool = False) -> EquivalentError:
    """How far the paper's deterministic equivalent is from the kernel on samples of a mixture.

    >>> import numpy as np
    >>> from analysis import GaussianMixture, equivalent_error
    >>> mixture = GaussianMixture(np.zeros((1, 60)), [1.0], [40])
    >>> error = equivalent_error("tanh", 0.2, mixture, exact=True)
    >>> error.trusted(0.5), bool(np.all(np.abs(error.measured - error.predicted) <= error.uncertainty))
    (True, True)

    Args:
        activation: phi; it is centred.
        sigma_a2: variance of the recurrent weights.
        mixture: the classes, their sizes and the dimension.
        sigma_b2: variance of the input weights; 1 - sigma_a2 by default.
        kind: "ck" or "ntk".
        draws: samples to draw.
        seed: of the draws.
        exact: also measure the error by exact kernels.

    Raises:
        ValueError: an unknown kind, or no draws.
        EquationsError: the DEQ is refused.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    which = KernelKind(kind)
    eq = solve_equations(activation, sigma_a2, mixture.tau0, sigma_b2=sigma_b2)
    rng = np.random.default_rng(seed)
    rows = [error_on(eq, mixture.sample(rng), which, exact=exact) for _ in range(draws)]
    predicted, uncertainty, diagonal, measured = (np.array(column) for column in zip(*rows, strict=True))
    return EquivalentError(predicted, uncertainty, measured if exact else None, diagonal, mixture.p,
                           int(mixture.sizes.sum()))


def error_on(eq: FourEquations, data: MixtureSample, kind: KernelKind | str = "ck", *,
             exact: bool = False) -> tuple[float, float, float, float]:
    """Predicted error, its uncertainty, the diagonal's part and the measured error (NaN unless `exact`) on one sample.

    Args:
        eq: the solved equations.
        data: a mixture's sample, or labelled data with estimated statistics.
        kind: "ck" or "ntk".
        exact: whether to measure.
    """
    which = KernelKind(kind)
    paper = equivalent_kernel(eq, data, which)
    second, third = (refined_equivalent(eq, data, which, order=order) for order in (2, 3))
    size = spectral_norm(third)
    gap = paper - third
    diagonal = float(np.abs(np.diag(gap)).max())
    measured = np.nan
    if exact:
        kernels = deq_kernels(data.x, eq.activation, eq.sigma_a2, sigma_b2=eq.sigma_b2, centre=float(eq.shift))
        truth = getattr(kernels, which.value)
        measured = spectral_norm(paper - truth) / spectral_norm(truth)
    return spectral_norm(gap) / size, spectral_norm(third - second) / size, diagonal / size, measured
