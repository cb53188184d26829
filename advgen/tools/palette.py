"""Colours for classes: well told apart, and the same for a class however many there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

# The first are chosen by eye: most maps have few classes.
_FIRST = (
    *((76, 120, 184), (127, 178, 76), (224, 163, 58), (196, 85, 61), (138, 98, 176), (79, 176, 181)),
    *((229, 139, 179), (141, 106, 74), (217, 211, 122), (90, 100, 112), (47, 125, 91), (185, 195, 207)),
)
_LIGHTNESS, _CHROMA = (0.4, 0.9), 0.16
"""Of the others: neither near black nor white nor glaring."""


def colours(count: int) -> list[Colour]:
    """RGB of the classes 0 to ``count`` - 1: after the first dozen each is the farthest from all before it in OKLab."""
    steps = np.arange(0, 256, 15)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness, *ab = oklab(grid).T
    usable = (lightness >= _LIGHTNESS[0]) & (lightness <= _LIGHTNESS[1]) & (np.hypot(*ab) <= _CHROMA)
    found = [np.array(colour) for colour in _FIRST]
    candidates = grid[usable]
    places = oklab(candidates)
    distances = np.min([np.linalg.norm(places - oklab(colour), axis=1) for colour in found], axis=0)
    while len(found) < count:
        farthest = int(distances.argmax())
        found.append(candidates[farthest])
        distances = np.minimum(distances, np.linalg.norm(places - places[farthest], axis=1))
    return [(int(r), int(g), int(b)) for r, g, b in found[:count]]


def oklab(rgb: NDArray[np.integer]) -> NDArray[np.float64]:
    """sRGB [..., 3] in 0..255 to OKLab (Ottosson 2020, "A perceptual color space for image processing")."""
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T


_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
