"""pix2pixHD as a game: G1 alone, then each enhancer with what is before it frozen, then both (Wang et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Average, Batch, Context, ImageSpec, Outcome, Phase, Player, Progress, Turn
from advgen.games.pix2pixhd.config import Pix2PixHdConfig
from advgen.games.pix2pixhd.encoder import Encoder, Instances, find_instances, spread
from advgen.games.pix2pixhd.networks import Generator, MultiscaleDiscriminator, ResidualBlock, check_sides
from advgen.games.pix2pixhd.styles import Styles, classes_of, large_instances
from advgen.losses import matching
from advgen.losses.adversarial import least_squares_discriminator, least_squares_generator
from advgen.nn.boundaries import instance_edges, one_hot
from advgen.nn.image_pool import ImagePool
from advgen.nn.perceptual import LITE0_WEIGHTS, Frozen
from advgen.schedules import LearningRate
from advgen.seeds import Noise

_STYLE_SEED = 0


class Pix2PixHd:
    """Pictures painted from label maps, coarse to fine.

    Args:
        config: settings.
        spec: of the data, which have label maps.
        perceptual: images to features of layers (:mod:`advgen.nn.perceptual`); None where the game is not trained.

    Raises:
        UserError: the data lack what the settings ask for.
    """

    concluding_images = 1000

    def __init__(self, config: Pix2PixHdConfig, spec: ImageSpec, perceptual: Frozen | None = None) -> None:
        spec.require_images("game.kind: pix2pixhd")
        self.config, self.spec, self._perceptual = config, spec, perceptual
        self.styled = config.encoder_features > 0
        if not spec.label_map_classes:
            raise UserError(
                "game.kind: pix2pixhd paints from label maps. Set data.label_map_classes to their ids' number."
            )
        if (config.edges or config.encoder_features) and not spec.instance_maps:
            what = "game.edges" if config.edges else "game.encoder_features"
            raise UserError(
                f"{what} needs instance maps. Set data.instance_maps and shard them (--instance-maps), or set it to "
                f"{'false' if config.edges else '0'}."
            )
        if spec.channels != 3 and config.perceptual != "none":
            raise UserError(
                f"game.perceptual: {config.perceptual} sees colours. Set data.channels to 3, or it to none."
            )
        condition = spec.label_map_classes + config.edges
        self.networks: Mapping[str, nn.Module] = {
            "generator": Generator(config, condition + config.encoder_features, spec.channels),
            "discriminator": MultiscaleDiscriminator(config, condition + spec.channels),
        }
        if config.encoder_features:
            self.networks |= {
                "encoder": Encoder(config, spec.channels),
                "styles": Styles(config, spec.label_map_classes),
            }
        if config.pool_size:
            width = spec.width or spec.resolution
            pool = ImagePool(config.pool_size, condition + spec.channels, spec.resolution, width)
            self.networks |= {"pool": pool}
        self.averages: list[Average] = []
        self.phases = self._phases()

    # -- the schedule ---------------------------------------------------------------------------------------------

    def _phases(self) -> list[Phase]:
        config, generator = self.config, cast(Generator, self.networks["generator"])
        trained = ("generator", *(name for name in ("encoder",) if name in self.networks))
        # Both losses are taken of one forward, before either network moves, as in the released code.
        players = (Player("generator", trained, config.optimizer, self.generator_loss),)
        if config.judged:
            players += (Player("discriminator", ("discriminator",), config.optimizer, self.discriminator_loss),)
        turns = (Turn(players, update="simultaneous"),)
        found: list[Phase] = []
        end = 0.0

        def add(name: str, stage: int, kimg: float, decay: float, trains: list[str], reset: bool) -> None:
            nonlocal end
            end += kimg
            rate = LearningRate(config.learning_rate, 0.0, decay, end)
            found.append(
                Phase(
                    name=name,
                    kimg=kimg,
                    resolution=self.spec.resolution >> (config.enhancers - stage),
                    batch_size=config.batch_size,
                    turns=turns,
                    trains=(*trains, *(("discriminator",) if config.judged else ())),
                    learning_rates={player.name: rate for player in players},
                    reset_optimizers=reset,
                    statistic_groups=1 if config.pool_size else None,  # the pool takes the fakes of the whole batch
                )
            )

        if self.spec.resolution % (1 << config.enhancers) or (self.spec.width or 0) % (1 << config.enhancers):
            raise UserError(
                f"game.enhancers: {config.enhancers} halvings do not divide images of {self.spec.resolution} x "
                f"{self.spec.width or self.spec.resolution} pixels. Use fewer, or other images."
            )
        for stage in range(config.enhancers + 1):
            used = [*(f"generator.{part}" for part in generator.used(stage)), *trained[1:]]
            if not stage:
                add("global", 0, config.global_kimg, config.global_decay_kimg, used, reset=True)
                continue
            if config.frozen_kimg:
                add(
                    f"enhancer {stage} alone",
                    stage,
                    config.frozen_kimg,
                    0.0,
                    [f"generator.enhancer{stage}"],
                    reset=True,
                )
            reset = not config.frozen_kimg
            add(f"enhancer {stage} and before", stage, config.joint_kimg, config.joint_decay_kimg, used, reset)
        return found

    def _stage(self, phase: Phase) -> int:
        """Enhancers that a phase uses."""
        return self.config.enhancers + 1 - (self.spec.resolution // phase.resolution).bit_length()

    # -- the losses -----------------------------------------------------------------------------------------------

    def condition(self, like: Batch, dtype: torch.dtype) -> Tensor:
        """What both networks see of the maps: a channel for each class, and one for boundaries where they are on.

        Args:
            like: with label maps int64 [n, h, w], and instance maps where boundaries are on.
            dtype: of the result.

        Returns:
            [n, classes (+ 1), h, w].

        Raises:
            UserError: no such maps.
        """
        channels = [self._one_hot(self._labels(like))]
        if self.config.edges:
            channels.append(instance_edges(self._instances(like))[:, None])
        return torch.cat([channel.to(dtype) for channel in channels], dim=1)

    def _one_hot(self, label_map: Tensor) -> Tensor:
        return one_hot(label_map, self.spec.label_map_classes, self.spec.ignore_label)

    def _labels(self, like: Batch) -> Tensor:
        if like.label_map is None:
            raise UserError("pix2pixhd paints from label maps: give some (advgen sample RUN --label-map FILE).")
        return like.label_map

    def _classes(self, like: Batch, instances: Instances) -> Tensor:
        return classes_of(self._labels(like), instances, self.spec.ignore_label)

    def _instances(self, like: Batch) -> Tensor:
        if like.instance_map is None:
            raise UserError(
                "These networks see instances: give the instance maps, too (advgen sample --instances FILE)."
            )
        return like.instance_map

    def generator_loss(self, context: Context, batch: Batch) -> Outcome:
        """LSGAN over all scales, feature matching and distances to the real; the fake is left to the other player."""
        config = self.config
        condition = inputs = self.condition(batch, batch.images.dtype)
        if config.encoder_features:
            instances = find_instances(self._instances(batch))
            rows = context.networks["encoder"](batch.images, instances)
            inputs = torch.cat((condition, spread(rows, instances)), dim=1)
        fake = context.networks["generator"](inputs, self._stage(context.progress.phase))
        total, scalars = fake.new_zeros(()), {}
        if config.judged:
            total, scalars = self._judged(context.networks["discriminator"], condition, batch.images, fake)
        if config.l1_weight:
            distance = matching.absolute_distance(batch.images, fake)
            total = total + config.l1_weight * distance
            scalars["l1"] = distance.detach()
        if config.perceptual != "none" and config.perceptual_weight:
            assert self._perceptual is not None, "a game that is trained is handed its perceptual network"
            network = self._perceptual.like(fake)
            weights = matching.VGG19_WEIGHTS if config.perceptual == "vgg19" else LITE0_WEIGHTS
            distance = matching.perceptual(network, batch.images, fake, weights)
            total = total + config.perceptual_weight * distance
            scalars["perceptual"] = distance.detach()
        return Outcome(total, {"loss": total.detach(), **scalars}, {"fake": fake.detach()})

    def _judged(
        self, discriminator: nn.Module, condition: Tensor, images: Tensor, fake: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The part of the generator's loss that discriminators have, and its scalars."""
        config, found = self.config, discriminator(condition, fake)
        # The released code halves the discriminator's least squares alone.
        adversarial = 2 * matching.over_scales(least_squares_generator, found)
        total, scalars = config.adversarial_weight * adversarial, {"adversarial": adversarial.detach()}
        if config.feature_matching_weight:
            with torch.no_grad():
                real = discriminator(condition, images)
            distance = matching.feature_matching(real, found)
            total = total + config.feature_matching_weight * distance
            scalars["feature_matching"] = distance.detach()
        return total, scalars

    def discriminator_loss(self, context: Context, batch: Batch) -> Outcome:
        """LSGAN over all scales, on the generator's fakes or on older ones of the pool."""
        network = context.networks["discriminator"]
        condition = self.condition(batch, batch.images.dtype)
        shown = torch.cat((condition, context.detached["generator"]["fake"]), dim=1)
        if "pool" in context.networks:
            shown = context.networks["pool"](shown, context.noise, context.across)
        real = network(condition, batch.images)
        fake = network(*shown.split((condition.shape[1], self.spec.channels), dim=1))
        total = matching.over_scales(least_squares_discriminator, real, fake)
        return Outcome(total, {"loss": total.detach()})

    # -- using it -------------------------------------------------------------------------------------------------

    def conclude(self, networks: Mapping[str, nn.Module], progress: Progress, batches: Iterator[Batch]) -> None:
        """Cluster the encoder's features of the large instances, class by class: styles to draw."""
        if not self.config.encoder_features:
            return
        classes, rows = [], []
        with torch.no_grad():
            for batch in batches:
                instances = find_instances(self._instances(batch))
                features = networks["encoder"](batch.images, instances)
                found = large_instances(features, self._classes(batch, instances), instances)
                classes.append(found[0])
                rows.append(found[1])
        cast(Styles, networks["styles"]).fit(torch.cat(classes), torch.cat(rows), _STYLE_SEED)

    def sample(
        self, networks: Mapping[str, nn.Module], progress: Progress, noise: Noise, like: Batch | None = None
    ) -> Tensor:
        """Pictures [n, c, h, w] of the given maps at the progress' phase; instances get styles at random."""
        planes = self.planes(networks, noise, like or Batch(torch.empty(0)), {})
        return self.paint(networks, progress, planes)

    def check_maps(
        self, networks: Mapping[str, nn.Module], progress: Progress, like: Batch, styles: Mapping[int, int]
    ) -> None:
        """Refuse maps that are missing or too small, instances that are not there and styles that their classes lack.

        Raises:
            UserError: for any of them.
        """
        height, width = self._labels(like).shape[-2:]
        if self.config.edges or self.config.encoder_features:
            self._instances(like)
        check_sides(height, width, self.stride(progress))
        if styles and not self.config.encoder_features:
            raise UserError("this run has no styles: it was trained without an encoder (game.encoder_features: 0).")
        if styles:
            instances = find_instances(self._instances(like))
            cast(Styles, networks["styles"]).check(instances, self._classes(like, instances), styles)

    def planes(self, networks: Mapping[str, nn.Module], noise: Noise, like: Batch, styles: Mapping[int, int]) -> Tensor:
        """Label ids, where instances meet, and the features of the instances' styles: float32 [n, planes, h, w].

        Args:
            networks: of which those of the styles are used.
            noise: a row an image, of the styles.
            like: with the maps.
            styles: chosen ones, by the id of an instance: the number of a style of its class.
        """
        found = [self._labels(like)[:, None].float()]
        if self.config.edges:
            found.append(instance_edges(self._instances(like))[:, None].float())
        if self.config.encoder_features:
            instances = find_instances(self._instances(like))
            rows = networks["styles"](instances, self._classes(like, instances), noise, styles)
            found.append(spread(rows, instances))
        return torch.cat(found, dim=1)

    def paint(self, networks: Mapping[str, nn.Module], progress: Progress, planes: Tensor) -> Tensor:
        """Pictures [n, c, h, w] of :meth:`planes`."""
        dtype = next(networks["generator"].parameters()).dtype
        inputs = torch.cat((self._one_hot(planes[:, 0].long()).to(dtype), planes[:, 1:].to(dtype)), dim=1)
        return networks["generator"](inputs, self._stage(progress.phase))

    def stride(self, progress: Progress) -> int:
        """Pixels of the picture that are one at the coarsest level."""
        return 1 << (self.config.downsamplings + self._stage(progress.phase))

    def blocks(self) -> list[nn.Module]:
        """Every residual block of the generator."""
        return [module for module in self.networks["generator"].modules() if isinstance(module, ResidualBlock)]

    def describe(self) -> list[tuple[str, str]]:
        """What a dry run prints besides phases and parameters."""
        config = self.config
        levels = range(config.downsamplings + 1)
        channels = [
            ("global generator", " -> ".join(str(config.ngf << level) for level in levels)),
            *(
                (f"enhancer {n}", f"{config.ngf >> n} -> {config.ngf >> (n - 1)}")
                for n in range(1, config.enhancers + 1)
            ),
        ]
        seen = f"{self.spec.label_map_classes} classes" + (" and the boundary" if config.edges else "")
        return [
            *((f"channels of the {name}", text) for name, text in channels),
            ("condition", seen + (f", {config.encoder_features} features" if config.encoder_features else "")),
            ("discriminators", f"{config.discriminators} scales"),
            ("perceptual distance", config.perceptual),
        ]
