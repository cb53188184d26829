"""A classifier: from images to a class each, the judge of pictures that were drawn as being of a class.

Trained here, it is a small network that learns in minutes: it compares runs on the same data with one another and with
the real images, and compares with no published figure.
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

IMAGES = 48_000
"""That it learns from where nothing else is said, counted each time they are shown."""
_NAME = "advgen classifier"
_CHANNELS = (32, 64, 128, 192, 256)  # at 1/2, 1/4 ... of the size
_SMALLEST = 4  # pixels; a level more would lie below


class Classifier(Judge):
    """Images to classes; made by :func:`load_classifier` or :func:`train_classifier`."""

    def __call__(self, images: Tensor) -> Tensor:
        """The likeliest class of each image.

        Args:
            images: uint8 [n, 1 or 3, h, w] in 0..255.

        Returns:
            int64 [n] in 0..classes - 1, on the device of ``images``.

        Raises:
            UserError: the user's network does not keep its contract.
        """
        return self.logits(images).argmax(1)

    def logits(self, images: Tensor) -> Tensor:
        """float32 [n, classes] of the same images."""
        empty = torch.empty(0, self.classes, device=images.device)
        return torch.cat([empty, *self._pieces(images, 2)])


class SmallClassifier(nn.Module):
    """Logits of an image: two convolutions at each half of its size down to 4 pixels, and the maximum over those."""

    def __init__(self, classes: int, resolution: int) -> None:
        super().__init__()
        levels = 1
        while levels < len(_CHANNELS) and resolution >> (levels + 1) >= _SMALLEST:
            levels += 1
        layers: list[nn.Module] = []
        for number, (inside, outside) in enumerate(pairwise((12, *_CHANNELS[:levels]))):  # 4 pixels of 3 channels
            layers += [*_layer(inside, outside, 2 if number else 1), *_layer(outside, outside, 1)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(_CHANNELS[levels - 1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [n, 3, h, w] in [0, 1] to [n, classes]."""
        height, width = images.shape[-2:]
        x = F.pad(2.0 * images - 1.0, (0, width % 2, 0, height % 2), mode="replicate")
        return self.head(self.layers(F.pixel_unshuffle(x, 2)).amax((2, 3)))


def load_classifier(path: str | Path, classes: int) -> Classifier:
    """A classifier that the user names.

    Args:
        path: a TorchScript file that maps float32 [n, 3, h, w] in [0, 1] to logits [n, classes].
        classes: of the data. Whether the network has as many is found when it is first called.

    Raises:
        UserError: there is no such file, or it is no TorchScript.
    """
    network, identity = load_torchscript(Path(path))
    return Classifier(network, identity, classes, piece=32, source=str(path))


def classifier_lesson(
    stream: ImageStream,
    classes: int,
    *,
    resolution: int,
    seed: int = 0,
    images: int = IMAGES,
    mirror: bool = False,
) -> Lesson:
    """What a classifier is trained on: real images and their labels.

    Args:
        stream: of the images; not of those that it is to be tried on.
        classes: labels are below.
        resolution: height of the images in pixels.
        seed: of weights, order and mirroring.
        images: that it learns from, counted each time they are shown.
        mirror: whether images are mirrored left to right with probability 1/2; not for digits.

    Raises:
        UserError: the images have no labels.
    """
    if not stream.manifest.classes:
        raise UserError(f"{stream}: has no labels, so no classifier can be trained on it. Name a file of one.")
    return Lesson(_NAME, stream, classes, None, resolution, seed, images, 32, 3e-3, mirror)


def train_classifier(
    lesson: Lesson,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
    told: Learned | None = None,
    ranks: Ranks = Alone(),
) -> Classifier:
    """A classifier that has learned a lesson of :func:`classifier_lesson`; the rest as for ``train_segmenter``."""
    build = partial(SmallClassifier, lesson.classes, lesson.resolution)
    network, identity = judging.learned(lesson, build, _labels, None, cache, device, told, ranks)
    return Classifier(network, identity, lesson.classes, piece=64)


def _labels(samples: Samples) -> NDArray[np.int64]:
    assert samples.labels is not None
    return samples.labels


def _layer(inside: int, outside: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inside, outside, 3, stride=stride, padding=1),
        nn.GroupNorm(8, outside),
        nn.LeakyReLU(0.1),
    ]
