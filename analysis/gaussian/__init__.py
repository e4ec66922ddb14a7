"""Gaussian expectations of activations: panels, one quadrature rule, closed forms, any number of digits."""

from analysis.gaussian.moments import Expectation as Expectation
from analysis.gaussian.moments import Moments as Moments
from analysis.gaussian.moments import expect as expect
from analysis.gaussian.moments import expected_derivative_square as expected_derivative_square
from analysis.gaussian.moments import moments as moments
from analysis.gaussian.moments import moments_at as moments_at
from analysis.gaussian.precise import precise_moments as precise_moments
