"""The mathematics of the papers: derivatives and their errors, kernels, random-matrix equivalents."""
# ruff: noqa: E402 - the check comes before the imports that would fail without a word of advice

from deq.rooms import need

need("analysis", "verify", ["scipy", "mpmath", "sympy", "flint"])

from analysis.activations import Activation as Activation
from analysis.activations import as_activation as as_activation
from analysis.convolution_norms import convolution_norms as convolution_norms
from analysis.errors import DepthNotDecided as DepthNotDecided
from analysis.errors import EquationsError as EquationsError
from analysis.errors import GrowsTooFast as GrowsTooFast
from analysis.errors import NoEquivalentNetwork as NoEquivalentNetwork
from analysis.errors import NoSolution as NoSolution
from analysis.errors import NotResolved as NotResolved
from analysis.errors import NotWellPosed as NotWellPosed
from analysis.errors import SeveralSolutions as SeveralSolutions
from analysis.gaussian import expect as expect
from analysis.jacobian_norms import operator_norm as operator_norm
from analysis.jacobian_norms import spectral_radius as spectral_radius
from analysis.kernels import DeqKernels as DeqKernels
from analysis.kernels import NtkConvention as NtkConvention
from analysis.kernels import deq_kernels as deq_kernels
from analysis.kernels import dual as dual
from analysis.kernels import explicit_kernels as explicit_kernels
from analysis.kernels.doors import OrientationWarning as OrientationWarning
from analysis.phantom.bounds import PhantomErrorBound as PhantomErrorBound
from analysis.phantom.bounds import phantom_error_bound as phantom_error_bound
from analysis.phantom.derivatives import Derivatives as Derivatives
from analysis.phantom.derivatives import implicit_derivatives as implicit_derivatives
from analysis.phantom.derivatives import phantom_derivatives as phantom_derivatives
from analysis.phantom.derivatives import preconditioned_derivatives as preconditioned_derivatives
from analysis.phantom.equilibrium_point import NotAFixedPointError as NotAFixedPointError
from analysis.phantom.equilibrium_point import SingularEquilibriumError as SingularEquilibriumError
from analysis.phantom.equilibrium_point import newton_equilibrium as newton_equilibrium
from analysis.phantom.loss_error import LossErrorBound as LossErrorBound
from analysis.phantom.loss_error import fisher_divergence_error as fisher_divergence_error
from analysis.phantom.loss_error import least_phantom_steps as least_phantom_steps
from analysis.phantom.loss_error import loss_error_bounds as loss_error_bounds
from analysis.phantom.loss_error import steps_for_rate as steps_for_rate
from analysis.phantom.loss_gradient_error import GradientErrorBound as GradientErrorBound
from analysis.phantom.loss_gradient_error import LayerModel as LayerModel
from analysis.phantom.loss_gradient_error import gradient_error_bounds as gradient_error_bounds
from analysis.phantom.scores import ScoreError as ScoreError
from analysis.phantom.scores import score_error as score_error
from analysis.rmt.commuting import NonCommuting as NonCommuting
from analysis.rmt.equations import FourEquations as FourEquations
from analysis.rmt.equations import solve_equations as solve_equations
from analysis.rmt.equivalents import CovarianceTerm as CovarianceTerm
from analysis.rmt.equivalents import equivalent_kernel as equivalent_kernel
from analysis.rmt.mixtures import ClassStatistics as ClassStatistics
from analysis.rmt.mixtures import GaussianMixture as GaussianMixture
from analysis.rmt.mixtures import MixtureSample as MixtureSample
from analysis.rmt.networks import EquivalentNetwork as EquivalentNetwork
from analysis.rmt.networks import equivalent_networks as equivalent_networks
from analysis.rmt.networks import matching_families as matching_families
from analysis.rmt.networks import minimal_depth as minimal_depth
from analysis.rmt.partitions import depth_limit as depth_limit
from analysis.rmt.partitions import depth_threshold as depth_threshold
from analysis.rmt.refined_equivalents import refined_equivalent as refined_equivalent
from analysis.rmt.spectra import KernelSpectrum as KernelSpectrum
from analysis.rmt.tau import solve_tau as solve_tau
from analysis.rmt.tau import well_posedness_edge as well_posedness_edge
from analysis.rmt.trust import EquivalentError as EquivalentError
from analysis.rmt.trust import equivalent_error as equivalent_error
