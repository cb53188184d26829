"""Perceptrons in which images and labels have layers of their own before they join (Mirza & Osindero 2014, 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.game import ImageSpec
from advgen.nn.dropout import dropout_mask
from advgen.seeds import Noise


class Maxout(nn.Module):
    """The largest of several linear maps, unit by unit (Goodfellow et al. 2013, section 2)."""

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(inputs, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs] to [n, units]; the pieces of a unit are neighbours."""
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(dim=2)


def dropout_masks(noise: Noise, purpose: str, units: Sequence[int], rate: float) -> list[Tensor]:
    """For each layer [n, units] of 0 with probability ``rate``, and of 1 / (1 - rate) else; no layers at rate 0."""
    if rate == 0:
        return []
    return [dropout_mask(noise, f"{purpose} {layer}", rate, count) for layer, count in enumerate(units)]


class MlpGenerator(nn.Module):
    """Latent vectors and labels to images [n, c, r, r] in [-1, 1]."""

    masked = (200 + 1000, 1200)  # hidden units that dropout may leave out, layer by layer

    def __init__(self, latents: int, spec: ImageSpec) -> None:
        super().__init__()
        self.classes = spec.classes
        self.shape = (spec.channels, spec.resolution, spec.resolution)
        self.latent = nn.Linear(latents, 200)
        self.label = nn.Linear(spec.classes, 1000)
        self.joint = nn.Linear(200 + 1000, 1200)
        self.last = nn.Linear(1200, math.prod(self.shape))

    def forward(self, z: Tensor, labels: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """[n, latents] and int64 [n] to [n, c, r, r].

        Args:
            z: in [0, 1).
            labels: numbers of classes.
            masks: of :func:`dropout_masks` for the units ``masked``; none for no dropout.
        """
        y = F.one_hot(labels, self.classes).to(z.dtype)
        x = torch.cat((F.relu(self.latent(z)), F.relu(self.label(y))), dim=1)
        x = F.relu(self.joint(x * masks[0] if masks else x))
        return self.last(x * masks[1] if masks else x).tanh().reshape(-1, *self.shape)


class MlpDiscriminator(nn.Module):
    """Images and labels to logits."""

    masked = (240 + 50, 240)

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.classes = spec.classes
        self.image = Maxout(spec.channels * spec.resolution**2, 240, pieces=5)
        self.label = Maxout(spec.classes, 50, pieces=5)
        self.joint = Maxout(240 + 50, 240, pieces=4)
        self.last = nn.Linear(240, 1)

    def forward(self, images: Tensor, labels: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """[n, c, r, r] and int64 [n] to [n]; ``masks`` as the generator's."""
        y = F.one_hot(labels, self.classes).to(images.dtype)
        x = torch.cat((self.image(images.flatten(1)), self.label(y)), dim=1)
        x = self.joint(x * masks[0] if masks else x)
        return self.last(x * masks[1] if masks else x)[:, 0]
