"""The former place of `analysis.rmt.mixtures`, kept for scripts that import from it."""

from analysis.rmt.mixtures import ClassStatistics as ClassStatistics
from analysis.rmt.mixtures import GaussianMixture as GaussianMixture
from analysis.rmt.mixtures import MixtureSample as MixtureSample
from analysis.rmt.mixtures import paper_mixture as paper_mixture
from analysis.rmt.mixtures import structured_mixture as structured_mixture
