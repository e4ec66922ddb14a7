"""Looking at equilibria while they are trained."""

from deq.watching.course import Warned
from deq.watching.fabric import WatchCallback
from deq.watching.measure import Reading
from deq.watching.watcher import TrainingWarning, WatchedFault, Watcher, watch

__all__ = ["Reading", "TrainingWarning", "Warned", "WatchCallback", "WatchedFault", "Watcher", "watch"]
