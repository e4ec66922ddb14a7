"""Gradient rules and the machinery behind them: one preconditioned iteration, guarded against orders it cannot give."""

from deq.gradients.rules import Exact, GradientRule, Neumann, Phantom

__all__ = ["Exact", "GradientRule", "Neumann", "Phantom"]
