"""The class-conditional GAN as a game: one phase, two players, one average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Average, Batch, Context, ImageSpec, Outcome, Phase, Player, Progress, Turn
from advgen.games.cgan.config import CGanConfig
from advgen.games.cgan.mlp import MlpDiscriminator, MlpGenerator, dropout_masks
from advgen.games.cgan.resnet import (
    DiscriminatorBlock,
    GeneratorBlock,
    Layers,
    ResnetDiscriminator,
    ResnetGenerator,
    discriminator_channels,
    generator_channels,
)
from advgen.losses.adversarial import LOSSES
from advgen.losses.penalties import penalised
from advgen.nn.augment import adapt, augment_networks, augmented
from advgen.nn.batch_norm import move_statistics
from advgen.nn.spectral import SpectralConv2d, SpectralEmbedding, SpectralLinear, power_iteration
from advgen.schedules import LearningRate
from advgen.seeds import Noise


class CGan:
    """Generator and discriminator at the data's resolution, both of which take labels."""

    def __init__(self, config: CGanConfig, spec: ImageSpec) -> None:
        spec.require_images("game.kind: cgan")
        if spec.classes < 2:
            raise UserError(
                "data.classes: cgan takes images of at least 2 classes. Set it to the number of classes in the shards "
                "(`advgen shard` with --labels makes them), or train without labels: game.kind gan or progan."
            )
        self.config, self.classes, self.resolution = config, spec.classes, spec.resolution
        self.normal_latents = config.architecture != "mlp"
        self.loss = LOSSES[config.adversarial]
        if config.architecture == "mlp":
            generator, discriminator = MlpGenerator(config.latents, spec), MlpDiscriminator(spec)
        else:
            spectral = Layers(SpectralConv2d, SpectralLinear, SpectralEmbedding)
            generator = ResnetGenerator(config, spec)
            discriminator = ResnetDiscriminator(config, spec, spectral if config.spectral_norm else Layers())
        self.networks: Mapping[str, nn.Module] = {
            "generator": generator,
            "discriminator": discriminator,
            **augment_networks(config.augment),
        }
        self.averages: Sequence[Average] = [
            Average("generator_ema", of="generator", after="generator", decay=config.average)
        ]
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
        self.phases: Sequence[Phase] = [
            Phase(
                name=f"train {spec.resolution}x{spec.resolution}",
                kimg=config.total_kimg,
                resolution=spec.resolution,
                batch_size=config.batch_size,
                turns=(Turn(players),),
                trains=("generator", "discriminator"),
                learning_rates={player.name: rate for player in players},
                # Batch normalisation takes its moments over the whole batch.
                statistic_groups=1 if config.architecture == "resnet" else None,
            )
        ]

    def _generate(self, context: Context, labels: Tensor) -> Tensor:
        network, z = context.networks["generator"], self.latents(context.noise)
        if isinstance(network, MlpGenerator):
            return network(z, labels, self._masks(context, "generator dropout", network.masked))
        return network(z, labels, context.across)

    def _score(self, context: Context, labels: Tensor, which: str, images: Tensor) -> Tensor:
        """Scores [n] of "real" or "fake" images, as the discriminator is shown them."""
        network, images = context.networks["discriminator"], augmented(self.config.augment, context, images, which)
        if isinstance(network, MlpDiscriminator):
            return network(images, labels, self._masks(context, f"{which} dropout", network.masked))
        return network(images, labels)

    def _masks(self, context: Context, purpose: str, units: tuple[int, ...]) -> list[Tensor]:
        return dropout_masks(context.noise, purpose, units, self.config.dropout)

    def discriminator_loss(self, context: Context, batch: Batch) -> Outcome:
        """The adversarial loss with its penalties; fakes have the labels of the batch."""
        labels = _labels(batch)
        if context.micro_batch == 0:
            power_iteration(context.networks["discriminator"])
        with torch.no_grad():
            fake = self._generate(context, labels)
        real_critic, fake_critic = (partial(self._score, context, labels, which) for which in ("real", "fake"))
        total, real_scores, scalars = penalised(
            self.loss, self.config, context, real_critic, fake_critic, batch.images, fake
        )
        adapted = adapt(context.networks, context, real_scores)
        return Outcome(total, {"loss": total.detach(), **scalars, **adapted})

    def generator_loss(self, context: Context, batch: Batch) -> Outcome:
        """The adversarial loss against the frozen discriminator; running statistics move here and nowhere else."""
        labels = _labels(batch)
        fake = self._generate(context, labels)
        move_statistics(context.networks["generator"])
        real_scores = self._score(context, labels, "real", batch.images) if self.loss.compares else None
        total = self.loss.generator(self._score(context, labels, "fake", fake), real_scores)
        return Outcome(total, {"loss": total.detach()})

    def sample(
        self, networks: Mapping[str, nn.Module], progress: Progress, noise: Noise, like: Batch | None = None
    ) -> Tensor:
        """Images [n, c, r, r] in [-1, 1] of the given or of random classes, normalised by the running statistics."""
        if like is None or like.labels is None:
            like = Batch(noise.positions, (noise.uniform("label") * self.classes).long())
        return self.decode(networks, progress, self.latents(noise), like)

    def latents(self, noise: Noise) -> Tensor:
        """[n, latents] from N(0, 1) or, mlp, uniform in [0, 1)."""
        draw = noise.normal if self.normal_latents else noise.uniform
        return draw("latent", self.config.latents)

    def decode(
        self, networks: Mapping[str, nn.Module], progress: Progress, latents: Tensor, like: Batch | None = None
    ) -> Tensor:
        """Images [n, c, r, r] in [-1, 1] of latents and the classes of ``like``, normalised by running statistics."""
        if like is None or like.labels is None:
            raise UserError("This generator takes labels: give latents with theirs.")
        return networks["generator"](latents, like.labels)

    def drawer(self, networks: Mapping[str, nn.Module], progress: Progress) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """The generator: takes ``z``, float32 [n, latents] (normal or, mlp, uniform), and ``labels``, int64 [n]."""
        z = torch.linspace(-1, 1, 2 * self.config.latents).reshape(2, -1)
        return networks["generator"], {"z": z, "labels": torch.arange(2)}

    def blocks(self) -> list[nn.Module]:
        """Every residual block of both networks; none of the perceptrons."""
        return [
            module
            for network in self.networks.values()
            for module in network.modules()
            if isinstance(module, (GeneratorBlock, DiscriminatorBlock))
        ]

    def describe(self) -> list[tuple[str, str]]:
        """What a dry run prints besides phases and parameters."""
        rows = [
            ("architecture", self.config.architecture),
            ("latent vector", str(self.config.latents)),
            ("classes", str(self.classes)),
            ("loss", self.config.adversarial),
        ]
        if self.config.architecture == "resnet":
            up = generator_channels(self.config.width, self.resolution)
            down = discriminator_channels(self.config.critic_width, self.resolution)
            rows.append(("generator's channels", ", ".join(map(str, up))))
            rows.append(("discriminator's channels", ", ".join(str(count) for count, _ in down)))
            rows.append(("conditioning", self.config.conditioning))
        return rows


def _labels(batch: Batch) -> Tensor:
    assert batch.labels is not None, "the trainer hands labels on where data.classes is set"
    return batch.labels
