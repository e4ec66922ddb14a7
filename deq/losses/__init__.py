"""Objectives for unnormalised models: score matching, its relatives, and the baselines the papers compare with."""

from deq.losses.denoising import denoising_score_matching, denoising_score_matching_of_score
from deq.losses.layerwise import approximate_backpropagation, curvature_propagation
from deq.losses.matching import fisher_divergence, score_matching, score_matching_of_score
from deq.losses.score import jacobian_trace, score_of
from deq.losses.sliced import (
    draw_projections,
    finite_difference_sliced_score_matching,
    sliced_score_matching,
    sliced_score_matching_of_score,
)

__all__ = [
    "approximate_backpropagation",
    "curvature_propagation",
    "denoising_score_matching",
    "denoising_score_matching_of_score",
    "draw_projections",
    "finite_difference_sliced_score_matching",
    "fisher_divergence",
    "jacobian_trace",
    "score_matching",
    "score_matching_of_score",
    "score_of",
    "sliced_score_matching",
    "sliced_score_matching_of_score",
]
