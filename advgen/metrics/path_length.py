"""Perceptual path length: how fast pictures change along ways between latents.

Karras et al. 2019, "A Style-Based Generator Architecture for Generative Adversarial Networks", section 4.1, eq. 2: the
expectation of d(G(slerp(z1, z2, t)), G(slerp(z1, z2, t + e))) / e^2 over latents z1 and z2 and t in [0, 1), with e of
1e-4, in Z. As in the released code, whole images (there is no crop of faces) of more than 256 pixels are reduced to 256
by means, and distances outside the 1st to 99th percentile left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.capabilities import DrawsLatents
from advgen.errors import UserError
from advgen.game import Batch, Progress
from advgen.interpolation import slerp
from advgen.metrics.lpips import Distance
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks
from advgen.seeds import Noise

EPSILON = 1e-4
_LARGEST = 256  # pixels; VGG was made for 224


def step(
    game: DrawsLatents,
    networks: Mapping[str, nn.Module],
    progress: Progress,
    seed: int,
    positions: Tensor,
    like: Batch | None,
    length: float,
) -> tuple[Tensor, Tensor]:
    """Images at either end of a step on the way between two latents, one step a position.

    Args:
        game: that draws and decodes latents. Of normal ones the way is an arc, of others a line.
        networks: by name, averages in their networks' places.
        progress: where the run stands.
        seed: of latents, and of the places of the steps.
        positions: int64 [n].
        like: labels that the images are to have; the same at both ends.
        length: of the step, as a share of the way.

    Returns:
        Twice float [n, c, h, w], nominally in [-1, 1], not rounded to bytes.
    """
    start, end = (game.latents(Noise(seed, ("path", which), positions)) for which in ("start", "end"))
    share = Noise(seed, ("path",), positions).uniform("share", 1).double()
    between = slerp if game.normal_latents else torch.lerp
    with torch.no_grad():
        near, far = (
            game.decode(networks, progress, between(start.double(), end.double(), at).to(start), like)
            for at in (share, share + length)
        )
    return near, far


class PathLength:
    """``ppl`` or ``ppl_lite0``, by the distance."""

    def __init__(self, bench: Bench, distance: Distance) -> None:
        self.samples, self._distance = bench.config.samples, distance

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """The distance's identity, and the step."""
        return {"extractor": self._distance.identity, "epsilon": EPSILON, "percentiles": [1, 99]}

    def start(self, resolution: int, names: Collection[str]) -> _Lengths:
        """Nothing seen yet."""
        return _Lengths(self._distance, names)


class _Lengths:
    def __init__(self, distance: Distance, names: Collection[str]) -> None:
        self._distance, self._names = distance, names
        self._found = torch.empty(0, dtype=torch.float64)

    def add(self, pictures: Pictures) -> None:
        if pictures.step is None:
            raise UserError(f"{', '.join(self._names)}: there are no latents between which to walk.")
        near, far = (_as_judged(images) for images in pictures.step(EPSILON))
        self._found = torch.cat((self._found, self._distance(near, far).double().cpu() / EPSILON**2))

    def gather(self, ranks: Ranks) -> None:
        self._found = ranks.rows(self._found)

    def results(self) -> dict[str, Result]:
        return dict.fromkeys(self._names, Result(trimmed_mean(self._found)))


def _as_judged(images: Tensor) -> Tensor:
    """float32 [n, 3, h, w], reduced by whole factors to sides of 256 to 511 pixels where they are larger."""
    images = images.float().expand(-1, 3, -1, -1)
    factor = min(images.shape[-2:]) // _LARGEST
    return F.avg_pool2d(images, factor) if factor > 1 else images


def trimmed_mean(values: Tensor) -> float:
    """Of what lies between the 1st percentile and the 99th; of those between two values the outer ones.

    Args:
        values: float64 [n], n at least 1.
    """
    low = values.quantile(0.01, interpolation="lower")
    high = values.quantile(0.99, interpolation="higher")
    return float(values[(low <= values) & (values <= high)].mean())
