"""The models of [SM]: one file each, variants by configuration, no training code."""

from deq.models.blocks import WellPosedness, count_parameters, equilibrium_layers
from deq.models.dkef import DKEF
from deq.models.ncsn import NCSN
from deq.models.nice import NICE
from deq.models.ssmvae import SSMVAE

__all__ = ["DKEF", "NCSN", "NICE", "SSMVAE", "WellPosedness", "count_parameters", "equilibrium_layers"]
