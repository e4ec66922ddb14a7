"""Rigorous numerics: statements about a concrete float model that are proved in ball arithmetic.

`certify_layer` makes a certificate of one equilibrium layer at one input, `recheck` verifies it by other arithmetic and
other algorithms. Below them: `enclose_equilibrium`, `enclose_derivatives`, `certify_contraction` and `phantom_errors`
on any composition of affine maps and activations (`Layer`, `Stack`, or a function of jets).
"""

from analysis.rigorous.balls import NotCertified as NotCertified
from analysis.rigorous.balls import working_precision as working_precision
from analysis.rigorous.certainty import Certainty as Certainty
from analysis.rigorous.certificate import certify_layer as certify_layer
from analysis.rigorous.certificate import summary as summary
from analysis.rigorous.checkpoint import CheckpointError as CheckpointError
from analysis.rigorous.checkpoint import LayerWeights as LayerWeights
from analysis.rigorous.checkpoint import load_input as load_input
from analysis.rigorous.checkpoint import load_weights as load_weights
from analysis.rigorous.contraction import certify_contraction as certify_contraction
from analysis.rigorous.equilibrium import enclose_derivatives as enclose_derivatives
from analysis.rigorous.equilibrium import enclose_equilibrium as enclose_equilibrium
from analysis.rigorous.fields import CertificateRejected as CertificateRejected
from analysis.rigorous.maps import KernelReadout as KernelReadout
from analysis.rigorous.maps import Layer as Layer
from analysis.rigorous.maps import QuadraticReadout as QuadraticReadout
from analysis.rigorous.maps import Stack as Stack
from analysis.rigorous.maps import convolution_matrix as convolution_matrix
from analysis.rigorous.phantom import phantom_errors as phantom_errors
from analysis.rigorous.recheck import recheck as recheck
from analysis.rigorous.smooth import NotSmooth as NotSmooth
