"""Training of the image models: NICE on logits, the SSM-VAE and NCSN ([SM] sections 4.1, 4.3, 4.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deq.evaluation.likelihood import Mean, batch_moment_surrogate
from deq.evaluation.nice_loss import nice_score_matching_values
from deq.losses import (
    approximate_backpropagation,
    curvature_propagation,
    denoising_score_matching,
    score_matching,
    sliced_score_matching,
    sliced_score_matching_of_score,
)
from deq.models import NCSN, NICE, SSMVAE
from deq.training.config import Config, ConfigError
from deq.training.sources import Source
from deq.training.task import Apply, MovingAverage, Task, build_model, build_optimizer

#: Of the order in which test images are taken where costly numbers are had of some alone; the same for every run.
TEST_SEED = 2019


class NICETask(Task):
    """NICE on dequantised logits.

    x in [0, 1] plus U(-1/512, 1/512), clamped to [1e-3, 1 - 1e-3] (in the code, not in the paper), then the logit. No
    logit Jacobian. About three quarters of MNIST's zero pixels land on one value, so score-matching losses of this
    protocol have no lower bound and depend on when training stops.
    """

    def __init__(self, config: Config, source: Source, device: torch.device) -> None:
        self.config, self.source, self.device = config, source, device
        self.model: NICE = build_model(config).to(device)  # type: ignore[assignment]
        self.module = self.model
        self.optimizers = {"model": build_optimizer(self.model.parameters(), config.optimizer)}
        self.rows = len(source.train)
        if source.train[0].numel() != self.model.dim:
            raise ConfigError(f"model.dim is {self.model.dim}, the images of {source.name} have "
                              f"{source.train[0].numel()}")

    def prepare(self, images: Tensor) -> Tensor:
        """Images uint8 `[n, ...]` to logits `[n, dim]`, with fresh noise."""
        x = images.flatten(1).to(self.device).to(self.model.scale.dtype) / 255
        x = (x + (torch.rand_like(x) - 0.5) / 256).clamp(1e-3, 1 - 1e-3)
        return x.logit()

    def loss(self, x: Tensor) -> Tensor:
        """The configured objective.

        Raises:
            ConfigError: unknown kind.
        """
        objective = self.config.objective
        density = self.model.log_density
        match objective.kind:
            case "mle":
                return -density(x).mean()
            case "sm":
                return score_matching(density, x)
            case "ssm" | "ssm-vr":
                return sliced_score_matching(density, x, variance_reduced=objective.kind == "ssm-vr",
                                             distribution=objective.distribution)  # type: ignore[arg-type]
            case "dsm":
                return denoising_score_matching(density, x, objective.sigma)
            case "cp":
                return curvature_propagation(self.model.layers(), x)
            case "approxbp":
                return approximate_backpropagation(self.model.layers(), x)
        raise ConfigError(f"objective.kind {objective.kind!r} is not known for NICE")

    def update(self, rows: Tensor, apply: Apply) -> dict[str, float]:
        """One update."""
        loss = self.loss(self.prepare(self.source.train[rows]))
        norm = apply("model", loss)
        return {"loss": float(loss.detach()), "gradient_norm": norm}

    def evaluate(self) -> dict[str, float]:
        """Exact score-matching loss on `data.test_limit` random test images, log-likelihood on all, in logit space.

        Both with the standard error of their mean over images.
        """
        limit = min(self.config.data.test_limit or len(self.source.test), len(self.source.test))
        with torch.no_grad():
            likelihood = Mean.of(torch.cat([self.model.log_density(self.prepare(images))
                                            for images in self.source.test.split(500)]))
        chosen = torch.randperm(len(self.source.test), generator=torch.Generator().manual_seed(TEST_SEED))[:limit]
        loss = Mean.of(nice_score_matching_values(self.model, self.prepare(self.source.test[chosen])))
        return {"test_sm_loss": loss.value, "test_sm_loss_error": loss.error, "test_sm_images": float(limit),
                "test_log_likelihood": likelihood.value, "test_log_likelihood_error": likelihood.error}


class VAETask(Task):
    """SSM-VAE: score-network updates by SSM-VR on encoder samples, then an encoder and decoder update."""

    def __init__(self, config: Config, source: Source, device: torch.device) -> None:
        self.config, self.source, self.device = config, source, device
        self.model: SSMVAE = build_model(config).to(device)  # type: ignore[assignment]
        self.module = self.model
        both = [*self.model.encoder.parameters(), *self.model.decoder.parameters()]
        self.optimizers = {"score": build_optimizer(self.model.score_network.parameters(), config.optimizer),
                           "autoencoder": build_optimizer(both, config.optimizer)}
        self.rows = len(source.train)

    def prepare(self, images: Tensor) -> Tensor:
        """Images uint8 to [-1, 1] plus U(-0.5, 0.5)/128."""
        dtype = self.model.decoder.first.weight.dtype
        x = images.to(self.device).to(dtype) / 127.5 - 1
        return x + (torch.rand_like(x) - 0.5) / 128

    def score_loss(self, x: Tensor) -> Tensor:
        """SSM-VR of s(z | x) over z drawn from the encoder, one projection."""
        with torch.no_grad():
            z = self.model.encode(x)
        objective = self.config.objective
        return sliced_score_matching_of_score(
            lambda y: self.model.score(y, x), z, variance_reduced=objective.kind == "ssm-vr",
            distribution=objective.distribution)  # type: ignore[arg-type]

    def update(self, rows: Tensor, apply: Apply) -> dict[str, float]:
        """`score_updates` updates of the score network, one of encoder and decoder."""
        x = self.prepare(self.source.train[rows])
        for _ in range(self.config.objective.score_updates):
            score_loss = self.score_loss(x)
            score_norm = apply("score", score_loss)
        z = self.model.encode(x)
        loss = self.model.encoder_loss(x, z).mean()
        norm = apply("autoencoder", loss)
        return {"loss": float(loss.detach()), "score_loss": float(score_loss.detach()), "gradient_norm": norm,
                "score_gradient_norm": score_norm}

    def evaluate(self) -> dict[str, float]:
        """Sliced loss and the batch-moment surrogate (not an ELBO) on the test images."""
        losses, surrogates = [], []
        for images in self.source.test.split(max(2, self.config.data.batch)):
            if len(images) < 2:
                continue
            x = self.prepare(images)
            losses.append(float(self.score_loss(x).detach()))
            with torch.no_grad():
                z = self.model.encode(x)
                surrogates.append(batch_moment_surrogate(self.model.reconstruction_loss(x, z), z))
        return {"test_score_loss": sum(losses) / len(losses),
                "test_moment_surrogate": sum(surrogates) / len(surrogates)}


class NCSNTask(Task):
    """NCSN: sigma^2-weighted SSM-VR at one random noise level a sample, horizontal flips, averaged weights."""

    def __init__(self, config: Config, source: Source, device: torch.device) -> None:
        self.config, self.source, self.device = config, source, device
        self.model: NCSN = build_model(config).to(device)  # type: ignore[assignment]
        parts: dict[str, nn.Module] = {"model": self.model}
        if config.optimizer.ema > 0:
            parts["average"] = MovingAverage(self.model, config.optimizer.ema)
        self.module = nn.ModuleDict(parts)
        self.optimizers = {"model": build_optimizer(self.model.parameters(), config.optimizer)}
        self.rows = len(source.train)

    def loss(self, model: NCSN, images: Tensor) -> Tensor:
        """The objective on images uint8 `[n, c, h, w]`."""
        dtype = model.begin.weight.dtype
        x = images.to(self.device).to(dtype) / 255
        flip = torch.rand(len(x), device=self.device) < 0.5
        x = torch.where(flip[:, None, None, None], x.flip(3), x)
        sigma = model.sigmas[torch.randint(len(model.sigmas), (len(x),), device=self.device)].to(dtype)
        noisy = x + sigma[:, None, None, None] * torch.randn_like(x)
        objective = self.config.objective
        values = sliced_score_matching_of_score(
            lambda y: model(y, sigma), noisy, variance_reduced=objective.kind == "ssm-vr",
            distribution=objective.distribution, reduction="none")  # type: ignore[arg-type]
        return (sigma.square() * values).mean()

    def update(self, rows: Tensor, apply: Apply) -> dict[str, float]:
        """One update, and the average follows."""
        loss = self.loss(self.model, self.source.train[rows])
        norm = apply("model", loss)
        if "average" in self.module:  # type: ignore[operator]
            self.module["average"].follow(self.model)  # type: ignore[index]
        return {"loss": float(loss.detach()), "gradient_norm": norm}

    def evaluate(self) -> dict[str, float]:
        """Mean objective over the test images, of the averaged weights where they are kept."""
        averaged = "average" in self.module  # type: ignore[operator]
        model = self.module["average"].model if averaged else self.model  # type: ignore[index]
        parts = self.source.test.split(self.config.data.batch)
        losses = [float(self.loss(model, images).detach()) for images in parts]
        return {"test_loss": sum(losses) / len(losses)}
