"""The mathematics of the papers: derivatives and their errors, kernels, random-matrix equivalents."""

from analysis.bounds import PhantomErrorBound as PhantomErrorBound
from analysis.bounds import phantom_error_bound as phantom_error_bound
from analysis.convolution_norms import convolution_norms as convolution_norms
from analysis.derivatives import Derivatives as Derivatives
from analysis.derivatives import implicit_derivatives as implicit_derivatives
from analysis.derivatives import phantom_derivatives as phantom_derivatives
from analysis.derivatives import preconditioned_derivatives as preconditioned_derivatives
from analysis.equilibrium_point import NotAFixedPointError as NotAFixedPointError
from analysis.equilibrium_point import SingularEquilibriumError as SingularEquilibriumError
from analysis.equilibrium_point import newton_equilibrium as newton_equilibrium
from analysis.jacobian_norms import operator_norm as operator_norm
from analysis.jacobian_norms import spectral_radius as spectral_radius
from analysis.loss_error import LossErrorBound as LossErrorBound
from analysis.loss_error import fisher_divergence_error as fisher_divergence_error
from analysis.loss_error import least_phantom_steps as least_phantom_steps
from analysis.loss_error import loss_error_bounds as loss_error_bounds
from analysis.loss_error import steps_for_rate as steps_for_rate
from analysis.loss_gradient_error import GradientErrorBound as GradientErrorBound
from analysis.loss_gradient_error import LayerModel as LayerModel
from analysis.loss_gradient_error import gradient_error_bounds as gradient_error_bounds
from analysis.scores import ScoreError as ScoreError
from analysis.scores import score_error as score_error
