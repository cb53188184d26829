"""Variational inference with an implicit encoder as a game: one phase, an opponent that estimates, and the encoder.

E_x KL[q(z | x) || p(z | x)] is, up to a constant, E_x E_q [log q(z | x) / p(z) - log p(x | z)] (prior-contrastive), and
the divergence KL[q(z | x) p0(x) || p(x, z)] of the joints (joint-contrastive). q has no density: the opponent learns
the log-ratio, or the gradients of the logarithms, from samples (Huszar 2017, arXiv:1702.08235).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Average, Batch, Context, ImageSpec, Outcome, Phase, Player, Progress, Turn
from advgen.games.implicit_vi.config import ImplicitViConfig
from advgen.games.implicit_vi.networks import Classifier, Denoiser, Encoder
from advgen.likelihood.models import MODELS, GenerativeModel, log_normal
from advgen.losses.ratio import RATIO_LOSSES
from advgen.schedules import LearningRate
from advgen.seeds import Noise

# The logit is the log-ratio of the encoder's pairs over the others.
_LOSS = RATIO_LOSSES["logistic"]
_DRAWS = 256
"""Draws of whose latents an encoding without noise is the mean."""


class ImplicitVi:
    """An encoder against a classifier (adversarial) or denoisers (denoising).

    Raises:
        UserError: the data are not points of the model.
    """

    def __init__(self, config: ImplicitViConfig, spec: ImageSpec) -> None:
        self.config, self.model = config, cast(GenerativeModel, MODELS[config.model]())
        _check_points(config.model, self.model.observed, spec)
        sizes = config.hidden, config.layers
        networks: dict[str, nn.Module] = {"encoder": Encoder(config.model, config.noise_size, *sizes)}
        if config.estimator == "adversarial":
            networks["classifier"] = Classifier(config.model, *sizes)
            opponent, loss = "classifier", self.classifier_loss
        else:
            networks["denoiser"] = Denoiser(config.model, config.denoising_deviation, *sizes)
            if config.contrast == "joint":
                networks["model_denoiser"] = Denoiser(config.model, config.denoising_deviation, *sizes)
            opponent, loss = "denoiser", self.denoiser_loss
        self.networks: Mapping[str, nn.Module] = networks
        self.averages: Sequence[Average] = [Average("encoder_ema", of="encoder", after="encoder", decay=config.average)]
        trained = tuple(name for name in networks if name != "encoder")
        players = (
            Player(opponent, trained, config.optimizer, loss, repeat=config.opponent_steps),
            Player("encoder", ("encoder",), config.optimizer, self.encoder_loss),
        )
        rates = {"encoder": config.learning_rate, opponent: config.opponent_learning_rate}
        self.phases: Sequence[Phase] = [
            Phase(
                name="train",
                kimg=config.total_kimg,
                resolution=1,
                batch_size=config.batch_size,
                turns=(Turn(players),),
                trains=tuple(networks),
                learning_rates={
                    name: LearningRate(rate, rampdown_kimg=config.rampdown_kimg, total_kimg=config.total_kimg)
                    for name, rate in rates.items()
                },
            )
        ]

    # -- the losses -----------------------------------------------------------------------------------------------

    def classifier_loss(self, context: Context, batch: Batch) -> Outcome:
        """Logistic regression of (x, z of q) against (x, z of p(z)), or against (x of p(x | z), z of p(z))."""
        x, z, others = self._pairs(context, batch)
        classifier = context.networks["classifier"]
        loss = _LOSS(classifier(x, z), classifier(*others))
        return Outcome(loss, {"loss": loss.detach()})

    def denoiser_loss(self, context: Context, batch: Batch) -> Outcome:
        """E |F(z + sigma n) - z|^2 / sigma^2 with z of q(z | x); and the same with z of the model's joint."""
        x, z, others = self._pairs(context, batch)
        networks, noise = context.networks, context.noise
        loss = _denoising(cast(Denoiser, networks["denoiser"]), x, z, noise.normal("denoiser", self.model.latents))
        scalars = {"loss": loss.detach()}
        if self.config.contrast == "joint":
            normal = noise.normal("model denoiser", self.model.latents)
            second = _denoising(cast(Denoiser, networks["model_denoiser"]), *others, normal)
            loss, scalars["model_loss"] = loss + second, second.detach()
        return Outcome(loss, scalars)

    def encoder_loss(self, context: Context, batch: Batch) -> Outcome:
        """The divergence, as the opponent has it; by denoising a surrogate, of which only the gradient has a meaning.

        The surrogate's gradient by z is grad log q - grad log p(x, z), the chain rule's first factor: that of log q's
        own parameters has expectation 0 (Huszar 2017).
        """
        x = batch.images.flatten(1)
        z = context.networks["encoder"](x, context.noise.normal("encoder", self.config.noise_size))
        if self.config.estimator == "adversarial":
            loss = context.networks["classifier"](x, z).mean()
            scalars = {"log_ratio": loss.detach()}
        else:
            score = self._score(context.networks, x, z)
            loss = (score * z).sum(dim=1).mean()
            scalars = {"score": score.square().sum(dim=1).mean().sqrt()}
            if self.config.contrast == "prior":
                loss = loss - log_normal(z, 0.0, self.model.deviation).mean()
        if self.config.contrast == "prior":
            fit = self.model.log_likelihood(x, z).mean()
            loss, scalars["log_likelihood"] = loss - fit, fit.detach()
        return Outcome(loss, {"loss": loss.detach(), **scalars})

    def _pairs(self, context: Context, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """x and z of q, and the pairs (x, z) that they are compared with; all without graph."""
        noise, x = context.noise, batch.images.flatten(1)
        with torch.no_grad():
            z = context.networks["encoder"](x, noise.normal("encoder", self.config.noise_size))
            prior = self.model.deviation * noise.normal("prior", self.model.latents)
            return x, z, (x if self.config.contrast == "prior" else self.model.observe(prior, noise), prior)

    def _score(self, networks: Mapping[str, nn.Module], x: Tensor, z: Tensor) -> Tensor:
        """grad log q(z | x), less grad log p(z | x) where a denoiser has learned that; [n, latents], without graph."""
        with torch.no_grad():
            score = cast(Denoiser, networks["denoiser"]).score(x, z)
            if self.config.contrast == "joint":
                score = score - cast(Denoiser, networks["model_denoiser"]).score(x, z)
        return score

    # -- using it -------------------------------------------------------------------------------------------------

    def encode(
        self, networks: Mapping[str, nn.Module], progress: Progress, images: Batch, noise: Noise | None = None
    ) -> Tensor:
        """Latents [n, latents] of points [n, observed, 1, 1], drawn with noise; without, means of 256 draws."""
        x, encoder = images.images.flatten(1), networks["encoder"]
        if noise is not None:
            return encoder(x, noise.normal("encoder", self.config.noise_size))
        # The same draws for every row, so that an encoding does not depend on what else is encoded.
        draws = Noise(0, ("mean latent",), torch.arange(_DRAWS, device=x.device), x.dtype)
        epsilon = draws.normal("encoder", self.config.noise_size).repeat(len(x), 1)
        return encoder(x.repeat_interleave(_DRAWS, dim=0), epsilon).unflatten(0, (len(x), _DRAWS)).mean(dim=1)

    def decode(
        self, networks: Mapping[str, nn.Module], progress: Progress, latents: Tensor, like: Batch | None = None
    ) -> Tensor:
        """Means of p(x | z), [n, observed, 1, 1], of latents [n, latents]."""
        return self.model.mean(latents)[:, :, None, None]

    def describe(self) -> list[tuple[str, str]]:
        """What a dry run prints besides phases and parameters."""
        method = f"{'PC' if self.config.contrast == 'prior' else 'JC'}-{self.config.estimator[:3].capitalize()}"
        rows = [("model", self.config.model), ("method", method)]
        if self.config.estimator == "denoising":
            rows.append(("denoising sigma", f"{self.config.denoising_deviation * self.model.deviation:.3g}"))
        return [*rows, ("latents", str(self.model.latents)), ("noise of the encoder", str(self.config.noise_size))]


def _denoising(denoiser: Denoiser, x: Tensor, z: Tensor, normal: Tensor) -> Tensor:
    """Squared error over sigma^2, summed over latents: of order 1 whatever sigma is.

    Each z is blurred by its noise and by the opposite. The expectation is the same, and most of the gradient's
    variance, which else grows with 1 / sigma^2, cancels.
    """
    x, z, normal = x.repeat(2, 1), z.repeat(2, 1), torch.cat((normal, -normal))
    error = denoiser(x, z + denoiser.sigma * normal) - z
    return (error / denoiser.sigma).square().sum(dim=1).mean()


def _check_points(model: str, observed: int, spec: ImageSpec) -> None:
    if spec.points != model:
        given = "images" if spec.points is None else f"points of {spec.points}"
        raise UserError(
            f"game.model: {model} explains its own points, and the data are {given}. Set data.points.kind: {model}, "
            f"data.resolution: 1 and data.channels: {observed}."
        )
