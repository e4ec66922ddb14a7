"""Training of the papers' models: configurations, tasks, the engine and its checkpoints."""
# ruff: noqa: E402 - the check comes before the imports that would fail without a word of advice

from deq.rooms import need

need("deq.training", "train", ["numpy", "pooch", "safetensors", "sklearn", "tqdm"])

from deq.training.checkpoint import CheckpointError
from deq.training.config import Config, ConfigError, list_configs, load_config

__all__ = ["CheckpointError", "Config", "ConfigError", "list_configs", "load_config"]
