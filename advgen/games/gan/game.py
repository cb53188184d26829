"""The plain GAN as a game: one phase, two players, one average (Goodfellow et al. 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Average, Batch, Context, ImageSpec, Outcome, Phase, Player, Progress, Turn
from advgen.games.gan import networks
from advgen.games.gan.config import GanConfig
from advgen.losses.adversarial import LOSSES
from advgen.losses.penalties import penalised
from advgen.nn.augment import adapt, augment_networks, augmented
from advgen.nn.spectral import power_iteration
from advgen.schedules import LearningRate
from advgen.seeds import Noise


class Gan:
    """Generator and discriminator at the data's resolution."""

    normal_latents = True

    def __init__(self, config: GanConfig, spec: ImageSpec) -> None:
        if spec.classes:
            raise UserError("game.kind: gan takes images without classes. Set data.classes to 0.")
        if config.architecture != "mlp":
            spec.require_images(f"game.architecture: {config.architecture}")
        if config.augment.kind != "none":
            spec.require_images(f"game.augment: {config.augment.kind}")
        self.config, self.loss = config, LOSSES[config.loss]
        resnet = config.architecture == "resnet"
        generator = networks.ResnetGenerator if resnet else networks.MlpGenerator
        discriminator = networks.ResnetDiscriminator if resnet else networks.MlpDiscriminator
        self.networks: Mapping[str, nn.Module] = {
            "generator": generator(config, spec),
            "discriminator": discriminator(config, spec),
            **augment_networks(config.augment),
        }
        self.averages = [Average("generator_ema", of="generator", after="generator", decay=config.average)]
        players = (
            Player(
                "discriminator",
                ("discriminator",),
                config.optimizer,
                self.discriminator_loss,
                repeat=config.critic_repeats,
            ),
            Player("generator", ("generator",), config.optimizer, self.generator_loss),
        )
        rate = LearningRate(config.learning_rate, rampdown_kimg=config.rampdown_kimg, total_kimg=config.total_kimg)
        self.phases = [
            Phase(
                name=f"train {spec.resolution}x{spec.resolution}",
                kimg=config.total_kimg,
                resolution=spec.resolution,
                batch_size=config.batch_size,
                turns=(Turn(players),),
                trains=("generator", "discriminator"),
                learning_rates={player.name: rate for player in players},
            )
        ]

    def _generate(self, context: Context) -> Tensor:
        return context.networks["generator"](self.latents(context.noise))

    def discriminator_loss(self, context: Context, batch: Batch) -> Outcome:
        """The adversarial loss with its penalties."""
        if context.micro_batch == 0:
            power_iteration(context.networks["discriminator"])
        with torch.no_grad():
            fake = self._generate(context)
        real_critic, fake_critic = (partial(self._scores, context, kind) for kind in ("real", "fake"))
        total, real_scores, scalars = penalised(
            self.loss, self.config, context, real_critic, fake_critic, batch.images, fake
        )
        adapted = adapt(context.networks, context, real_scores)
        return Outcome(total, {"loss": total.detach(), **scalars, **adapted})

    def _scores(self, context: Context, kind: str, images: Tensor) -> Tensor:
        """The discriminator's scores [n] of images, "real" or "fake", as it is shown them."""
        return context.networks["discriminator"](augmented(self.config.augment, context, images, kind))

    def generator_loss(self, context: Context, batch: Batch) -> Outcome:
        """The adversarial loss against the frozen discriminator."""
        real_scores = self._scores(context, "real", batch.images) if self.loss.compares else None
        total = self.loss.generator(self._scores(context, "fake", self._generate(context)), real_scores)
        return Outcome(total, {"loss": total.detach()})

    def sample(
        self, networks: Mapping[str, nn.Module], progress: Progress, noise: Noise, like: Batch | None = None
    ) -> Tensor:
        """Images [n, c, r, r] in [-1, 1], or points."""
        return self.decode(networks, progress, self.latents(noise))

    def latents(self, noise: Noise) -> Tensor:
        """[n, latents] from N(0, 1)."""
        return noise.normal("latent", self.config.latent_size)

    def decode(
        self, networks: Mapping[str, nn.Module], progress: Progress, latents: Tensor, like: Batch | None = None
    ) -> Tensor:
        """Images [n, c, r, r] in [-1, 1], or points, of latents."""
        return networks["generator"](latents)

    def drawer(self, networks: Mapping[str, nn.Module], progress: Progress) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """The generator as it is: takes ``z``, float32 [n, latents] from N(0, 1)."""
        return networks["generator"], {"z": torch.linspace(-1, 1, 2 * self.config.latent_size).reshape(2, -1)}

    def blocks(self) -> list[nn.Module]:
        """Every residual block of both networks; none of the perceptrons."""
        return [
            module
            for network in self.networks.values()
            for module in network.modules()
            if isinstance(module, networks.ResidualBlock)
        ]

    def describe(self) -> list[tuple[str, str]]:
        """What a dry run prints besides phases and parameters."""
        return [
            ("architecture", self.config.architecture),
            ("latent vector", str(self.config.latent_size)),
            ("loss", self.config.loss),
            ("augmentation", self.config.augment.kind),
        ]
