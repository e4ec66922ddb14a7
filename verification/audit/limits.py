"""Where verdicts change. Each pair leaves room between "holds" and "fails": what falls between is undecided."""

from __future__ import annotations

#: Relative error of z (or of its residual where no equilibrium is near): common forward tolerances are 1e-3 and
#: tighter; from a percent on gradients and losses are visibly those of another point.
STATE_HOLDS, STATE_FAILS = 2e-3, 1e-2
#: Relative error of a gradient that claims to be exact: common backward tolerances are 1e-3 and tighter; a missing
#: term or a truncated series in a model that needs an implicit gradient costs more than 3 %.
GRADIENT_HOLDS, GRADIENT_FAILS = 5e-3, 3e-2
#: Of a second (third) derivative: everything above enters twice.
HIGHER_HOLDS, HIGHER_FAILS = 2e-2, 1e-1
#: A declared phantom gradient: error and cosine at which it is a fair stand-in, and at which it is none.
PHANTOM_ERROR_HOLDS, PHANTOM_COSINE_HOLDS = 0.3, 0.95
PHANTOM_ERROR_FAILS, PHANTOM_COSINE_FAILS = 0.9, 0.7
#: Distinct equilibria: relative distance, where both have a residual a hundred times below.
DISTINCT = 1e-3
#: Units of rounding by which equal calls may differ (threads add up in another order).
SAME_CALL = 64.0
#: Relative size of a difference between calls that dies out (a power iteration that settles) below which the map
#: counts as not settled instead of not deterministic.
SETTLING = 1e-2
#: Whole Jacobian below so many state entries a system, Krylov spaces above.
DENSE = 256
