"""Training of the papers' models: configurations, tasks, the engine and its checkpoints."""

from deq.training.checkpoint import CheckpointError
from deq.training.config import Config, ConfigError, list_configs, load_config

__all__ = ["CheckpointError", "Config", "ConfigError", "list_configs", "load_config"]
