"""The progressive GAN as a game: phases of growth, two players, one average (Karras et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Average, Batch, Context, ImageSpec, Outcome, Phase, Player, Progress, Turn
from advgen.games.progan.config import ProganConfig, WganGp
from advgen.games.progan.networks import Discriminator, Generator, GeneratorAt, fade_images, resolutions
from advgen.losses.adversarial import LOSSES
from advgen.losses.penalties import with_penalties
from advgen.precision import at_least_float32
from advgen.schedules import LearningRate
from advgen.seeds import Noise


class Progan:
    """Generator and discriminator that grow from 4x4 to the data's resolution."""

    normal_latents = True

    def __init__(self, config: ProganConfig, spec: ImageSpec) -> None:
        spec.require_images("game.kind: progan")
        if spec.resolution < config.first_resolution:
            raise UserError(
                f"game.first_resolution is {config.first_resolution}, above the data's {spec.resolution}. Lower it."
            )
        if bare := [r for r in resolutions(4, spec.resolution) if config.channels_at(r) < 1]:
            raise UserError(
                f"game.fmap_base: {config.fmap_base} leaves no channel at {bare[0]}x{bare[0]}. Raise it, lower "
                "fmap_decay, or set game.channels."
            )
        self.config, self.resolution, self.classes = config, spec.resolution, spec.classes
        self.loss = LOSSES[config.loss.name]
        self.networks: Mapping[str, nn.Module] = {
            "generator": Generator(config, spec),
            "discriminator": Discriminator(config, spec),
        }
        self.averages = [Average("generator_ema", of="generator", after="discriminator", decay=config.average)]
        self.phases = growth(config, spec, self._players())

    def _players(self) -> tuple[Player, ...]:
        discriminator = Player(
            "discriminator",
            ("discriminator",),
            self.config.optimizer,
            self.discriminator_loss,
            repeat=self.config.critic_repeats,
        )
        return discriminator, Player("generator", ("generator",), self.config.optimizer, self.generator_loss)

    @property
    def _classifies(self) -> bool:
        """Whether the discriminator tells labels apart where there are any."""
        return self.config.conditioning == "classifier"

    def _generate(self, context: Context, batch: Batch) -> Tensor:
        progress = context.progress
        z = self.latents(context.noise)
        return context.networks["generator"](z, batch.labels, progress.phase.resolution, progress.fade)

    def discriminator_loss(self, context: Context, batch: Batch) -> Outcome:
        """The discriminator's whole loss: adversarial, penalties, drift, and that of a classifier of labels."""
        loss, progress, fade, labels = self.config.loss, context.progress, context.progress.fade, batch.labels
        network = context.networks["discriminator"]
        with torch.no_grad():
            fake = self._generate(context, batch)
        real = fade_images(batch.images, fade)
        real_scores, real_logits = network(real, labels, fade, context.across)
        fake_scores, fake_logits = network(fake, labels, fade, context.across)

        def critic(images: Tensor) -> Tensor:
            return network(images, labels, fade, context.across)[0]

        scalars = {"real_score": real_scores.detach().mean(), "fake_score": fake_scores.detach().mean()}
        shrunk = isinstance(loss, WganGp) and loss.norm_at == "output"
        total, penalties = with_penalties(
            self.loss.discriminator(real_scores, fake_scores),
            critic,
            real,
            fake,
            real_scores,
            context.noise,
            progress.step,
            loss.penalties_at(progress.phase.resolution),
            scale=real.shape[-1] / self.resolution if shrunk else 1.0,
        )
        scalars |= penalties
        if self._classifies and labels is not None:
            labelled = F.cross_entropy(at_least_float32(real_logits), labels)
            labelled = labelled + F.cross_entropy(at_least_float32(fake_logits), labels)
            total = total + self.config.label_weight * labelled
            scalars["labels"] = labelled.detach()
        return Outcome(total, {"loss": total.detach(), **scalars})

    def generator_loss(self, context: Context, batch: Batch) -> Outcome:
        """The generator's loss against the frozen discriminator."""
        network, fade, labels = context.networks["discriminator"], context.progress.fade, batch.labels
        scores, logits = network(self._generate(context, batch), labels, fade, context.across)
        real_scores = None
        if self.loss.compares:
            real_scores, _ = network(fade_images(batch.images, fade), labels, fade, context.across)
        total = self.loss.generator(scores, real_scores)
        if self._classifies and labels is not None:
            total = total + self.config.label_weight * F.cross_entropy(at_least_float32(logits), labels)
        return Outcome(total, {"loss": total.detach()})

    def sample(
        self, networks: Mapping[str, nn.Module], progress: Progress, noise: Noise, like: Batch | None = None
    ) -> Tensor:
        """Images [n, c, r, r] at the progress' resolution and fade, of the given labels or of random ones."""
        if self.classes and (like is None or like.labels is None):
            like = Batch(noise.positions, (noise.uniform("label") * self.classes).long())
        return self.decode(networks, progress, self.latents(noise), like)

    def latents(self, noise: Noise) -> Tensor:
        """[n, latents] from N(0, 1)."""
        return noise.normal("latent", self.config.latents)

    def decode(
        self, networks: Mapping[str, nn.Module], progress: Progress, latents: Tensor, like: Batch | None = None
    ) -> Tensor:
        """Images [n, c, r, r] of latents at the progress' resolution and fade, with the labels of ``like``."""
        labels = None if like is None else like.labels
        if self.classes and labels is None:
            raise UserError("This generator takes labels (data.classes): give latents with theirs.")
        return networks["generator"](latents, labels, progress.phase.resolution, progress.fade)

    def drawer(self, networks: Mapping[str, nn.Module], progress: Progress) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """Takes ``z``, float32 [n, latents] from N(0, 1), and with classes ``labels``, int64 [n]."""
        generator = networks["generator"]
        assert isinstance(generator, Generator)
        inputs = {"z": torch.linspace(-1, 1, 2 * self.config.latents).reshape(2, -1)}
        if generator.classes:
            inputs["labels"] = torch.arange(2) % generator.classes
        return GeneratorAt(generator, progress.phase.resolution, progress.fade), inputs

    def blocks(self) -> list[nn.Module]:
        """Every block of both networks."""
        found: list[nn.Module] = []
        for network in self.networks.values():
            assert isinstance(network, (Generator, Discriminator))
            found += list(network.blocks.values())
        return found

    def describe(self) -> list[tuple[str, str]]:
        """What a dry run prints besides phases and parameters."""
        rows = resolutions(4, self.phases[-1].resolution)
        group = self.config.minibatch_group
        return [
            ("channels", ", ".join(f"{r}x{r}: {self.config.channels_at(r)}" for r in rows)),
            ("latent vector", str(self.config.latents)),
            (
                "minibatch stddev",
                "one group, the whole global batch" if group is None else f"strided groups of {group}",
            ),
            ("loss", self.config.loss.kind),
            *([("labels in the discriminator", self.config.conditioning)] if self.classes else []),
        ]


