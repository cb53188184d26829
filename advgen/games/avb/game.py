"""Adversarial variational Bayes as a game: a model climbs the evidence bound, whose ratio an adversary gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Average, Batch, Context, ImageSpec, Outcome, Phase, Player, Progress, Turn
from advgen.games.avb.config import AvbConfig
from advgen.games.avb.networks import Adversary, BasisEncoder, Decoder, Encoded, GaussianEncoder, InjectedEncoder
from advgen.likelihood.models import MODELS, GenerativeModel, log_normal
from advgen.likelihood.observation import Bernoulli, Gaussian, Observation
from advgen.losses.ratio import RATIO_LOSSES
from advgen.precision import at_least_float32
from advgen.schedules import LearningRate
from advgen.seeds import Noise

_LOSS = RATIO_LOSSES["logistic"]
_DRAWS = 64  # samples of q whose mean and deviation are taken where they are asked for
_MOMENT_DRAWS = 16_384
_LEAST_DEVIATION = 1e-6  # of a proposal, which is divided by it
_LEAST_VARIANCE = 1e-4  # added to the variances by which latents are divided, as in the paper's code


@dataclass(frozen=True)
class Contrast:
    """What the adversary is shown in a latent's place, and what its logit is to be corrected by.

    Attributes:
        shown: [n, latents]: z, or z standardised by q's own moments.
        correction: [n]: log r(z) - log p(z), r being the Gaussian of these moments; 0 where r is the prior.
    """

    shown: Tensor
    correction: Tensor


class Avb:
    """Encoder, decoder, and an adversary whose logit is log q(z | x) / p(z) or, with adaptive contrast, log q / r.

    Raises:
        UserError: the data do not go with the likelihood, the networks or the model.
    """

    normal_latents = True

    def __init__(self, config: AvbConfig, spec: ImageSpec) -> None:
        _check(config, spec)
        self.config, self.spec = config, spec
        self.model: GenerativeModel | None = None if config.model == "learned" else MODELS[config.model]()
        self.latent_size = config.latent_size
        self.prior_deviation = 1.0 if self.model is None else self.model.deviation
        self.adversarial = config.encoder == "black_box"
        self.adaptive = self.adversarial and config.adaptive_contrast
        self.observation: Observation = (
            Bernoulli(config.binarization) if config.likelihood == "bernoulli" else Gaussian(config.deviation)
        )
        encoder = BasisEncoder if self.adaptive else InjectedEncoder if self.adversarial else GaussianEncoder
        networks: dict[str, nn.Module] = {"encoder": encoder(config, spec)}
        if self.model is None:
            networks["decoder"] = Decoder(config, spec)
        learned = tuple(networks)
        players = [Player("model", learned, config.optimizer, self.model_loss)]
        rates = {"model": config.learning_rate}
        if self.adversarial:
            networks["adversary"] = Adversary(config, spec, self.prior_deviation)
            repeats = config.adversary_repeats
            adversary = Player("adversary", ("adversary",), config.optimizer, self.adversary_loss, repeat=repeats)
            # Beside one update of the adversary the encoder's forward is taken once; further ones come before it.
            players.insert(0 if repeats > 1 else 1, adversary)
            rates["adversary"] = config.adversary_learning_rate
        self.networks: Mapping[str, nn.Module] = networks
        # The adversary's goes with the encoder's: a ratio of the networks themselves would flatter the average.
        after = {**dict.fromkeys(learned, "model"), "adversary": "adversary"}
        self.averages: Sequence[Average] = [
            Average(f"{name}_ema", of=name, after=after[name], decay=config.average) for name in networks
        ]
        self.phases: Sequence[Phase] = [
            Phase(
                name=f"train {spec.resolution}x{spec.resolution}",
                kimg=config.total_kimg,
                resolution=spec.resolution,
                batch_size=config.batch_size,
                # Algorithm 1: all gradients of one point first, then all updates.
                turns=(Turn(tuple(players), update="simultaneous"),),
                trains=tuple(networks),
                learning_rates={
                    name: LearningRate(rate, rampdown_kimg=config.rampdown_kimg, total_kimg=config.total_kimg)
                    for name, rate in rates.items()
                },
                statistic_groups=1 if self.adaptive else None,  # moments of the basis are those of the whole batch
            )
        ]

    # -- the losses -----------------------------------------------------------------------------------------------

    def model_loss(self, context: Context, batch: Batch) -> Outcome:
        """-E log p(x | z) + KL(q || p) (Mescheder et al. 2017, eqs. 3.3 and 3.7), in nats a value of the data.

        The divergence is a Gaussian encoder's own, or T(x, z) at the adversary as it stands, plus log r - log p under
        adaptive contrast; encoders get its gradient through z.
        """
        noise = _shared(context.noise)
        observed = self.observed(batch.images, noise)
        encoded = context.networks["encoder"](self._seen(observed), noise, context.across)
        contrast = self._contrast(encoded)
        likelihood, divergence = self._terms(context.networks, observed, encoded, contrast)
        nll, kl = -likelihood.mean(), divergence.mean()
        # Per value, as in the paper's code; with Adam the scale matters only to the smallest gradients.
        total = (nll + self._weight(context.progress) * kl) / math.prod(batch.images.shape[1:])
        scalars = {"negative_log_likelihood": nll.detach(), "divergence": kl.detach()}
        return Outcome(total, scalars, {"observed": observed, "shown": contrast.shown.detach()})

    def adversary_loss(self, context: Context, batch: Batch) -> Outcome:
        """-E log S(T(x, z_q)) - E log(1 - S(T(x, z_p))) (eq. 3.3), z_q being the ones of the encoder's own step."""
        if left := context.detached.get("model"):
            observed, shown = left["observed"], left["shown"]
        else:  # before the encoder's step, or in one of several updates
            noise = _shared(context.noise)
            observed = self.observed(batch.images, noise)
            with torch.no_grad():
                shown = self._contrast(context.networks["encoder"](self._seen(observed), noise, context.across)).shown
        scale = 1.0 if self.adaptive else self.prior_deviation
        other = scale * context.noise.normal("contrast", self.latent_size)
        adversary, images = context.networks["adversary"], self._seen(observed)
        of_encoder, of_prior = adversary(torch.cat((images, images)), torch.cat((shown, other))).chunk(2)
        total = _LOSS(of_encoder, of_prior)
        return Outcome(total, {"loss": total.detach()})

    def _terms(
        self, networks: Mapping[str, nn.Module], observed: Tensor, encoded: Encoded, contrast: Contrast
    ) -> tuple[Tensor, Tensor]:
        """log p(x | z) and the divergence's term, [n] each, at one z of q(z | x)."""
        likelihood = self.log_likelihood(networks, observed, encoded.z)
        if not self.adversarial:
            return likelihood, _gaussian_divergence(encoded, self.prior_deviation)
        return likelihood, networks["adversary"](self._seen(observed), contrast.shown) + contrast.correction

    def _contrast(self, encoded: Encoded) -> Contrast:
        """Moments are constants here: no gradient flows through them (section 4)."""
        z = encoded.z
        if encoded.mean is None or encoded.variance is None:
            return Contrast(z, z.new_zeros(len(z)))
        mean, variance = encoded.mean.detach(), encoded.variance.detach() + _LEAST_VARIANCE
        log_r = log_normal(z, mean, variance.sqrt())
        return Contrast((z - mean) * variance.rsqrt(), log_r - self.log_prior(z))

    def _weight(self, progress: Progress) -> float:
        length = 1000 * self.config.annealing_kimg
        return min(1.0, progress.nimg / length) if length else 1.0

    def _seen(self, observed: Tensor) -> Tensor:
        """What encoder and adversary see of an observation: around 0, and without a long tail."""
        if self.model is not None:
            return self.model.tamed(observed)
        return 2 * observed - 1 if self.config.likelihood == "bernoulli" else observed

    # -- the likelihood ------------------------------------------------------------------------------------------

    def observed(self, images: Tensor, noise: Noise | None) -> Tensor:
        """What the likelihood is of: [n, c, r, r]; without noise nothing is drawn."""
        return images if self.model is not None else self.observation.observed(images, noise)

    def log_prior(self, latents: Tensor) -> Tensor:
        """log p(z), [n]."""
        return log_normal(latents, 0.0, self.prior_deviation)

    def log_likelihood(self, networks: Mapping[str, nn.Module], observed: Tensor, latents: Tensor) -> Tensor:
        """log p(x | z), [n], in nats."""
        if self.model is not None:
            return self.model.log_likelihood(observed.flatten(1), latents)
        return self.observation.log_probability(observed, networks["decoder"](latents))

    def observe(self, networks: Mapping[str, nn.Module], latents: Tensor, noise: Noise) -> Tensor:
        """x of p(x | z), [n, c, r, r]."""
        if self.model is not None:
            return self.model.observe(latents, noise)[:, :, None, None]
        return self.observation.draw(networks["decoder"](latents), noise)

    def evidence_bound(self, networks: Mapping[str, nn.Module], observed: Tensor, noise: Noise) -> Tensor:
        """log p(x | z) - divergence, [n]; moments are those of 16,384 draws of the basis, whatever the rows."""
        encoder, seen = networks["encoder"], self._seen(observed)
        if isinstance(encoder, BasisEncoder):
            positions = torch.arange(_MOMENT_DRAWS, device=observed.device)
            moments = encoder.moments(replace(noise, scope=(*noise.scope, "moments"), positions=positions))
            encoded: Encoded = encoder(seen, noise, moments=moments)
        else:
            encoded = encoder(seen, noise)
        likelihood, divergence = self._terms(networks, observed, encoded, self._contrast(encoded))
        return likelihood - divergence

    # -- using it -------------------------------------------------------------------------------------------------

    def sample(
        self, networks: Mapping[str, nn.Module], progress: Progress, noise: Noise, like: Batch | None = None
    ) -> Tensor:
        """Means of p(x | z) in the data's range, [n, c, r, r], z being of the prior; of a model x itself."""
        z = self.latents(noise)
        return self.observe(networks, z, noise) if self.model is not None else self.decode(networks, progress, z)

    def latents(self, noise: Noise) -> Tensor:
        """[n, latents] of the prior."""
        return self.prior_deviation * noise.normal("latent", self.latent_size)

    def encode(
        self, networks: Mapping[str, nn.Module], progress: Progress, images: Batch, noise: Noise | None = None
    ) -> Tensor:
        """Samples [n, latents] of q(z | x), or without noise their means."""
        given = images.images
        observed = self.observed(given, noise)
        if noise is None:
            # The same draws for every row: a mean does not depend on what else is encoded.
            same = torch.zeros(len(given), dtype=torch.int64, device=given.device)
            z, _ = self.proposal(networks, observed, Noise(0, ("mean",), same, given.dtype))
        else:
            z = networks["encoder"](self._seen(observed), noise).z
        return z.to(given.dtype)

    def proposal(self, networks: Mapping[str, nn.Module], observed: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Means and deviations of q(z | x), [n, latents] each: a Gaussian's own, or those of 64 samples."""
        seen = self._seen(observed)
        if not self.adversarial:
            encoded: Encoded = networks["encoder"](seen, noise)
            assert encoded.mean is not None and encoded.variance is not None
            return encoded.mean, encoded.variance.sqrt()
        each = [replace(noise, scope=(*noise.scope, number)) for number in range(_DRAWS)]
        draws = torch.stack([networks["encoder"](seen, one).z for one in each])
        return draws.mean(dim=0), draws.std(dim=0).clamp_min(_LEAST_DEVIATION)

    def decode(
        self, networks: Mapping[str, nn.Module], progress: Progress, latents: Tensor, like: Batch | None = None
    ) -> Tensor:
        """Means of p(x | z) in the data's range, [n, c, r, r].

        Raises:
            UserError: the model is written down, and its observations are drawn, not decoded.
        """
        if self.model is not None:
            raise UserError(f"game.model: {self.config.model} has no decoder network.")
        return self.observation.images(networks["decoder"](latents))

    def describe(self) -> list[tuple[str, str]]:
        """What a dry run prints besides phases and parameters."""
        kind = "adaptive contrast" if self.adaptive else "prior contrast" if self.adversarial else "Gaussian (VAE)"
        model = self.config.likelihood if self.model is None else self.config.model
        return [("encoder", kind), ("likelihood", model), ("latent vector", str(self.latent_size))]


def _shared(noise: Noise) -> Noise:
    """The same for both players: their gradients are of one draw of z and x; a repeat has its own."""
    return replace(noise, scope=("train", "shared"))


def _gaussian_divergence(encoded: Encoded, deviation: float) -> Tensor:
    """KL(N(mean, variance) || N(0, deviation^2)), [n] (Kingma & Welling 2014, appendix B)."""
    assert encoded.mean is not None and encoded.variance is not None
    mean, variance = at_least_float32(encoded.mean), at_least_float32(encoded.variance)
    scaled = variance / deviation**2
    return 0.5 * (scaled + mean.square() / deviation**2 - 1 - scaled.log()).sum(dim=1)


def _check(config: AvbConfig, spec: ImageSpec) -> None:
    points = spec.resolution == 1
    if spec.width not in (None, spec.resolution):
        raise UserError(f"game.kind: avb takes squares, and data.width is {spec.width}. Leave it out.")
    if config.model != "learned":
        model = MODELS[config.model]
        if not points or spec.channels != model.observed:
            raise UserError(
                f"game.model: {config.model} is one of points in {model.observed} dimensions, which data.points gives; "
                "the data are others. Set data.points, or game.model to learned."
            )
        if config.latent_size != model.latents:
            raise UserError(
                f"game.latent_size is {config.latent_size}, and {config.model} has {model.latents} latents. Set it so."
            )
        if config.architecture != "mlp":
            raise UserError(f"game.architecture: {config.model} gives points, which only mlp takes. Set it to mlp.")
        return
    if config.architecture == "conv" and (spec.resolution < 8 or spec.resolution & (spec.resolution - 1)):
        raise UserError(
            f"game.architecture: conv takes images whose side is a power of two from 8 on, not {spec.resolution}. "
            "Use mlp."
        )
    if config.likelihood == "bernoulli" and not spec.bounded:
        raise UserError(
            "game.likelihood: bernoulli is one of values in [-1, 1], as images have, and those of data.points are any "
            "numbers. Use gaussian."
        )
