"""Adversarial autoencoders as a game: three or four players, two or three of which train one encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Average, Batch, Context, ImageSpec, Outcome, Phase, Player, Progress, Turn
from advgen.games.aae.checks import check_settings
from advgen.games.aae.config import AaeConfig
from advgen.games.aae.labels import Clusters, LabelledImages
from advgen.games.aae.networks import Decoder, Discriminator, Encoder, initialize
from advgen.games.aae.priors import draw
from advgen.losses.ratio import RATIO_LOSSES
from advgen.optim import Momentum, Optimizer
from advgen.precision import at_least_float32
from advgen.schedules import LearningRate
from advgen.seeds import Noise

# A discriminator's logit is log p / q, the prior's density over that of the codes.
_LOSS = RATIO_LOSSES["logistic"]
Group = tuple[str, Tensor, Tensor | None]
"""A name, images, and their labels where they are known."""

_NAMING_IMAGES = 10_000  # that clusters take their classes from


class Aae:
    """An autoencoder, and discriminators between its codes and draws from priors.

    Raises:
        UserError: settings that do not go with the data: labels are asked for where there are none, or do not divide
            evenly; convolutions for images that are no power of two.
    """

    def __init__(self, config: AaeConfig, spec: ImageSpec) -> None:
        check_settings(config, spec)
        self.config, self.spec = config, spec
        few = config.labelled or 0
        variant = config.variant
        self.labels_learned = variant == "semi_supervised" or (
            variant == "dimension_reduction" and config.labelled != 0
        )
        clustered = variant == "clustering" or (variant == "dimension_reduction" and not self.labels_learned)
        self.categories = spec.classes if self.labels_learned else config.clusters if clustered else 0
        self.classifies = self.labels_learned or (clustered and spec.classes > 0)
        # One class more stands for images whose label is not known.
        self._conditions = spec.classes + (few > 0) if config.conditioned else 0
        # All that is in a batch are looked at, and no more than it takes (LabelledImages.gather).
        self.beginning_images = max(20 * few, 1000 * spec.classes) if few else 0
        self.concluding_images = _NAMING_IMAGES if clustered and spec.classes else 0
        networks = self._built()
        for network in networks.values():
            initialize(network, config.initial_deviation)
        if few:
            networks["labelled"] = LabelledImages(few, spec)
        if self.concluding_images:
            networks["clusters"] = Clusters(self.categories)
        self.networks: Mapping[str, nn.Module] = networks
        self.phases: Sequence[Phase] = [self._phase()]
        last = self.phases[0].players[-1].name
        self.averages: Sequence[Average] = [
            Average(f"{name}_ema", of=name, after=last, decay=config.average) for name in (*self._coder, "decoder")
        ]

    def _built(self) -> dict[str, nn.Module]:
        config, spec, hidden = self.config, self.spec, self.config.hidden
        latents, convolutional = config.latent_size, config.architecture == "small"
        noise_size = config.noise_size if config.encoder == "universal" else 0
        heads = (self.categories, latents) if config.variant == "dimension_reduction" else None
        beside = 0 if heads else spec.classes if config.variant == "supervised" else self.categories
        built: dict[str, nn.Module] = {
            "encoder": Encoder(spec, hidden, convolutional, noise_size),
            "style": nn.Linear(hidden, latents * (2 if config.encoder == "gaussian" else 1)),
            "decoder": Decoder(spec, latents + beside, hidden, convolutional, heads),
            "discriminator": Discriminator(latents + self._conditions, hidden),
        }
        if self.categories:
            built["category"] = nn.Linear(hidden, self.categories)
            built["category_discriminator"] = Discriminator(self.categories, hidden)
        return built

    @property
    def _coder(self) -> tuple[str, ...]:
        """The networks that make a code."""
        return ("encoder", "style", "category") if self.categories else ("encoder", "style")

    def _phase(self) -> Phase:
        config = self.config

        def rule(momentum: float) -> Optimizer:
            return config.adam if config.optimizer == "adam" else Momentum(momentum=momentum)

        discriminators = ("discriminator", "category_discriminator") if self.categories else ("discriminator",)
        players = [
            Player("reconstruction", (*self._coder, "decoder"), rule(config.momentum), self.reconstruction_loss),
            Player("discriminator", discriminators, rule(config.adversarial_momentum), self.discriminator_loss),
            Player("generator", self._coder, rule(config.adversarial_momentum), self.generator_loss),
        ]
        if self.labels_learned:
            players.append(Player("labels", ("encoder", "category"), rule(config.momentum), self.labels_loss))
        rates = {
            "reconstruction": config.learning_rate,
            "discriminator": config.adversarial_learning_rate,
            "generator": config.adversarial_learning_rate,
            "labels": config.supervised_learning_rate,
        }
        return Phase(
            name=f"train {self.spec.resolution}x{self.spec.resolution}",
            kimg=config.total_kimg,
            resolution=self.spec.resolution,
            batch_size=config.batch_size,
            turns=(Turn(tuple(players)),),
            trains=tuple(
                name for name, network in self.networks.items() if next(network.parameters(), None) is not None
            ),
            learning_rates={p.name: LearningRate(rates[p.name], drops_kimg=config.drops_kimg) for p in players},
        )

    # -- the losses -----------------------------------------------------------------------------------------------

    def reconstruction_loss(self, context: Context, batch: Batch) -> Outcome:
        """Half the squared Euclidean distance between an image in [0, 1] and what is decoded of its code."""
        style, logits = self._code(context.networks, batch.images, context.noise, training=True)
        decoder = cast(Decoder, context.networks["decoder"])
        decoded = decoder(self._beside(decoder.place(style, _soft(logits)), batch))
        error = (at_least_float32(decoded) - _unit(batch.images)).square().flatten(1).sum(dim=1).mean() / 2
        scalars = {"error": error.detach()}
        total = error
        if decoder.heads is not None:
            apart = F.relu(self.config.head_distance - _distances(at_least_float32(decoder.heads))).sum()
            total = error + self.config.head_weight * apart
            scalars["heads"] = apart.detach()
        return Outcome(total, {"loss": total.detach(), **scalars})

    def discriminator_loss(self, context: Context, batch: Batch) -> Outcome:
        """-E log D(prior) - E log(1 - D(code)), and the same of categories where there are some."""
        groups = self._groups(context, batch)
        with torch.no_grad():
            codes, conditions, logits = self._judged(context, groups)
        size, classes = self.config.latent_size, self.spec.classes
        priors = [draw(self.config.prior, size, context.noise, known, classes, name) for name, _, known in groups]
        discriminator = context.networks["discriminator"]
        drawn = discriminator(torch.cat((torch.cat(priors), conditions), dim=1))
        total = _LOSS(drawn, discriminator(torch.cat((codes, conditions), dim=1)))
        scalars = {"style": total.detach()}
        if logits is not None:
            judge = context.networks["category_discriminator"]
            category = F.one_hot(self._any_category(context.noise), self.categories).to(codes.dtype)
            of_categories = _LOSS(judge(category), judge(logits.softmax(dim=1)))
            scalars["category"] = of_categories.detach()
            total = total + of_categories
        return Outcome(total, {"loss": total.detach(), **scalars})

    def generator_loss(self, context: Context, batch: Batch) -> Outcome:
        """-E log D(code): codes are to be taken for the prior's."""
        codes, conditions, logits = self._judged(context, self._groups(context, batch))
        judged = context.networks["discriminator"](torch.cat((codes, conditions), dim=1))
        total = _LOSS.at_p(at_least_float32(judged)).mean()
        scalars = {"style": total.detach()}
        if logits is not None:
            judged = context.networks["category_discriminator"](logits.softmax(dim=1))
            of_categories = _LOSS.at_p(at_least_float32(judged)).mean()
            scalars["category"] = of_categories.detach()
            total = total + of_categories
        return Outcome(total, {"loss": total.detach(), **scalars})

    def labels_loss(self, context: Context, batch: Batch) -> Outcome:
        """Cross-entropy of the categories with labels: those of the batch, or of as many of the labelled images."""
        images, labels = self._labelled(context, batch)
        _, logits = self._code(context.networks, images, context.noise, training=True)
        assert logits is not None
        logits = at_least_float32(logits)
        total = F.cross_entropy(logits, labels)
        error = (logits.argmax(dim=1) != labels).to(total.dtype).mean()
        return Outcome(total, {"loss": total.detach(), "error": error})

    # -- codes ----------------------------------------------------------------------------------------------------

    def _code(
        self,
        networks: Mapping[str, nn.Module],
        images: Tensor,
        noise: Noise | None,
        training: bool,
        purpose: str = "batch",
    ) -> tuple[Tensor, Tensor | None]:
        """Styles [n, latents] and logits of categories [n, categories], if there are some; means without noise."""
        config, x, beside = self.config, _unit(images), None
        if training and config.input_noise and noise is not None:
            x = x + config.input_noise * noise.normal(f"{purpose} input", *images.shape[1:]).to(x.dtype)
        if config.encoder == "universal":
            beside = x.new_zeros(len(x), config.noise_size)
            if noise is not None:
                beside = noise.normal(f"{purpose} beside", config.noise_size).to(x.dtype)
        features = networks["encoder"](x, beside)
        style = networks["style"](features)
        if self.config.encoder == "gaussian":
            style, log_deviation = style.chunk(2, dim=1)
            if noise is not None:
                epsilon = noise.normal(f"{purpose} encoder", self.config.latent_size).to(style.dtype)
                style = style + log_deviation.exp() * epsilon
        return style, networks["category"](features) if self.categories else None

    def _labelled(self, context: Context, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images with labels, as many as the batch has: itself, or draws from the few."""
        if not self.config.labelled:
            assert batch.labels is not None, "the data have classes"
            return batch.images, batch.labels
        few = cast(LabelledImages, context.networks["labelled"])
        return few.draw(context.noise, batch.images.dtype)

    def _groups(self, context: Context, batch: Batch) -> list[Group]:
        """What the discriminator is shown. Beside a batch whose labels are not known stand as many labelled images."""
        if not self.config.conditioned:
            return [("batch", batch.images, None)]
        known = ("known", *self._labelled(context, batch))
        return [("batch", batch.images, None), known] if self.config.labelled else [known]

    def _judged(self, context: Context, groups: list[Group]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes of all groups, what the discriminator is told of each, [n, conditions], and logits of categories."""
        codes: list[Tensor] = []
        conditions: list[Tensor] = []
        logits = None
        for name, images, labels in groups:
            style, logits = self._code(context.networks, images, context.noise, training=True, purpose=name)
            told = style.new_zeros(len(style), self._conditions)
            if self._conditions:
                where = torch.full((len(style),), self.spec.classes, device=style.device) if labels is None else labels
                told = F.one_hot(where, self._conditions).to(style.dtype)
            codes.append(style)
            conditions.append(told)
        return torch.cat(codes), torch.cat(conditions), logits

    def _beside(self, codes: Tensor, like: Batch | None) -> Tensor:
        """Codes with labels beside them, where the decoder takes labels."""
        if self.config.variant != "supervised":
            return codes
        if like is None or like.labels is None:
            raise UserError("This decoder takes labels (game.variant: supervised): give images or codes with theirs.")
        return torch.cat((F.one_hot(like.labels, self.spec.classes).to(codes.dtype), codes), dim=1)

    def _any_category(self, noise: Noise) -> Tensor:
        return (noise.uniform("category") * self.categories).long()

    # -- statistics of the data -----------------------------------------------------------------------------------

    def begin(self, networks: Mapping[str, nn.Module], batches: Iterator[Batch]) -> None:
        """The labelled images are the first of each class."""
        if self.config.labelled:
            cast(LabelledImages, networks["labelled"]).gather(batches)

    def conclude(self, networks: Mapping[str, nn.Module], progress: Progress, batches: Iterator[Batch]) -> None:
        """Clusters take the class of the image that is likeliest to be theirs."""
        if not self.concluding_images:
            return

        def answers() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in batches:
                assert batch.labels is not None, "the data have classes"
                _, logits = self._code(networks, batch.images, None, training=False)
                assert logits is not None
                yield logits.softmax(dim=1), batch.labels

        with torch.no_grad():
            cast(Clusters, networks["clusters"]).name(answers())

    # -- using it -------------------------------------------------------------------------------------------------

    def sample(
        self, networks: Mapping[str, nn.Module], progress: Progress, noise: Noise, like: Batch | None = None
    ) -> Tensor:
        """Images [n, c, r, r] in [-1, 1] of draws from the priors, of the given classes where codes have classes."""
        labels = None if like is None else like.labels
        if self.config.variant == "supervised" and labels is None:
            labels = (noise.uniform("label") * self.spec.classes).long()
        told = labels if self.config.conditioned else None
        codes = draw(self.config.prior, self.config.latent_size, noise, told, self.spec.classes)
        if self.categories:
            chosen = labels if self.labels_learned and labels is not None else self._any_category(noise)
            category = F.one_hot(chosen, self.categories).to(codes.dtype)
            codes = cast(Decoder, networks["decoder"]).place(codes, category)
        return self.decode(networks, progress, codes, Batch(codes, labels))

    def encode(
        self, networks: Mapping[str, nn.Module], progress: Progress, images: Batch, noise: Noise | None = None
    ) -> Tensor:
        """What the decoder makes images of, [n, size]: styles, behind probabilities of categories where there are some,
        or with the heads added (dimension_reduction). With noise they are drawn, without their means."""
        style, logits = self._code(networks, images.images, noise, training=False)
        return cast(Decoder, networks["decoder"]).place(style, _soft(logits))

    def decode(
        self, networks: Mapping[str, nn.Module], progress: Progress, latents: Tensor, like: Batch | None = None
    ) -> Tensor:
        """Images [n, c, r, r] in [-1, 1] of :meth:`encode`'s codes, with the labels of ``like`` if supervised."""
        return 2 * networks["decoder"](self._beside(latents, like)) - 1

    def classify(self, networks: Mapping[str, nn.Module], progress: Progress, images: Batch) -> Tensor:
        """Probabilities [n, classes]; of clusters 1 for the class of the likeliest one, and 0 if it has none yet.

        Raises:
            UserError: codes have no categories.
        """
        if not self.classifies:
            raise UserError(f"These networks tell no classes (game.variant: {self.config.variant}, data.classes).")
        _, logits = self._code(networks, images.images, None, training=False)
        assert logits is not None
        probabilities = logits.softmax(dim=1)
        if self.labels_learned:
            return probabilities
        classes = cast(Clusters, networks["clusters"]).classes[probabilities.argmax(dim=1)]
        return F.one_hot(classes + 1, self.spec.classes + 1)[:, 1:].to(probabilities.dtype)

    def describe(self) -> list[tuple[str, str]]:
        """What a dry run prints besides phases and parameters."""
        config = self.config
        labelled = "all" if config.labelled is None else str(config.labelled)
        taken = self.labels_learned or config.conditioned or config.variant == "supervised"
        return [
            ("variant", config.variant),
            ("encoder", config.encoder),
            ("prior", f"{config.prior.kind}, {config.latent_size} dimensions"),
            ("categories", str(self.categories)),
            ("labelled images", labelled if taken else "0"),
        ]


def _unit(images: Tensor) -> Tensor:
    return (images + 1) / 2


def _soft(logits: Tensor | None) -> Tensor | None:
    return None if logits is None else logits.softmax(dim=1)


def _distances(heads: Tensor) -> Tensor:
    """Euclidean ones of every two rows."""
    first, second = torch.triu_indices(len(heads), len(heads), offset=1, device=heads.device)
    return (heads[first] - heads[second]).norm(dim=1)