def growth(config: ProganConfig, spec: ImageSpec, players: tuple[Player, ...]) -> list[Phase]:
    """Train at the first resolution, then for each doubling a fade-in and a stabilisation.

    Raises:
        UserError: ``total_kimg`` leaves no room for the last phase.
    """
    phases: list[tuple[str, int, bool, float]] = []
    for r in resolutions(config.first_resolution, spec.resolution):
        if r > config.first_resolution:
            phases.append((f"fade {r}x{r}", r, True, config.fade_kimg_by_resolution.get(r, config.fade_kimg)))
        length = config.stabilize_kimg_by_resolution.get(r, config.stabilize_kimg)
        phases.append((f"train {r}x{r}", r, False, length))
    total = sum(length for *_, length in phases)
    if config.total_kimg is not None:
        name, r, fade, length = phases[-1]
        length += config.total_kimg - total
        if length <= 0:
            raise UserError(
                f"game.total_kimg: {config.total_kimg:g} is too short: {spec.resolution}x{spec.resolution} is reached "
                f"after {total - phases[-1][3]:g} kimg. Raise it, or shorten stabilize_kimg and fade_kimg."
            )
        phases[-1] = (name, r, fade, length)
        total = config.total_kimg
    return [_phase(config, players, total, *phase) for phase in phases if phase[3] > 0]


def _phase(
    config: ProganConfig, players: tuple[Player, ...], total: float, name: str, r: int, fade: bool, kimg: float
) -> Phase:
    batch = config.batch_size_by_resolution.get(r, config.batch_size)
    if batch % min(config.minibatch_group or batch, batch):
        raise UserError(
            f"game.minibatch_group: {config.minibatch_group} does not divide the batch of {batch} at {r}x{r}. "
            "Change it, or that batch (game.batch_size_by_resolution); null takes the whole batch as one group."
        )
    base = config.learning_rate_by_resolution.get(r, config.learning_rate)
    factors = {"discriminator": 1.0, "generator": config.generator_learning_rate_factor}
    rates = {
        player: LearningRate(base * factor, config.rampup_kimg, config.rampdown_kimg, total)
        for player, factor in factors.items()
    }
    used = [f"generator.blocks.{s}" for s in resolutions(4, r)] + [
        f"discriminator.blocks.{s}" for s in resolutions(4, r)
    ]
    for s in (r // 2, r) if fade else (r,):
        used += [f"generator.to_rgb.{s}", f"discriminator.from_rgb.{s}"]
    return Phase(
        name=name,
        kimg=kimg,
        resolution=r,
        batch_size=batch,
        turns=(Turn(players),),
        trains=tuple(used),
        learning_rates=rates,
        fade=fade,
        reset_optimizers=config.reset_optimizers,
        hold=config.hold_steps,
        statistic_groups=batch // min(config.minibatch_group or batch, batch),
    )
