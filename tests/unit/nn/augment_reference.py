"""Augmentations in numpy float64, one sample and one pixel at a time, written from the papers' own formulae.

DiffAugment: Zhao et al. 2020, section 4 and appendix. ADA: Karras et al. 2020, appendix B, as products of homogeneous
matrices that are inverted at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Numbers = Mapping[str, float]

LUMA = np.array([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3)


# ---------------------------------------------------------------------------------------------------------- DiffAugment
def color(image: Array, brightness: float, saturation: float, contrast: float) -> Array:
    """[c, h, w]; the three numbers are uniform in [0, 1)."""
    image = image + brightness - 0.5
    grey = np.stack([image.mean(axis=0)] * len(image))
    image = 2 * saturation * image + (1 - 2 * saturation) * grey
    factor = 0.5 + contrast
    return factor * image + (1 - factor) * image.mean()


def translation(image: Array, down: int, right: int) -> Array:
    """The pixel at (y, x) is the one at (y + down, x + right); 0 where there is none."""
    moved = np.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y + down < height and 0 <= x + right < width:
                moved[:, y, x] = image[:, y + down, x + right]
    return moved


def cutout(image: Array, centre_y: int, centre_x: int) -> Array:
    """Zeros from centre - size // 2 on, a size being half a side, rounded up."""
    cut = image.copy()
    _, height, width = image.shape
    size_y, size_x = (height + 1) // 2, (width + 1) // 2
    for y in range(centre_y - size_y // 2, centre_y - size_y // 2 + size_y):
        for x in range(centre_x - size_x // 2, centre_x - size_x // 2 + size_x):
            if 0 <= y < height and 0 <= x < width:
                cut[:, y, x] = 0.0
    return cut


# ------------------------------------------------------------------------------------------------------------------ ADA
def scale2d(x: float, y: float) -> Array:
    return np.diag([x, y, 1.0])


def rotate2d(angle: float) -> Array:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def translate2d(x: float, y: float) -> Array:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def geometry(on: Sequence[str], uniform: Numbers, normal: Numbers, height: int, width: int) -> Array:
    """[3, 3]: places (x, y, 1) of the image, from its centre, to where the transforms carry them."""
    g = np.eye(3)
    if "xflip" in on:
        g = scale2d(1 - 2 * math.floor(2 * uniform["xflip"]), 1) @ g
    if "rotate90" in on:
        g = rotate2d(-math.pi / 2 * math.floor(4 * uniform["rotate90"])) @ g
    if "xint" in on:
        x, y = (0.125 * (2 * uniform[f"xint {axis}"] - 1) for axis in "xy")
        g = translate2d(round(x * width), round(y * height)) @ g
    if "scale" in on:
        s = math.exp(0.2 * math.log(2) * normal["scale"])
        g = scale2d(s, s) @ g
    if "rotate before" in on:
        g = rotate2d(-math.pi * (2 * uniform["rotate before"] - 1)) @ g
    if "aniso" in on:
        s = math.exp(0.2 * math.log(2) * normal["aniso"])
        g = scale2d(s, 1 / s) @ g
    if "rotate after" in on:
        g = rotate2d(-math.pi * (2 * uniform["rotate after"] - 1)) @ g
    if "xfrac" in on:
        g = translate2d(0.125 * normal["xfrac x"] * width, 0.125 * normal["xfrac y"] * height) @ g
    return g


def warp(image: Array, carried: Array) -> Array:
    """[c, h, w] resampled bilinearly where ``carried`` takes places of the image to."""
    _, height, width = image.shape
    margin = 4 * (height + width)
    padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    back = np.linalg.inv(carried)
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            x, y, _ = back @ np.array([column - (width - 1) / 2, row - (height - 1) / 2, 1.0])
            x, y = x + (width - 1) / 2 + margin, y + (height - 1) / 2 + margin
            left, top = math.floor(x), math.floor(y)
            for b in (top, top + 1):
                for a in (left, left + 1):
                    result[:, row, column] += (1 - abs(x - a)) * (1 - abs(y - b)) * padded[:, b, a]
    return result


def rotate3d(axis: Array, angle: float) -> Array:
    """Rodrigues' formula, [4, 4]."""
    x, y, z = axis[:3]
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + math.sin(angle) * k + (1 - math.cos(angle)) * k @ k
    return matrix


def colour(on: Sequence[str], uniform: Numbers, normal: Numbers) -> Array:
    """[4, 4]: (red, green, blue, 1) to the new ones."""
    c = np.eye(4)
    if "brightness" in on:
        t = np.eye(4)
        t[:3, 3] = 0.2 * normal["brightness"]
        c = t @ c
    if "contrast" in on:
        s = math.exp(0.5 * math.log(2) * normal["contrast"])
        c = np.diag([s, s, s, 1.0]) @ c
    if "lumaflip" in on:
        c = (np.eye(4) - 2 * np.outer(LUMA, LUMA) * math.floor(2 * uniform["lumaflip"])) @ c
    if "hue" in on:
        c = rotate3d(LUMA, math.pi * (2 * uniform["hue"] - 1)) @ c
    if "saturation" in on:
        s = math.exp(math.log(2) * normal["saturation"])
        c = (np.outer(LUMA, LUMA) + (np.eye(4) - np.outer(LUMA, LUMA)) * s) @ c
    return c


def recolour(image: Array, matrix: Array) -> Array:
    """[c, h, w]; a grey image goes as one of three equal channels, whose mean comes back."""
    rgb = np.concatenate([image] * 3) if len(image) == 1 else image
    result = np.einsum("ij,jhw->ihw", matrix[:3, :3], rgb) + matrix[:3, 3][:, None, None]
    return result.mean(axis=0, keepdims=True) if len(image) == 1 else result
