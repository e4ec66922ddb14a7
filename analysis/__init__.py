"""The mathematics of the papers: derivatives and their errors, kernels, random-matrix equivalents."""

from analysis.kernels import DeqKernels as DeqKernels
from analysis.kernels import NtkConvention as NtkConvention
from analysis.kernels import deq_kernels as deq_kernels
from analysis.kernels import dual as dual
from analysis.kernels import explicit_kernels as explicit_kernels
