"""A segmenter: from images to a class for each pixel, the judge of pictures that were made from label maps.

Trained here, it is a small U-Net (Ronneberger et al. 2015) that learns for minutes, not days: it compares runs on the
same data with one another and with the real images, and compares with no published figure.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from advgen.data.parts import Samples
from advgen.data.stream import ImageStream
from advgen.errors import UserError
from advgen.metrics import judging
from advgen.metrics.judging import Judge, Lesson
from advgen.metrics.measures import Learned
from advgen.metrics.ranks import Alone, Ranks
from advgen.metrics.torchscript import load_torchscript

IMAGES = 6_000
"""That it learns from where nothing else is said, counted each time they are shown."""
_NAME = "advgen segmenter"
_CHANNELS = (32, 64, 96, 96)  # at 1/2, 1/4, 1/8 and 1/16 of the size
_COUNTED = 512  # images in which classes are counted, to weigh them


class Segmenter(Judge):
    """Images to ids of classes; made by :func:`load_segmenter` or :func:`train_segmenter`."""

    def __call__(self, images: Tensor) -> Tensor:
        """The likeliest class of each pixel.

        Args:
            images: uint8 [n, 1 or 3, h, w] in 0..255.

        Returns:
            int64 [n, h, w] in 0..classes - 1, on the device of ``images``. Logits of another size are resized to
            [h, w] first (bilinear, corners not aligned).

        Raises:
            UserError: the user's network does not keep its contract.
        """
        size = images.shape[-2:]
        found = torch.empty(len(images), *size, dtype=torch.int64, device=images.device)
        for start, logits in zip(range(0, len(images), self._piece), self._pieces(images, 4), strict=False):
            if logits.shape[-2:] != size:
                logits = F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
            found[start : start + len(logits)] = logits.argmax(1)
        return found


class SmallUNet(nn.Module):
    """Logits of each pixel from four levels of two convolutions, the largest at half the size."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(a, b) for a, b in pairwise((12, *_CHANNELS)))  # 4 pixels of 3 channels
        self.up = nn.ModuleList(_block(low + high, high) for low, high in pairwise(reversed(_CHANNELS)))
        self.head = nn.Conv2d(_CHANNELS[0], 4 * classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [n, 3, h, w] in [0, 1] to [n, classes, h, w], for any size."""
        height, width = images.shape[-2:]
        step = 2 ** len(_CHANNELS)
        x = F.pad(2.0 * images - 1.0, (0, -width % step, 0, -height % step), mode="replicate")
        x = F.pixel_unshuffle(x, 2)
        skips: list[Tensor] = []
        for number, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if number else x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = block(torch.cat((large, skips.pop()), 1))
        return F.pixel_shuffle(self.head(x), 2)[..., :height, :width]


def load_segmenter(path: str | Path, classes: int) -> Segmenter:
    """A segmenter that the user names.

    Args:
        path: a TorchScript file that maps float32 [n, 3, h, w] in [0, 1] to logits [n, classes, h', w'].
        classes: of the data. Whether the network has as many is found when it is first called.

    Raises:
        UserError: there is no such file, or it is no TorchScript.
    """
    network, identity = load_torchscript(Path(path))
    return Segmenter(network, identity, classes, piece=8, source=str(path))


def segmenter_lesson(
    stream: ImageStream,
    classes: int,
    ignore: int | None = None,
    *,
    resolution: int,
    seed: int = 0,
    images: int = IMAGES,
    mirror: bool = True,
) -> Lesson:
    """What a segmenter is trained on: real images and their label maps.

    Args:
        stream: of the images; not of those that it is to be tried on.
        classes: ids in the label maps are below.
        ignore: an id that stands for no class.
        resolution: height of the images in pixels.
        seed: of weights, order and mirroring.
        images: that it learns from, counted each time they are shown.
        mirror: whether pairs are mirrored left to right with probability 1/2.

    Raises:
        UserError: the images have no label maps.
    """
    if "label_map" not in stream.manifest.parts:
        raise UserError(f"{stream}: has no label maps, so no segmenter can be trained on it. Name a file of one.")
    return Lesson(_NAME, stream, classes, ignore, resolution, seed, images, 16, 3e-3, mirror)


def train_segmenter(
    lesson: Lesson,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
    told: Learned | None = None,
    ranks: Ranks = Alone(),
) -> Segmenter:
    """A segmenter that has learned a lesson.

    Args:
        lesson: of :func:`segmenter_lesson`.
        cache: folder where one that has learned this very lesson is read, or kept; None trains it.
        device: where it is trained.
        told: is told (images, of how many) after each step of the training.
        ranks: all of which call this; the first one trains.
    """
    build = partial(SmallUNet, lesson.classes)
    network, identity = judging.learned(lesson, build, _label_map, class_weights, cache, device, told, ranks)
    return Segmenter(network, identity, lesson.classes, piece=8)


def class_weights(lesson: Lesson) -> Tensor:
    """float32 [classes]: 1 / sqrt(share of pixels), of the first images of the lesson; the mean over pixels is 1.

    So rare classes count more, but less than in proportion. A share below 1/1000 counts as one.
    """
    samples = lesson.samples(0, min(lesson.images, len(lesson.stream), _COUNTED))
    ids = np.asarray(samples.label_map).ravel()
    ids = ids[(ids >= 0) & (ids < lesson.classes)]
    counts = np.bincount(ids, minlength=lesson.classes).astype(np.float64)
    if lesson.ignore is not None and 0 <= lesson.ignore < lesson.classes:
        counts[lesson.ignore] = 0.0
    shares = counts / max(counts.sum(), 1.0)
    weights = 1.0 / np.sqrt(np.maximum(shares, 1e-3))
    return torch.from_numpy(weights / max((weights * shares).sum(), 1e-9)).float()


def _label_map(samples: Samples) -> NDArray[np.int32]:
    assert samples.label_map is not None
    return samples.label_map


def _block(inside: int, outside: int) -> nn.Sequential:
    def half(channels: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, outside, 3, padding=1), nn.GroupNorm(8, outside), nn.LeakyReLU(0.1)]

    return nn.Sequential(*half(inside), *half(outside))
