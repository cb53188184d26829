"""The encoder of instance features (Wang et al. 2017, section 3.4), and instances as rows.

Instances are numbered densely over a batch, so that pooling and spreading are one scatter and one gather on the device,
whatever the ids and however many.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advgen.games.pix2pixhd.config import Pix2PixHdConfig
from advgen.games.pix2pixhd.networks import DEVIATION, hourglass, padded, to_image
from advgen.nn.initialization import initialize_convolutions
from advgen.precision import at_least_float32


@dataclass(frozen=True)
class Instances:
    """The m instances of a batch, in the order of images and, within an image, of ids.

    Attributes:
        index: int64 [n, h, w] in [0, m): the instance that a pixel belongs to.
        images: int64 [m] in [0, n): the image that an instance lies in.
        ids: int64 [m]: its id there; one id in two images is two instances.
        areas: int64 [m]: its pixels.
    """

    index: Tensor
    images: Tensor
    ids: Tensor
    areas: Tensor


def find_instances(instance_map: Tensor) -> Instances:
    """The instances of ``instance_map``, whole numbers [n, h, w] of any value."""
    values, dense = torch.unique(instance_map.long(), return_inverse=True)
    first = torch.arange(len(instance_map), device=instance_map.device).reshape(-1, 1, 1) * len(values)
    keys, index, areas = torch.unique(dense + first, return_inverse=True, return_counts=True)
    return Instances(index, keys // len(values), values[keys % len(values)], areas)


def means(features: Tensor, instances: Instances) -> Tensor:
    """Each instance's mean over its pixels: [n, c, h, w] to [m, c], float32 at least.

    Sums are taken in float64: an instance may have a million pixels.
    """
    features = at_least_float32(features)
    rows = features.movedim(1, -1).flatten(0, 2).double()
    sums = rows.new_zeros(len(instances.ids), rows.shape[1]).index_add(0, instances.index.flatten(), rows)
    return (sums / instances.areas[:, None]).to(features.dtype)


def spread(rows: Tensor, instances: Instances) -> Tensor:
    """Each instance's row at all its pixels: [m, c] to [n, c, h, w]."""
    pixels = rows.index_select(0, instances.index.flatten())
    return pixels.unflatten(0, instances.index.shape).movedim(-1, 1).contiguous()


class Encoder(nn.Module):
    """Real images to feature maps that are constant over each instance."""

    def __init__(self, config: Pix2PixHdConfig, channels: int = 3) -> None:
        super().__init__()
        self.multiple = 1 << config.encoder_downsamplings
        self.trunk = hourglass(channels, config.nef, config.encoder_downsamplings, blocks=0, norm=config.norm)
        self.to_features = to_image(config.nef, config.encoder_features)
        initialize_convolutions(self, DEVIATION)

    def forward(self, images: Tensor, instances: Instances) -> Tensor:
        """[n, channels, h, w] in [-1, 1] to instance means [m, features] in [-1, 1], for :func:`spread`."""
        height, width = images.shape[-2:]
        features = self.to_features(self.trunk(padded(images, self.multiple)))
        return means(features[..., :height, :width], instances)
