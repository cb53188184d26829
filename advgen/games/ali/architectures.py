"""The networks as data: kernel, stride and maps of each layer (Dumoulin et al. 2016, appendix A, and its code)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from advgen.errors import UserError
from advgen.game import ImageSpec
from advgen.games.ali.config import AliConfig


@dataclass(frozen=True)
class Layer:
    """A convolution, what normalises it, and what is left out before it.

    Attributes:
        kernel, stride, padding: pixels.
        maps: of the convolution; maxout leaves one of its pieces' number.
        up: whether it is transposed.
        norm: whether batch normalisation follows; else there is a bias.
        dropout: share of the inputs that is left out.
    """

    kernel: int
    stride: int
    maps: int
    up: bool = False
    padding: int = 0
    norm: bool = True
    dropout: float = 0.0


Layers = tuple[Layer, ...]


@dataclass(frozen=True)
class Architecture:
    """Hidden layers of all networks.

    Attributes:
        resolution: that it is made for; 0 for any, the images being taken as vectors of 1x1 pixels.
        latents: size of the latent vector.
        encoder: without the last layer, which gives means and deviations.
        decoder: without the last 1x1 layer.
        images, latent, joint: of the discriminator; the last 1x1 layer to the logit has ``dropout_last`` before it.
        leak: slope of rectifiers below 0.
        pieces: of the discriminator's maxout; 1 for leaky rectifiers instead.
        deviation: of initial weights.
        dropout_last: share left out before the logit.
    """

    resolution: int
    latents: int
    encoder: Layers
    decoder: Layers
    images: Layers
    latent: Layers
    joint: Layers
    leak: float
    pieces: int = 1
    deviation: float = 0.01
    dropout_last: float = 0.0


def _down(*rows: tuple[int, int, int]) -> Layers:
    return tuple(Layer(*row) for row in rows)


def _up(*rows: tuple[int, int, int]) -> Layers:
    return tuple(Layer(*row, up=True) for row in rows)


def _dense(*widths: int, dropout: float = 0.0) -> Layers:
    """1x1 layers of the discriminator, none of which is normalised."""
    return tuple(Layer(1, 1, width, norm=False, dropout=dropout) for width in widths)


def _first_plain(layers: Layers, dropout: float) -> Layers:
    """The discriminator's: the first layer is not normalised."""
    return tuple(replace(layer, norm=number > 0, dropout=dropout) for number, layer in enumerate(layers))


def _maxout(layers: Layers) -> Layers:
    """Without normalisation; a fifth of the first layer's inputs is left out, half of the others'."""
    return tuple(replace(layer, norm=False, dropout=0.5 if number else 0.2) for number, layer in enumerate(layers))


_DOWN32 = _down((5, 1, 32), (4, 2, 64), (4, 1, 128), (4, 2, 256), (4, 1, 512))
_UP32 = _up((4, 1, 256), (4, 2, 128), (4, 1, 64), (4, 2, 32), (5, 1, 32), (1, 1, 32))
_DOWN64 = _down((2, 1, 64), (7, 2, 128), (5, 2, 256), (7, 2, 256), (4, 1, 512))

PAPER = {
    "cifar10": Architecture(
        resolution=32,
        latents=64,
        encoder=(*_DOWN32, Layer(1, 1, 512)),
        decoder=_UP32,
        images=_maxout(_DOWN32),
        latent=_maxout(_dense(512, 512)),
        joint=_dense(1024, 1024, dropout=0.5),
        leak=0.1,
        pieces=2,
        dropout_last=0.5,
    ),
    "svhn": Architecture(
        resolution=32,
        latents=256,
        encoder=(*_DOWN32, Layer(1, 1, 512)),
        decoder=_UP32,
        images=_first_plain(_DOWN32, 0.2),
        latent=_dense(512, 512, dropout=0.2),
        joint=_dense(1024, 1024, dropout=0.2),
        leak=0.01,
        dropout_last=0.2,
    ),
    "celeba64": Architecture(
        resolution=64,
        latents=256,
        encoder=(*_DOWN64, Layer(1, 1, 512)),
        decoder=_up((4, 1, 512), (7, 2, 256), (5, 2, 256), (7, 2, 128), (2, 1, 64)),
        images=_first_plain(_DOWN64, 0.2),
        latent=_dense(1024, 1024, dropout=0.2),
        joint=_dense(2048, 2048, dropout=0.2),
        leak=0.02,
        dropout_last=0.2,
    ),
}


def _mlp() -> Architecture:
    hidden = _down((1, 1, 1024), (1, 1, 1024))
    joint = _dense(1024, 1024)
    return Architecture(0, 50, hidden, hidden, _dense(1024), _dense(256), joint, leak=0.2, deviation=0.02)


def _small(resolution: int) -> Architecture:
    """Kernels of 4, each of which halves or doubles, between the image and 4x4 pixels, of widths from 32 to 128."""
    halvings = resolution.bit_length() - 3  # 8: 1, 16: 2, 32: 3
    widths = [min(32 << number, 128) for number in range(halvings)]
    down = (*(Layer(4, 2, width, padding=1) for width in widths), Layer(4, 1, 256))
    up = (Layer(4, 1, 128, up=True), *(Layer(4, 2, width, up=True, padding=1) for width in reversed(widths)))
    return Architecture(
        resolution, 64, down, up, _first_plain(down, 0.0), _dense(128), _dense(256), leak=0.2, deviation=0.02
    )


def architecture_of(config: AliConfig, spec: ImageSpec) -> Architecture:
    """The architecture that the settings ask for, its width and dropout included.

    Raises:
        UserError: it is made for other images.
    """
    r = spec.resolution
    if spec.width not in (None, r):
        raise UserError(f"game.kind: ali takes squares, and data.width is {spec.width} beside {r}. Leave it out.")
    if config.architecture != "mlp":
        spec.require_images(f"game.architecture: {config.architecture}")
    if config.architecture == "mlp":
        found = _mlp()
    elif config.architecture == "small":
        if r < 8 or r & (r - 1):
            raise UserError(f"game.architecture: small takes a power of two from 8 on, and data.resolution is {r}.")
        found = _small(r)
    else:
        found = PAPER[config.architecture]
    if found.resolution not in (0, r):
        raise UserError(
            f"game.architecture: {config.architecture} is made for {found.resolution} pixels, and data.resolution is "
            f"{r}. Use small or mlp, or shards of that size."
        )

    def rate(given: float) -> float:
        return given if config.dropout is None else config.dropout

    def widened(layers: Layers) -> Layers:
        step = found.pieces

        def maps(layer: Layer) -> int:
            return max(step, round(layer.maps * config.width / step) * step)

        return tuple(replace(layer, maps=maps(layer), norm=layer.norm and config.batch_norm) for layer in layers)

    def judging(layers: Layers) -> Layers:
        return tuple(replace(layer, dropout=rate(layer.dropout)) for layer in widened(layers))

    return replace(
        found,
        latents=config.latent_size or found.latents,
        deviation=config.initial_deviation or found.deviation,
        encoder=widened(found.encoder),
        decoder=widened(found.decoder),
        images=judging(found.images),
        latent=judging(found.latent),
        joint=judging(found.joint),
        dropout_last=rate(found.dropout_last),
    )
