"""Settings of adversarial variational Bayes; the defaults are those of Mescheder et al. 2017 for MNIST, 32 latents."""

from __future__ import annotations

from typing import Literal

from advgen.ema import ConstantDecay, DecayRule
from advgen.optim import Adam
from advgen.strict_config import configuration


@configuration
class AvbConfig:
    """Adversarial variational Bayes: a variational autoencoder whose encoder is any network that is fed noise.

    ``encoder: gaussian`` is the variational autoencoder of Kingma & Welling 2014 with networks of the same size.
    """

    kind: Literal["avb"] = "avb"
    encoder: Literal["black_box", "gaussian"] = "black_box"
    """q(z | x): samples of a network that takes noise, or a Gaussian with mean and deviations of the image."""
    adaptive_contrast: bool = True
    """black_box: the adversary tells q from a Gaussian of q's own moments instead of from the prior, and the encoder is
    z0(x) + sum a_i(x) v_i(noise_i), whose moments are known (section 4); else noise goes into each hidden layer."""
    model: Literal["learned", "linear_gaussian", "sprinkler"] = "learned"
    """The decoder: a network, or a model of points that is written down, so that only the encoder learns."""
    architecture: Literal["conv", "mlp"] = "conv"
    """Convolutional networks for images whose side is a power of two from 8 on; perceptrons for any data."""
    channels: int = 32
    """conv: maps of the first convolution; doubled with each halving of the side, up to 128."""
    hidden: int = 300
    """Units of each fully connected hidden layer of encoder and decoder."""
    adversary_hidden: int = 1024
    """Units of each fully connected hidden layer of the adversary."""
    latent_size: int = 32
    """Size of the latent vector, whose prior is N(0, 1)."""
    noise_size: int = 64
    """Noise from N(0, 1) that a basis network, or a hidden layer, is fed."""
    basis: int = 32
    """adaptive_contrast: how many basis networks v_i."""
    basis_hidden: int = 128
    """adaptive_contrast: units of each of their three hidden layers."""
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    """p(x | z) of a learned decoder: black and white pixels, or values with Gaussian errors."""
    binarization: Literal["stochastic", "threshold"] = "stochastic"
    """bernoulli: a grey g in [0, 1] is white with probability g at each look, or always where it is above 1/2."""
    deviation: float = 0.1
    """gaussian: of the errors, in units of the data (images: [-1, 1])."""
    adversary_repeats: int = 1
    """Updates of the adversary for each of the encoder and decoder; all but the last come before."""
    annealing_kimg: float = 0.0
    """The weight of the Kullback-Leibler term rises from 0 to 1 over so many thousands of images."""
    optimizer: Adam = Adam(betas=(0.5, 0.999))
    """Of both players."""
    learning_rate: float = 5e-5
    """Of encoder and decoder."""
    adversary_learning_rate: float = 1e-4
    """Of the adversary."""
    rampdown_kimg: float = 0.0
    """Both rates fall linearly to 0 over the last so many thousands of images."""
    batch_size: int = 128
    """Global batch."""
    total_kimg: float = 320_000.0
    """Length of the run in thousands of images."""
    average: DecayRule = ConstantDecay()
    """Moving averages of encoder and decoder."""

    def __post_init__(self) -> None:
        sizes = ("channels", "hidden", "adversary_hidden", "latent_size", "noise_size", "basis", "basis_hidden")
        for name in (*sizes, "adversary_repeats", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("deviation", "learning_rate", "adversary_learning_rate", "total_kimg"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive")
        if self.annealing_kimg < 0 or self.rampdown_kimg < 0:
            raise ValueError("annealing_kimg and rampdown_kimg must not be negative")
