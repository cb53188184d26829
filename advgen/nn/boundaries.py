"""Maps of ids as channels for a network."""

from __future__ import annotations

import torch
from torch import Tensor


def instance_edges(instance_map: Tensor) -> Tensor:
    """Where an instance meets another: pixels that differ from one of their four neighbours (pix2pixHD, section 3.3).

    Args:
        instance_map: whole numbers [..., h, w].

    Returns:
        bool [..., h, w].
    """
    edges = torch.zeros_like(instance_map, dtype=torch.bool)
    across = instance_map[..., :, 1:] != instance_map[..., :, :-1]
    down = instance_map[..., 1:, :] != instance_map[..., :-1, :]
    edges[..., :, 1:] |= across
    edges[..., :, :-1] |= across
    edges[..., 1:, :] |= down
    edges[..., :-1, :] |= down
    return edges


def one_hot(label_map: Tensor, classes: int, ignore: int | None = None) -> Tensor:
    """A channel for each class, 1 where it is and else 0; all 0 where the id is ``ignore`` or no class.

    Args:
        label_map: whole numbers [n, h, w].
        classes: ids are 0 to classes - 1.
        ignore: an id without a channel's value, whether or not it is that of a class.

    Returns:
        float32 [n, classes, h, w].
    """
    hot = label_map[:, None] == torch.arange(classes, device=label_map.device).reshape(-1, 1, 1)
    if ignore is not None:
        hot = hot & (label_map != ignore)[:, None]
    return hot.float()
