"""Likelihoods, divergences, samples and costs of trained models."""
# ruff: noqa: E402 - the check comes before the imports that would fail without a word of advice

from deq.rooms import need

need("deq.evaluation", "train", ["numpy", "matplotlib"])

from deq.evaluation.frechet import FeatureClassifier, FeatureStatistics, frechet_distance, inception_features
from deq.evaluation.images import image_grid, save_image_grid
from deq.evaluation.langevin import annealed_langevin
from deq.evaluation.likelihood import Mean, batch_moment_surrogate, fisher_divergence, log_likelihood_bounds
from deq.evaluation.measure import StepCost, measure_step, peak_memory
from deq.evaluation.normalizer import (
    GaussianBase,
    ImportanceEstimate,
    NormalizerEstimate,
    effective_sample_size,
    importance_log_normalizer,
    log_normalizer,
)

__all__ = [
    "FeatureClassifier", "FeatureStatistics", "GaussianBase", "ImportanceEstimate", "Mean", "NormalizerEstimate",
    "StepCost", "annealed_langevin", "batch_moment_surrogate", "effective_sample_size", "fisher_divergence",
    "frechet_distance", "image_grid", "importance_log_normalizer", "inception_features", "log_likelihood_bounds",
    "log_normalizer", "measure_step", "peak_memory", "save_image_grid",
]
