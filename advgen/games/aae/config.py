"""Settings of adversarial autoencoders; the defaults are those of Makhzani et al. 2015 for MNIST.

They are quoted from memory, as are the sections that are named: the room's README says what is not known.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator

from advgen.ema import ConstantDecay, DecayRule
from advgen.optim import Adam
from advgen.strict_config import configuration


@configuration
class GaussianPrior:
    """N(0, deviation^2) in every dimension of the code."""

    kind: Literal["gaussian"] = "gaussian"
    deviation: float = 5.0
    """In every dimension."""

    def __post_init__(self) -> None:
        if self.deviation <= 0:
            raise ValueError("deviation must be positive")


@configuration
class MixturePrior:
    """Gaussians in the plane, stretched like the petals of a flower (section 2.3)."""

    kind: Literal["mixture"] = "mixture"
    components: int = 10
    """Petals."""
    distance: float = 3.0
    """Of their means from the origin."""
    deviations: tuple[float, float] = (1.0, 0.2)
    """Of each, along the line from the origin and across it."""
    conditioned: bool = False
    """The discriminator is told labels, so that each class of images has a petal of its own."""

    def __post_init__(self) -> None:
        if self.components < 1 or self.distance < 0 or min(self.deviations) <= 0:
            raise ValueError("components must be at least 1, distance at least 0, and deviations positive")


@configuration
class SwissRollPrior:
    """A spiral in the plane."""

    kind: Literal["swiss_roll"] = "swiss_roll"
    radius: float = 5.0
    """At its outer end."""
    turns: float = 2.0
    """From the origin on."""
    deviation: float = 0.1
    """Of points from the spiral, in each dimension."""
    conditioned: bool = False
    """The discriminator is told labels, so that each class of images has a stretch of its own."""

    def __post_init__(self) -> None:
        if min(self.radius, self.turns) <= 0 or self.deviation < 0:
            raise ValueError("radius and turns must be positive, and deviation at least 0")


Prior = Annotated[GaussianPrior | MixturePrior | SwissRollPrior, Discriminator("kind")]
Variant = Literal["unsupervised", "supervised", "semi_supervised", "clustering", "dimension_reduction"]


@configuration
class AaeConfig:
    """An autoencoder whose codes an adversary drives to a prior."""

    kind: Literal["aae"] = "aae"
    variant: Variant = "unsupervised"
    """unsupervised: a code alone. supervised: the decoder takes the label, too, and the code is left with the style.
    semi_supervised: the encoder finds label and style. clustering: the same without labels. dimension_reduction: the
    code is the style plus the head of its label or cluster."""
    encoder: Literal["deterministic", "gaussian", "universal"] = "deterministic"
    """The style is a function of the image, is drawn from N(mean, deviation^2) of the image, or is a function of the
    image and noise beside it (section 2.1)."""
    prior: Prior = GaussianPrior()
    """Of the style."""
    latent_size: int = 8
    """Of the style; 2 for priors in the plane."""
    clusters: int = 16
    """For clustering, and for dimension_reduction without labels."""
    labelled: int | None = None
    """So many images keep their labels, as many of each class, the first of the stream; null: all, 0: none. The other
    images' labels are not looked at. Only for semi_supervised, dimension_reduction and conditioned priors."""
    head_distance: float = 3.0
    """dimension_reduction: heads that are nearer to one another than this are driven apart."""
    head_weight: float = 1.0
    """dimension_reduction: weight of that."""
    architecture: Literal["mlp", "small"] = "mlp"
    """The paper's perceptrons, or convolutions in front of them for any power of two from 8 pixels on."""
    hidden: int = 1000
    """Units of each of the two hidden layers of encoder, decoder and discriminators."""
    initial_deviation: float | None = 0.01
    """Of initial weights, which are normal; null for sqrt(2 / inputs) of each layer (He et al. 2015)."""
    input_noise: float = 0.0
    """Deviation of normal noise on the encoder's pixels, which lie in [0, 1], while it is trained (the paper: 0.3)."""
    noise_size: int = 10
    """encoder: universal: so many normal numbers go in beside the image."""
    optimizer: Literal["momentum", "adam"] = "momentum"
    """Of all players; each has its own."""
    momentum: float = 0.9
    """optimizer: momentum: of reconstruction and of the labelled player."""
    adversarial_momentum: float = 0.1
    """optimizer: momentum: of the discriminator's and the generator's player."""
    adam: Adam = Adam(betas=(0.5, 0.999))
    """optimizer: adam: its settings."""
    learning_rate: float = 0.01
    """Of reconstruction."""
    adversarial_learning_rate: float = 0.1
    """Of the discriminator's and the generator's player."""
    supervised_learning_rate: float = 0.1
    """Of the labelled player."""
    drops_kimg: tuple[float, ...] = (3000.0, 60_000.0)
    """Each divides all learning rates by ten (of 60,000 images: epochs 50 and 1000)."""
    batch_size: int = 100
    """Global batch."""
    total_kimg: float = 90_000.0
    """Length of the run in thousands of images."""
    average: DecayRule = ConstantDecay()
    """Moving averages of encoder and decoder."""

    def __post_init__(self) -> None:
        for name in ("latent_size", "hidden", "noise_size", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        rates = (self.learning_rate, self.adversarial_learning_rate, self.supervised_learning_rate)
        if min(self.total_kimg, self.initial_deviation or 1.0, *rates) <= 0:
            raise ValueError("total_kimg, initial_deviation and learning rates must be positive")
        if min(self.input_noise, self.head_distance, self.head_weight) < 0:
            raise ValueError("input_noise, head_distance and head_weight must be at least 0")
        if not all(0 <= value < 1 for value in (self.momentum, self.adversarial_momentum)):
            raise ValueError("momentum and adversarial_momentum must lie in [0, 1)")
        if self.clusters < 2:
            raise ValueError("clusters must be at least 2")
        if any(kimg <= 0 for kimg in self.drops_kimg) or sorted(self.drops_kimg) != list(self.drops_kimg):
            raise ValueError("drops_kimg must be positive and rise")
        self._check_prior()
        self._check_labelled()

    def _check_prior(self) -> None:
        if self.prior.kind != "gaussian" and self.latent_size != 2:
            raise ValueError(f"prior {self.prior.kind} lies in the plane; set latent_size to 2, not {self.latent_size}")
        if self.conditioned and self.variant != "unsupervised":
            raise ValueError(
                f"variant {self.variant} leaves the label out of the style, and prior.conditioned puts it in; leave one"
            )

    def _check_labelled(self) -> None:
        if self.labelled is None:
            return
        if self.labelled < 0:
            raise ValueError("labelled must be at least 0")
        if self.variant in ("supervised", "clustering") or (self.variant == "unsupervised" and not self.conditioned):
            which = "needs every label" if self.variant == "supervised" else "takes no labels"
            raise ValueError(f"labelled: variant {self.variant} {which}; leave it out")
        if not self.labelled and self.variant != "dimension_reduction":
            raise ValueError("labelled: 0 leaves nothing to learn labels from; choose another variant or prior")

    @property
    def conditioned(self) -> bool:
        """Whether the discriminator is told labels."""
        return self.prior.kind != "gaussian" and self.prior.conditioned
