"""Exact infinite-width kernels: dual activations, implicit and explicit networks, finite and sampled ones."""

from analysis.gaussian.panels import NotPiecewiseSmooth as NotPiecewiseSmooth
from analysis.kernels.duals import Dual as Dual
from analysis.kernels.duals import DualMethod as DualMethod
from analysis.kernels.duals import dual as dual
from analysis.kernels.explicit import ExplicitKernels as ExplicitKernels
from analysis.kernels.explicit import explicit_kernels as explicit_kernels
from analysis.kernels.implicit import DeqKernels as DeqKernels
from analysis.kernels.implicit import NtkConvention as NtkConvention
from analysis.kernels.implicit import deq_kernels as deq_kernels
