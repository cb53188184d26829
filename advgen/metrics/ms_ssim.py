"""Multi-scale structural similarity between generated pictures: the lower, the more they differ from one another.

Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity for image quality assessment", eq. 7, with the
windows and scales of TensorFlow's transcription, which ProGAN's released code takes: Odena et al. 2017 (section 4.2)
first measured the diversity of a class with it, Karras et al. 2018 that of all samples, over 10,000 pairs. It finds
collapse to one picture or a few, and says nothing of likeness to the training images: read it beside its floor.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.errors import UserError
from advgen.metrics.measures import Bench
from advgen.metrics.pairs import PAIRS, NeighbourPairs

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, finest first (Wang et al. 2003, section 3.2); they add up to 0.9993 there, too."""
MULTIPLE = 2 ** (len(WEIGHTS) - 1)
"""Sides of images are multiples of it, as each scale has half the pixels a side of the one before."""

_WINDOW, _DEVIATION = 11, 1.5  # pixels
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_VALUES = 1 << 22  # of a batch, in float64, that are computed at once


class MsSsim:
    """``ms_ssim``: mean over pairs of pictures, of the same class where there are classes.

    Raises:
        UserError: the images are too small for five scales.
    """

    def __init__(self, bench: Bench) -> None:
        self.samples, self._bench = bench.config.samples, bench
        height, width = bench.spec.resolution, bench.spec.width or bench.spec.resolution
        if min(height, width) < MULTIPLE or height % MULTIPLE or width % MULTIPLE:
            raise UserError(
                f"ms_ssim: images of {height}x{width} pixels do not have {len(WEIGHTS)} scales. Their sides must be "
                f"multiples of {MULTIPLE}, and {MULTIPLE} pixels are the least. Leave it out of evaluation.metrics."
            )

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """Which pairs, and the window."""
        return {"pairs": PAIRS, "window": f"{_WINDOW}x{_WINDOW} Gaussian of {_DEVIATION}, smaller for smaller scales"}

    def start(self, resolution: int, names: Collection[str]) -> NeighbourPairs:
        """Nothing seen yet."""
        return NeighbourPairs(ms_ssim, self._bench, resolution, names)


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """MS-SSIM of each pair: the product of contrast terms of all scales but the coarsest and its SSIM, weighted.

    The window is 11x11, a Gaussian of deviation 1.5, kept inside the image; where a scale is smaller, window and
    deviation shrink with it (images of fewer than 176 pixels a side). Negative terms count as 0.

    Args:
        a: uint8 [n, c, h, w] in 0..255, sides multiples of 16.
        b: of the same shape.

    Returns:
        float64 [n], computed in float64; 1 for equal images.
    """
    piece = max(1, _VALUES // a[:1].numel())
    return torch.cat([_ms_ssim(*some) for some in zip(a.split(piece), b.split(piece), strict=True)])


def _ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.double(), b.double()
    found = torch.ones(len(a), dtype=torch.float64, device=a.device)
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        similarity, contrast = _similarity(a, b)
        term = similarity if scale == len(WEIGHTS) - 1 else contrast
        found = found * term.clamp_min(0) ** weight
    return found


def _similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM, and its contrast and structure alone, [n] each (Wang et al. 2004, eq. 13)."""
    blurred = partial(_windowed, window=_gaussian(min(_WINDOW, *a.shape[-2:])).to(a.device))
    mean_a, mean_b = blurred(a), blurred(b)
    variance_a, variance_b = blurred(a * a) - mean_a.square(), blurred(b * b) - mean_b.square()
    covariance = blurred(a * b) - mean_a * mean_b
    contrast = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1)
    return (luminance * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))


def _gaussian(size: int) -> Tensor:
    """float64 [size], of sum 1; the two-dimensional window is its outer product with itself."""
    places = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    values = torch.exp(-places.square() / (2 * (size * _DEVIATION / _WINDOW) ** 2))
    return values / values.sum()


def _windowed(images: Tensor, window: Tensor) -> Tensor:
    """Weighted means over windows that lie wholly inside, [n, c, h - size + 1, w - size + 1]."""
    x = images.flatten(0, 1)[:, None]
    x = F.conv2d(F.conv2d(x, window[None, None, :, None]), window[None, None, None, :])
    return x.unflatten(0, images.shape[:2])[:, :, 0]
