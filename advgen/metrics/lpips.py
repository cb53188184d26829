"""LPIPS (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric") by a file.

Its weights are the user's: a TorchScript file, traced of the package ``lpips``, for one. Figures belong to the network
that it holds (VGG or AlexNet, version 0.1), whose hash stands in their records.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from advgen.errors import UserError
from advgen.images import to_signed
from advgen.metrics.features import Identity, full_float32
from advgen.metrics.measures import Bench
from advgen.metrics.pairs import PAIRS, NeighbourPairs
from advgen.metrics.torchscript import called, load_torchscript, shape_of


class Distance(Protocol):
    """A distance between images that a network takes."""

    @property
    def identity(self) -> Identity:
        """All that changes the figures."""
        ...

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """float [n] of two batches float32 [n, 3, h, w] in [-1, 1]."""
        ...


class Lpips:
    """LPIPS of a file; made by :func:`load_lpips`."""

    def __init__(self, path: Path) -> None:
        network, self._identity = load_torchscript(path)
        self._network, self._path, self._device = network.eval(), path, torch.device("cpu")

    @property
    def identity(self) -> Identity:
        """The file's hash; a copy."""
        return dict(self._identity)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of pairs, float64 [n].

        Args:
            a: float [n, 3, h, w] in [-1, 1].
            b: of the same shape.

        Raises:
            UserError: the user's network fails, or gives something else.
        """
        if a.device != self._device:
            self._network.to(a.device)
            self._device = a.device
        with torch.no_grad(), torch.autocast(a.device.type, enabled=False), full_float32():
            # Pair by pair: so that a distance does not depend on the pairs beside it.
            pairs = zip(a.float().split(1), b.float().split(1), strict=True)
            return torch.cat([self._of_pair(*pair) for pair in pairs])

    def _of_pair(self, a: Tensor, b: Tensor) -> Tensor:
        shape = f"two float32 {list(a.shape)} in [-1, 1]"
        found = called(self._network, str(self._path), shape, a, b)
        if not isinstance(found, Tensor) or found.numel() != 1 or not found.is_floating_point():
            raise UserError(
                f"{self._path}: gives {shape_of(found)} for {shape}; one distance a pair, [n], is expected."
            )
        if not found.isfinite().all():
            raise UserError(f"{self._path}: gives {found.item()} for {shape}. Name sound weights of LPIPS.")
        return found.reshape(1).double()


def load_lpips(path: Path | None, name: str) -> Lpips:
    """LPIPS for the metric of this name.

    Raises:
        UserError: no file is named, or it is no TorchScript.
    """
    if path is None:
        raise UserError(
            f"{name}: needs LPIPS as a TorchScript file: two float32 [n, 3, h, w] in [-1, 1] to distances [n]. Name it "
            "in evaluation.lpips (--lpips), or take a metric that needs no file (style_diversity, ppl_lite0)."
        )
    return Lpips(path)


class LpipsDiversity:
    """``lpips_diversity``: mean LPIPS over pairs of pictures, of the same class where there are classes.

    Raises:
        UserError: the file is missing.
    """

    def __init__(self, bench: Bench) -> None:
        self.samples, self._bench = bench.config.samples, bench
        self._distance = load_lpips(bench.files.lpips, "lpips_diversity")

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """The file's identity, and which pairs."""
        return {"extractor": self._distance.identity, "pairs": PAIRS}

    def start(self, resolution: int, names: Collection[str]) -> NeighbourPairs:
        """Nothing seen yet."""
        return NeighbourPairs(self._compare, self._bench, resolution, names)

    def _compare(self, a: Tensor, b: Tensor) -> Tensor:
        return self._distance(to_signed(a), to_signed(b))
