"""Other libraries doing the same work; optional, and listed as absent where they are not installed."""

from verification.bench.peers.jax_process import jax_contestants as jax_contestants
from verification.bench.peers.torch_peers import torch_contestants as torch_contestants
