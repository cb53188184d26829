"""Settings of pix2pixHD; the defaults are the released code's for Cityscapes (Wang et al. 2017)."""

from __future__ import annotations

from typing import Literal

from advgen.optim import Adam
from advgen.strict_config import configuration

Norm = Literal["instance", "layer"]


@configuration
class Pix2PixHdConfig:
    """High-resolution image synthesis from label maps (Wang et al. 2017).

    Lengths are in thousands of images; the defaults are the released code's epochs of 2,975 images.
    """

    kind: Literal["pix2pixhd"] = "pix2pixhd"
    ngf: int = 64
    """Channels of the global generator at its own resolution; they double at each halving. Each enhancer has half the
    channels of the one before it."""
    downsamplings: int = 4
    """Halvings in the global generator."""
    global_blocks: int = 9
    """Residual blocks of the global generator."""
    enhancers: int = 0
    """Local enhancers, each of which doubles the resolution: 0 is the global generator (G1) alone, 1 is G1 and G2."""
    local_blocks: int = 3
    """Residual blocks of each enhancer."""
    ndf: int = 64
    """Channels of a discriminator's first layer; they double at each layer."""
    discriminator_channels_max: int = 512
    """Most channels of any layer of a discriminator."""
    discriminator_layers: int = 3
    """Halvings in a discriminator (3: it judges patches of 70 x 70 pixels)."""
    discriminators: int = 2
    """Scales, a discriminator for each: 2 is the code's default, 3 the paper's and that of the code's 1024p recipes."""
    norm: Norm = "instance"
    """Of generator and encoder. An instance norm takes out what is the same all over the picture, and so the style of
    an instance that fills it; a layer norm keeps it (as in the upsampling layers of Huang et al. 2018)."""
    edges: bool = True
    """Whether the networks see where instances meet, as one more channel."""
    encoder_features: int = 0
    """Channels of the instance features that an encoder takes from the real image: 0 for no encoder, 3 in the paper."""
    nef: int = 16
    """Channels of the encoder at the image's resolution."""
    encoder_downsamplings: int = 4
    """Halvings in the encoder."""
    styles: int = 10
    """Clusters of instance features a class, of which samples are drawn."""
    style_draws: Literal["uniform", "proportional"] = "uniform"
    """Whether all clusters are equally likely, as in the paper, or as the instances that they were made of."""
    adversarial_weight: float = 1.0
    """Weight of the generator's least squares; 0 with feature_matching_weight 0 trains no discriminators."""
    l1_weight: float = 0.0
    """Weight of the mean absolute difference of real and fake, as in pix2pix (Isola et al. 2017)."""
    feature_matching_weight: float = 10.0
    """Weight of the distance between the discriminators' features of real and fake; 0 for none."""
    perceptual: Literal["none", "vgg19", "lite0"] = "vgg19"
    """Network whose features of real and fake are compared: VGG19 (the paper's), EfficientNet-Lite0 (its weights come
    with pip), or none."""
    perceptual_weights: str | None = None
    """vgg19: file of torchvision's weights (vgg19-dcbb9e9d.pth); null downloads it once, where there is a network."""
    perceptual_weight: float = 10.0
    """Weight of that comparison."""
    perceptual_normalized: bool = False
    """vgg19: whether images are scaled to ImageNet's mean and deviation, as it was trained; not in released code."""
    optimizer: Adam = Adam(betas=(0.5, 0.999))
    """Of all networks."""
    learning_rate: float = 2e-4
    """Of all networks, at the begin of the global generator's training and of each enhancer's."""
    batch_size: int = 1
    """Global batch."""
    global_kimg: float = 595.0
    """Length of the global generator's training alone, at the resolution halved once for each enhancer."""
    global_decay_kimg: float = 297.5
    """Over the last so many kimg of that the learning rate falls linearly to 0."""
    frozen_kimg: float = 29.75
    """Length of each enhancer's training while everything before it is frozen."""
    joint_kimg: float = 267.75
    """Length of the training of each enhancer together with everything before it, after the frozen part."""
    joint_decay_kimg: float = 148.75
    """Over the last so many kimg of that the learning rate falls linearly to 0."""
    pool_size: int = 0
    """Fakes that are kept, of which the discriminators see some again (Shrivastava et al. 2017); 0 for none."""

    def __post_init__(self) -> None:
        for name in (
            *("ngf", "downsamplings", "ndf", "discriminator_channels_max", "discriminator_layers", "discriminators"),
            *("nef", "encoder_downsamplings", "styles", "batch_size"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in (
            *("global_blocks", "enhancers", "local_blocks", "encoder_features", "feature_matching_weight"),
            *("adversarial_weight", "l1_weight", "perceptual_weight", "global_decay_kimg", "frozen_kimg"),
            *("joint_decay_kimg", "pool_size"),
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if not (self.judged or self.l1_weight or (self.perceptual != "none" and self.perceptual_weight)):
            raise ValueError("every weight of the generator's loss is 0; give one of them a value")
        if self.ngf % (1 << self.enhancers):
            raise ValueError(f"ngf must be a multiple of 2^enhancers, {1 << self.enhancers}")
        if self.learning_rate <= 0 or self.global_kimg <= 0 or self.joint_kimg <= 0:
            raise ValueError("learning_rate, global_kimg and joint_kimg must be positive")
        if self.global_decay_kimg > self.global_kimg or self.joint_decay_kimg > self.joint_kimg:
            raise ValueError("a decay must not be longer than the training whose end it is")

    @property
    def judged(self) -> bool:
        """Whether discriminators have a part in the generator's loss."""
        return self.adversarial_weight > 0 or self.feature_matching_weight > 0
