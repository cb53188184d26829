"""Toy sets of points in a few dimensions, as an endless stream: sample number p is a function of (seed, p) alone.

A point of d dimensions is a picture of d channels and one pixel, float32 [d, 1, 1], so that the trainer needs to know
nothing of it. Importing this module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from advgen.data.order import Positions
from advgen.data.parts import Samples
from advgen.likelihood.constants import LINEAR_BIAS, LINEAR_SIGMA, LINEAR_WEIGHTS, SPRINKLER_BASE, SPRINKLER_VARIANCE
from advgen.seeds import Noise

PointsName = Literal["four_points", "grid25", "linear_gaussian", "ring8", "sprinkler", "swiss_roll"]
Floats = NDArray[np.float64]
Modes = NDArray[np.int64]
Drawn = tuple[Floats, Modes | None]
"""Points [n, d], and which mode each is of, [n]; None for a set without modes."""

EPOCH = 1_000_000
"""So many points stand for the whole set where one is needed, as for the choice of real ones in an evaluation."""

GRID_DEVIATION, RING_DEVIATION, ROLL_DEVIATION = 0.05, 0.02, 0.05


def grid25(noise: Noise) -> Drawn:
    """p(x) = 1/25 sum_c N(x; c, 0.05^2 I), the centres c on {-4, -2, 0, 2, 4}^2.

    Spacing and deviation are those of VEEGAN (Srivastava et al. 2017) and of PacGAN's code for the experiment of ALI,
    section 4.1 (Lin et al. 2018), so that counts of modes may be compared with theirs; ALI's own text does not print
    them. Neighbours lie 40 deviations apart.
    """
    modes = _choice(noise, 25)
    return _centres_of("grid25")[modes] + GRID_DEVIATION * _normal(noise, "deviation", 2), modes


def ring8(noise: Noise) -> Drawn:
    """p(x) = 1/8 sum_k N(x; 2 (cos k pi/4, sin k pi/4), 0.02^2 I), as in Metz et al. 2017 (unrolled GANs)."""
    modes = _choice(noise, 8)
    return _centres_of("ring8")[modes] + RING_DEVIATION * _normal(noise, "deviation", 2), modes


def four_points(noise: Noise) -> Drawn:
    """P(x) = 1/4 at each of four points: images of 2 x 2 pixels with one pixel on (1) and three off (-1).

    The synthetic example of Mescheder et al. 2017 (AVB); there is no density.
    """
    modes = _choice(noise, 4)
    return _centres_of("four_points")[modes].copy(), modes


def swiss_roll(noise: Noise) -> Drawn:
    """x = t (cos t, sin t) / 5 + 0.05 eps, t uniform in [1.5 pi, 4.5 pi) and eps ~ N(0, I).

    p(x) = 1/(3 pi) times the integral of N(x; t (cos t, sin t) / 5, 0.05^2 I) over t: a spiral of one turn and a half.
    """
    t = 1.5 * math.pi * (1 + 2 * _uniform(noise, "angle", 1))
    spiral = t * np.concatenate((np.cos(t), np.sin(t)), axis=1) / 5
    return spiral + ROLL_DEVIATION * _normal(noise, "deviation", 2), None


def linear_gaussian(noise: Noise) -> Drawn:
    """x = W z + b + sigma eps with z ~ N(0, I_2) and eps ~ N(0, I_3): p(x) = N(x; b, W W^T + sigma^2 I)."""
    z, epsilon = _normal(noise, "latent", 2), _normal(noise, "deviation", 3)
    return z @ np.array(LINEAR_WEIGHTS).T + np.array(LINEAR_BIAS) + LINEAR_SIGMA * epsilon, None


def sprinkler(noise: Noise) -> Drawn:
    """x exponential with mean m(z) = 3 + max(0, z1)^3 + max(0, z2)^3, z1 and z2 ~ N(0, 2) (Huszar 2017).

    p(x) is the integral of exp(-x / m(z)) / m(z) over the prior, for x >= 0.
    """
    z = math.sqrt(SPRINKLER_VARIANCE) * _normal(noise, "latent", 2)
    mean = SPRINKLER_BASE + (np.maximum(z, 0.0) ** 3).sum(axis=1, keepdims=True)
    return -mean * np.log1p(-_uniform(noise, "deviation", 1)), None


@dataclass(frozen=True)
class PointSet:
    """What is known of a set.

    Attributes:
        draw: its points.
        dimensions: of a point.
        centres: float64 [modes, d]; None for a set without modes.
        radius: a point no farther from a centre is of that mode.
        bounded: whether all values lie in [-1, 1].
    """

    draw: Callable[[Noise], Drawn]
    dimensions: int
    centres: Floats | None = None
    radius: float = 0.0
    bounded: bool = False

    @property
    def modes(self) -> int:
        """How many; 0 for a set without modes."""
        return 0 if self.centres is None else len(self.centres)


def _grid() -> Floats:
    side = np.arange(-4.0, 5.0, 2.0)
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(25, 2)


def _ring() -> Floats:
    angles = np.arange(8) * math.pi / 4
    return 2 * np.stack((np.cos(angles), np.sin(angles)), axis=1)


SETS: dict[str, PointSet] = {
    # The four points have no deviation; a pixel of theirs may be off by a quarter of the way from off to on.
    "four_points": PointSet(four_points, 4, 2 * np.eye(4) - 1, radius=0.5, bounded=True),
    "grid25": PointSet(grid25, 2, _grid(), radius=3 * GRID_DEVIATION),
    "linear_gaussian": PointSet(linear_gaussian, 3),
    "ring8": PointSet(ring8, 2, _ring(), radius=3 * RING_DEVIATION),
    "sprinkler": PointSet(sprinkler, 1),
    "swiss_roll": PointSet(swiss_roll, 2),
}
"""Every set, by name."""


class PointStream:
    """Points of a set by position; see :class:`advgen.data.stream.Stream`.

    Has no state, so it may be used from several threads and sent to other processes.

    Attributes:
        digest: stands for that of a manifest: what these points are, whatever the seed.
    """

    def __init__(self, name: str, *, seed: int, labelled: bool = False) -> None:
        """
        Args:
            name: of the set, one of :data:`SETS`.
            seed: other seeds give other points.
            labelled: whether samples have the number of their mode as label.
        """
        self.name, self._seed, self._labelled = name, seed, labelled
        self.digest = f"points {name}"

    def __str__(self) -> str:
        return self.digest

    def __len__(self) -> int:
        """The stream has no end; so many points stand for the whole set."""
        return EPOCH

    def read(self, positions: Positions, level: int | None = None) -> Samples:
        """The points at some positions, float32 [n, d, 1, 1], with their modes as labels, int64 [n], if labelled.

        Args:
            positions: int64 [n], from 0 on; in any order, also repeated.
            level: None or 1, the height of a point.
        """
        import torch

        if level not in (None, 1):
            raise ValueError(f"points have a height of 1, not {level}")
        at = torch.from_numpy(np.ascontiguousarray(positions, np.int64))
        points, modes = SETS[self.name].draw(Noise(self._seed, ("points", self.name), at, torch.float64))
        return Samples(points.astype(np.float32)[:, :, None, None], modes if self._labelled else None)

    def fetch(self, indices: NDArray[np.int64], level: int | None = None) -> Samples:
        """Points by their number, which is their position."""
        return self.read(indices, level)


def _centres_of(name: str) -> Floats:
    centres = SETS[name].centres
    assert centres is not None
    return centres


def _uniform(noise: Noise, purpose: str, count: int) -> Floats:
    """[n, count] in [0, 1)."""
    return noise.uniform(purpose, count).numpy()


def _normal(noise: Noise, purpose: str, count: int) -> Floats:
    """[n, count] from N(0, 1)."""
    return noise.normal(purpose, count).numpy()


def _choice(noise: Noise, count: int) -> Modes:
    """[n] in 0 to ``count``, exclusive, each equally often."""
    return (_uniform(noise, "mode", 1)[:, 0] * count).astype(np.int64)
