"""Adversarially learned inference as a game: one phase, two players that act on one forward, two averages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Average, Batch, Context, ImageSpec, Outcome, Phase, Player, Progress, Turn
from advgen.games.ali.architectures import Layers, architecture_of
from advgen.games.ali.config import AliConfig
from advgen.games.ali.networks import Decoder, Discriminator, Encoder
from advgen.losses.penalties import r1
from advgen.losses.ratio import RATIO_LOSSES
from advgen.nn.batch_norm import move_statistics
from advgen.schedules import LearningRate
from advgen.seeds import Noise

# The logit is log q(x, z) / p(x, z), the encoder's pairs over the decoder's.
_LOSS = RATIO_LOSSES["logistic"]
_DARKEST = 0.5 / 255  # a pixel that is black in all images is taken for half a grey level


class Ali:
    """Encoder and decoder against a discriminator of pairs (image, latent).

    Raises:
        UserError: the architecture is made for other images, or labels are asked for where there are none.
    """

    normal_latents = True

    def __init__(self, config: AliConfig, spec: ImageSpec) -> None:
        if config.conditional and spec.classes < 2:
            raise UserError("game.conditional: there are no labels. Set data.classes, or it to false.")
        self.config, self.spec = config, spec
        self.classes = spec.classes if config.conditional else 0
        self.beginning_images = config.log_odds_images if spec.bounded else 0
        self.architecture = architecture = architecture_of(config, spec)
        self.networks: Mapping[str, nn.Module] = {
            "encoder": Encoder(architecture, spec, self.classes, config.encoder == "gaussian"),
            "decoder": Decoder(architecture, spec, self.classes),
            "discriminator": Discriminator(architecture, spec, self.classes),
        }
        self.averages: Sequence[Average] = [
            Average(f"{name}_ema", of=name, after="generator", decay=config.average) for name in ("encoder", "decoder")
        ]
        players = (
            Player("generator", ("encoder", "decoder"), config.optimizer, self.generator_loss),
            Player("discriminator", ("discriminator",), config.optimizer, self.discriminator_loss),
        )
        rate = LearningRate(config.learning_rate, rampdown_kimg=config.rampdown_kimg, total_kimg=config.total_kimg)
        self.phases: Sequence[Phase] = [
            Phase(
                name=f"train {spec.resolution}x{spec.resolution}",
                kimg=config.total_kimg,
                resolution=spec.resolution,
                batch_size=config.batch_size,
                # Both losses are taken of one forward, before either network moves.
                turns=(Turn(players, update="simultaneous"),),
                trains=tuple(self.networks),
                learning_rates={player.name: rate for player in players},
                statistic_groups=1,  # batch normalisation takes its moments over the whole batch
            )
        ]

    # -- the losses -----------------------------------------------------------------------------------------------

    def begin(self, networks: Mapping[str, nn.Module], batches: Iterator[Batch]) -> None:
        """The decoder's last bias becomes the log-odds of each pixel's mean in [0, 1]."""
        total, count = torch.zeros(()), 0
        for batch in batches:
            total = total.to(batch.images.device) + ((batch.images.double() + 1) / 2).sum(dim=0)
            count += len(batch.images)
        if count:
            mean = (total / count).clamp(_DARKEST, 1 - _DARKEST)
            with torch.no_grad():
                cast(Decoder, networks["decoder"]).bias.copy_(torch.logit(mean))

    def generator_loss(self, context: Context, batch: Batch) -> Outcome:
        """The discriminator's loss with its classes exchanged; both pairs are left to the other player."""
        networks, labels = context.networks, self._labels(batch)
        latents = self.latents(context.noise)
        encoded = networks["encoder"](batch.images, self._epsilon(context.noise), labels, context.across)
        decoded = networks["decoder"](latents, labels, context.across)
        for name in ("encoder", "decoder"):
            move_statistics(networks[name])
        left = {"encoded": encoded, "decoded": decoded, "latents": latents}
        of_images, of_latents = self._judge(context, batch, *self._pairs(batch, left)).chunk(2)
        total = _LOSS(of_latents, of_images)
        scalars = {"loss": total.detach()}
        if self.config.cycle_weight:
            # After the running statistics have moved: they are to be those of latents from the prior.
            again = networks["decoder"](encoded, labels, context.across)
            cycle = (again - batch.images).square().mean()
            total, scalars["cycle"] = total + self.config.cycle_weight * cycle, cycle.detach()
        return Outcome(total, scalars, {name: rows.detach() for name, rows in left.items()})

    def discriminator_loss(self, context: Context, batch: Batch) -> Outcome:
        """-E log D(x, E(x)) - E log(1 - D(G(z), z)) (Dumoulin et al. 2016, eq. 2), on the generator's pairs."""
        images, latents = self._pairs(batch, context.detached["generator"])
        of_images, of_latents = self._judge(context, batch, images, latents).chunk(2)
        total = _LOSS(of_images, of_latents)
        scalars = {"loss": total.detach()}
        if self.config.pair_gamma:
            # Half of gamma at either kind, of which the batch is half: gamma times the mean over both.
            penalty = r1(partial(self._judge_flat, context, batch), torch.cat((images.flatten(1), latents), dim=1))
            total, scalars["pair_gradient"] = total + self.config.pair_gamma * penalty, penalty.detach()
        move_statistics(context.networks["discriminator"])
        return Outcome(total, scalars)

    def _pairs(self, batch: Batch, left: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Images [2 n, c, r, r] and latents [2 n, latents]: those of (x, E(x)), then those of (G(z), z)."""
        return torch.cat((batch.images, left["decoded"])), torch.cat((left["encoded"], left["latents"]))

    def _judge(self, context: Context, batch: Batch, images: Tensor, latents: Tensor) -> Tensor:
        """Logits [2 n] of pairs as :meth:`_pairs` gives them, of one forward on both."""
        # Both players leave out the same inputs, as their losses are of one forward.
        noise = replace(context.noise, scope=("train", "dropout"))
        labels = self._labels(batch)
        both = None if labels is None else torch.cat((labels, labels))
        return context.networks["discriminator"](images, latents, both, context.across, noise)

    def _judge_flat(self, context: Context, batch: Batch, pairs: Tensor) -> Tensor:
        """The same of pairs as vectors, [2 n, c r r + latents]."""
        images, latents = pairs.split((pairs.shape[1] - self.architecture.latents, self.architecture.latents), dim=1)
        return self._judge(context, batch, images.unflatten(1, batch.images.shape[1:]), latents)

    def _labels(self, like: Batch | None) -> Tensor | None:
        if not self.classes:
            return None
        if like is None or like.labels is None:
            raise UserError("These networks take labels (game.conditional): give images or latents with theirs.")
        return like.labels

    def _epsilon(self, noise: Noise | None) -> Tensor | None:
        if noise is None or self.config.encoder == "deterministic":
            return None
        return noise.normal("encoder", self.architecture.latents)

    # -- using it -------------------------------------------------------------------------------------------------

    def sample(
        self, networks: Mapping[str, nn.Module], progress: Progress, noise: Noise, like: Batch | None = None
    ) -> Tensor:
        """Images [n, c, r, r] in [-1, 1], or points, of the given or of random classes, by the running statistics."""
        if self.classes and like is None:
            like = Batch(noise.positions, (noise.uniform("label") * self.classes).long())
        return self.decode(networks, progress, self.latents(noise), like)

    def latents(self, noise: Noise) -> Tensor:
        """[n, latents] from N(0, 1)."""
        return noise.normal("latent", self.architecture.latents)

    def encode(
        self, networks: Mapping[str, nn.Module], progress: Progress, images: Batch, noise: Noise | None = None
    ) -> Tensor:
        """Latents [n, latents] of images, drawn with noise, or their means without."""
        return networks["encoder"](images.images, self._epsilon(noise), self._labels(images))

    def features(self, networks: Mapping[str, nn.Module], progress: Progress, images: Batch) -> Tensor:
        """[n, k]: the encoder's last three hidden layers and its outputs."""
        return cast(Encoder, networks["encoder"]).features(images.images, self._labels(images))

    def decode(
        self, networks: Mapping[str, nn.Module], progress: Progress, latents: Tensor, like: Batch | None = None
    ) -> Tensor:
        """Images [n, c, r, r] in [-1, 1] of latents, with the labels of ``like`` where the game is conditional."""
        return networks["decoder"](latents, self._labels(like))

    def drawer(self, networks: Mapping[str, nn.Module], progress: Progress) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """The decoder: takes ``z``, float32 [n, latents] (normal), and ``labels``, int64 [n], where conditional."""
        z = torch.linspace(-1, 1, 2 * self.architecture.latents).reshape(2, -1)
        return networks["decoder"], {"z": z, **({"labels": torch.arange(2)} if self.classes else {})}

    def describe(self) -> list[tuple[str, str]]:
        """What a dry run prints besides phases and parameters."""

        def widths(layers: Layers) -> str:
            return ", ".join(str(layer.maps) for layer in layers)

        rows = [("architecture", self.config.architecture), ("encoder", self.config.encoder)]
        rows.append(("latent vector", str(self.architecture.latents)))
        rows += [(f"{name}'s maps", widths(getattr(self.architecture, name))) for name in ("encoder", "decoder")]
        rows += [(f"discriminator's maps ({n})", widths(getattr(self.architecture, n))) for n in _PARTS]
        return [*rows, ("classes", str(self.classes))]


_PARTS = ("images", "latent", "joint")
