"""How much pictures of one map differ: the mean distance of deep features between pairs of them.

BicycleGAN (Zhu et al. 2017, "Toward Multimodal Image-to-Image Translation", section 5.2) measures with LPIPS between
samples of one input, averaged over inputs. This is LPIPS's formula with features that pip installs and with all
weights 1, so it is *not* LPIPS and compares with no published figure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advgen import files
from advgen.images import to_signed
from advgen.metrics.features import Identity, as_rgb, full_float32, read_weights
from advgen.metrics.lite0 import weights_path
from advgen.nn import perceptual

_TINY = 1e-10  # added to lengths, as in LPIPS


class Lite0Distance:
    """LPIPS's distance (Zhang et al. 2018, eq. 1) with EfficientNet-Lite0's layers and all weights 1.

    Raises:
        UserError: the packages of the features are missing.
    """

    def __init__(self) -> None:
        path = weights_path()
        self._network = perceptual.lite0(read_weights(path))
        self._device = torch.device("cpu")
        self._identity: Identity = {
            "name": "lpips-lite0-unweighted",
            "weights_sha256": files.sha256(path),
            "layers": "last block at 1/2, 1/4, 1/8, 1/16, 1/32",
            "resize": "none",
        }

    @property
    def identity(self) -> Identity:
        """All that changes the figures, but for the size of the images; a copy."""
        return dict(self._identity)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of pairs, float64 [n] in [0, 4].

        Args:
            a: float [n, 3, h, w] in [-1, 1]; not resized.
            b: of the same shape.
        """
        return pair_distances(self.layers(a), self.layers(b))

    def layers(self, images: Tensor) -> list[Tensor]:
        """Features of float [n, 3, h, w] in [-1, 1] at each layer, [n, c, h', w']."""
        if images.device != self._device:
            self._network.to(images.device)
            self._device = images.device
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False), full_float32():
            # One by one: so that a picture's features do not depend on those beside it.
            found = [self._network(image) for image in images.split(1)]
        return [torch.cat(layer) for layer in zip(*found, strict=True)]


class StyleDiversity:
    """The mean distance between pictures of one map.

    Raises:
        UserError: the packages of the features are missing.
    """

    def __init__(self) -> None:
        self._distance = Lite0Distance()

    @property
    def identity(self) -> Identity:
        """All that changes the figures, but for the size of the images; a copy."""
        return self._distance.identity

    def __call__(self, images: Tensor) -> float:
        """Mean distance over all pairs of ``images``, in [0, 4]; 0 for equal pictures, higher is more diverse.

        Args:
            images: uint8 [k, 1 or 3, h, w] in 0..255, k at least 2, all of one map. They are not resized.

        Raises:
            ValueError: fewer than two, or another type or shape.
        """
        images = as_rgb(images)
        if len(images) < 2:
            raise ValueError(f"a distance between pictures needs at least two; given {len(images)}.")
        return mean_distance(self._distance.layers(to_signed(images)))


def mean_distance(layers: list[Tensor]) -> float:
    """Mean over pairs of LPIPS's distance with all weights 1 (Zhang et al. 2018, eq. 1), the layers averaged.

    d(a, b) is, for a layer, the mean over pixels of |a/|a| - b/|b||², where a and b are a pixel's vectors of channels.

    Args:
        layers: features of all pictures, float [k, c, h, w] each.
    """
    total = 0.0
    for layer in layers:
        count, _, height, width = layer.shape
        unit = _unit(layer)
        # Sum over pairs of |u_i - u_j|² is k times the sum of |u_i - mean|²; from the first on, so that it is exactly
        # 0 for equal pictures.
        offset = unit - unit[:1]
        squares = (offset - offset.mean(0)).square().sum()
        total += float(squares) * count / (count * (count - 1) / 2) / (height * width)
    return total / len(layers)


def pair_distances(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """The same distance of each pair: float64 [n] of the features of either side, float [n, c, h, w] a layer."""
    each = [(_unit(one) - _unit(other)).square().sum(1).mean((1, 2)) for one, other in zip(a, b, strict=True)]
    return torch.stack(each).mean(0)


def _unit(layer: Tensor) -> Tensor:
    """Each pixel's vector of channels over its length, in float64."""
    features = layer.double()
    return features / (features.square().sum(1, keepdim=True).sqrt() + _TINY)
