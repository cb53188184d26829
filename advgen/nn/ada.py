"""Adaptive discriminator augmentation (ADA, Karras et al. 2020, arXiv:2006.06676, section 3 and appendix B).

In a game, ``networks["augment"] = AdaptiveAugment(config)`` (trained by no player), and in the losses::

    real_scores = discriminator(augment(batch.images, context.noise, "augment real"))
    fake_scores = discriminator(augment(fake, context.noise, "augment fake"))  # in the generator's loss too
    r1 = penalties.r1(lambda x: discriminator(augment(x, context.noise, "augment real")), batch.images)
    augment.observe(real_scores, context.across)  # of the discriminator's loss only, and last
    augment.adjust(context.progress.phase.batch_size)

Where this departs from the paper and its code:

- The image is resampled bilinearly at its own size. The paper enlarges it twofold and reduces it again with a
  wavelet filter (sym6), against aliasing: here turned and shrunk images are a little softer or rougher.
- Outside the image lies its mirror image without end; the paper mirrors once, and puts zeros beyond.
- p is kept from rising above 1, where it would take as long to come back; the paper bounds it from below only.
- Image-space filters, noise and cutout, which the paper finds to be of little use, are not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from advgen.game import Across
from advgen.nn.augment_config import AdaptiveAugmentConfig
from advgen.nn.warp import Sources, warp
from advgen.precision import at_least_float32
from advgen.seeds import Noise

# Columns of a call's random numbers. All are drawn, so that a choice of transforms leaves the others' numbers alone.
CHANCES: tuple[str, ...] = (
    *("xflip", "rotate90", "xint", "scale", "rotate before", "aniso", "rotate after", "xfrac"),
    *("brightness", "contrast", "lumaflip", "hue", "saturation"),
)
UNIFORM: tuple[str, ...] = ("xflip", "rotate90", "xint x", "xint y", "rotate before", "rotate after", "lumaflip", "hue")
NORMAL: tuple[str, ...] = ("scale", "aniso", "xfrac x", "xfrac y", "brightness", "contrast", "saturation")
GEOMETRY, COLOUR = CHANCES[:8], CHANCES[8:]


class AdaptiveAugment(nn.Module):
    """Transforms of images, each with probability p, and the rule by which p follows the discriminator.

    r = E sign(D(real)) over an interval of batches is near 0 while real and generated images look alike to the
    discriminator, and near 1 when it knows the real ones by heart. At an interval's end p rises or falls by the
    images seen in it / (1000 kimg), towards r = target (section 3, equation 1 and below).

    State lives in buffers and goes on in a resumed run from the middle of an interval. Signs and images are whole
    numbers: their sums have no rounding, so p is the same, bit for bit, on every rank and whatever slices the
    interval was counted in, and a score that is not a number counts as a sign of 0.

    A loss runs once for each micro-batch, with a slice of the batch. So :meth:`adjust` goes by the images counted
    and not by calls: the last slice of the interval's last batch moves p, and all slices of a step see the same p. (A
    batch size that changes within an interval ends it with the first slice that completes its new length.)

    :meth:`observe` and :meth:`adjust` belong into the loss itself, not into a block whose forward is computed again
    in the backward pass (activation checkpointing), and after everything that calls the module: the penalty then
    sees the same p as the scores. :meth:`forward` changes nothing.

    Attributes:
        p: 0-d, the probability, beginning at 0; of the network's dtype.
        signs: int64 0-d, the sum of signs in this interval.
        count: int64 0-d, the images that it was taken over.
    """

    p: Tensor
    signs: Tensor
    count: Tensor

    def __init__(self, config: AdaptiveAugmentConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("signs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor, noise: Noise, purpose: str) -> Tensor:
        """Augment each sample with random numbers of its own; a function of its position and p.

        Values may leave [-1, 1], as in the paper. With p = 0 all values stay what they are.

        Args:
            images: [n, c, h, w] in [-1, 1], c being 1 or 3.
            noise: one row a sample.
            purpose: names the draws; the same one gives the same augmentation again.

        Returns:
            [n, c, h, w] of the images' dtype, computed in float32 at least; twice differentiable.
        """
        x = at_least_float32(images)
        # Parameters are computed in float64 and then rounded: cosines and exponentials differ in their last bits
        # between devices, and with the number of samples.
        chance = dict(zip(CHANCES, noise.uniform(f"{purpose}/chance", len(CHANCES)).unbind(1), strict=True))
        uniform = dict(zip(UNIFORM, noise.uniform(f"{purpose}/uniform", len(UNIFORM)).double().unbind(1), strict=True))
        normal = dict(zip(NORMAL, noise.normal(f"{purpose}/normal", len(NORMAL)).double().unbind(1), strict=True))
        p = self.p.double()
        rotation = 1 - torch.sqrt(1 - p)  # one of two or both: p
        on = {
            name: value < (rotation if name.startswith("rotate ") else p)
            for name, value in chance.items()
            if name.split()[0] in self.config.transforms
        }
        if on.keys() & set(GEOMETRY):
            x = warp(x, _geometry(x, on, uniform, normal))
        if on.keys() & set(COLOUR):
            x = _colour(x, on, uniform, normal)
        return x.to(images.dtype)

    @torch.no_grad()
    def observe(self, real_scores: Tensor, across: Across) -> None:
        """Count the signs of the scores [n] of augmented real images, over all ranks."""
        signs = (real_scores > 0).sum() - (real_scores < 0).sum()
        signs, count = across.total(torch.stack((signs, torch.full_like(signs, len(real_scores))))).unbind()
        self.signs += signs
        self.count += count

    @torch.no_grad()
    def adjust(self, batch_size: int) -> None:
        """Move p if ``interval`` global batches of ``batch_size`` have been counted, and count anew."""
        due = self.count >= self.config.interval * batch_size  # a tensor throughout: nothing waits for the device
        r = self.signs.double() / self.count.clamp(min=1)
        step = torch.sign(r - self.config.target) * self.count / (1000 * self.config.kimg)
        self.p.add_(torch.where(due, step, 0.0)).clamp_(0, 1)
        self.signs.masked_fill_(due, 0)
        self.count.masked_fill_(due, 0)


Columns = Mapping[str, Tensor]


def _where(on: Columns, name: str, value: Tensor, otherwise: float) -> Tensor:
    """float64 [n]: ``value`` where the transform happens; nowhere if it is not among the chosen."""
    return torch.where(on[name], value, otherwise) if name in on else torch.full_like(value, otherwise)


def _angle(on: Columns, name: str, uniform: Columns) -> Tensor:
    return _where(on, name, (2 * uniform[name] - 1) * math.pi, 0.0)


def _geometry(x: Tensor, on: Columns, uniform: Columns, normal: Columns) -> Sources:
    """The maps [n] of pixel blitting and geometric transforms, in the paper's order."""
    height, width = x.shape[2:]

    def turned(sources: Sources, name: str) -> Sources:
        angle = _angle(on, name, uniform)
        return sources.turned(angle.cos(), -angle.sin())

    sources = Sources.identity(len(x), x)
    flip = _where(on, "xflip", 1 - 2 * (2 * uniform["xflip"]).floor(), 1.0)
    sources = sources.scaled(flip, torch.ones_like(flip))
    # Cosine and sine of whole quarters are written so that they are exact, and pixels stay what they are.
    quarters = _where(on, "rotate90", (4 * uniform["rotate90"]).floor(), 0.0)
    sources = sources.turned((quarters - 2).abs() - 1, (quarters - 1).abs() - 1)
    shift_x, shift_y = (_where(on, "xint", (2 * uniform[f"xint {axis}"] - 1) / 8, 0.0) for axis in "xy")
    sources = sources.moved((shift_x * width).round(), (shift_y * height).round())
    scale = _where(on, "scale", torch.exp2(0.2 * normal["scale"]), 1.0)
    sources = turned(sources.scaled(scale, scale), "rotate before")
    aniso = _where(on, "aniso", torch.exp2(0.2 * normal["aniso"]), 1.0)
    sources = turned(sources.scaled(aniso, 1 / aniso), "rotate after")
    shift_x, shift_y = (_where(on, "xfrac", normal[f"xfrac {axis}"] / 8, 0.0) for axis in "xy")
    return sources.moved(shift_x * width, shift_y * height)


