"""Arithmetic of one training iteration, counted on the meta device without computing anything."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from deq.interop.private import TorchDispatchMode
from deq.models import SSMVAE


class FlopCounter(TorchDispatchMode):
    """Adds up `total`, the operations of convolutions and matrix products inside the block, backward passes included.

    PyTorch's own counter follows modules through hooks that refuse `torch.autograd.grad` with a graph; this does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count it."""
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def vae_iteration_flops(variant: str, depth: int = 8, *, image_size: int = 64, batch: int = 128, channels: int = 64,
                        score_updates: int = 2) -> int:
    """Floating-point operations (a multiply-add counts two) of one SSM-VAE iteration as the released code runs it.

    `score_updates` score-network updates by SSM-VR, with their double backward, then one encoder and decoder update.
    Only for explicit variants: a solver's iterations depend on values, which a meta tensor does not have.

    Raises:
        ValueError: an equilibrium variant.
    """
    if variant.startswith("deq"):
        raise ValueError(f"variant {variant!r} iterates to convergence, which cannot be counted without values")
    with torch.device("meta"), FlopCounter() as counter:
        model = SSMVAE(image_size=image_size, channels=channels, variant=variant, depth=depth)
        x = torch.empty(batch, 3, image_size, image_size)
        noise = torch.empty(batch, model.encoder.noise)
        for _ in range(score_updates):
            z = model.encoder(x, noise).detach().requires_grad_(True)
            v = torch.empty_like(z)
            score = model.score(z, x)
            product = torch.autograd.grad((score * v).sum(), z, create_graph=True)[0]
            loss = (0.5 * score.square().sum(1) + (product * v).sum(1)).mean()
            loss.backward()
        z = model.encoder(x, noise)
        model.encoder_loss(x, z).mean().backward()
    return counter.total