def _colour(x: Tensor, on: Columns, uniform: Columns, normal: Columns) -> Tensor:
    """All colour transforms as one affine map.

    Each of them keeps luma (the mean over channels, the axis v = (1, 1, 1) / sqrt(3)) and chroma (what is left) apart:
    brightness b, contrast c and the flip f make luma f c (luma + b); contrast, hue t and saturation s make chroma
    c s R(t) chroma with the turn R about v. Their sum is a matrix with the same three entries in each row, a place on.
    """
    brightness = _where(on, "brightness", 0.2 * normal["brightness"], 0.0)
    contrast = _where(on, "contrast", torch.exp2(0.5 * normal["contrast"]), 1.0)
    luma = contrast * _where(on, "lumaflip", 1 - 2 * (2 * uniform["lumaflip"]).floor(), 1.0)
    hue = _angle(on, "hue", uniform)
    chroma = contrast * _where(on, "saturation", torch.exp2(normal["saturation"]), 1.0)
    even, odd = chroma * hue.cos(), chroma * hue.sin()
    own, other, swirl = (luma + 2 * even) / 3, (luma - even) / 3, odd / math.sqrt(3)

    def wide(value: Tensor) -> Tensor:
        return value[:, None, None, None].to(x.dtype)

    if x.shape[1] == 1:
        return wide(luma) * x + wide(luma * brightness)
    if x.shape[1] != 3:
        raise ValueError(f"colour transforms are for 1 or 3 channels, not {x.shape[1]}")
    # Red's row is (own, other - swirl, other + swirl) of red, green and blue; green's begins at green.
    mixed = wide(own) * x + wide(other - swirl) * x.roll(-1, 1) + wide(other + swirl) * x.roll(1, 1)
    return mixed + wide(luma * brightness)
