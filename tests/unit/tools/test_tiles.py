"""Tiles: they cover, what they count sums to 1, and a picture put together from them has no seam."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.errors import UserError
from advgen.tools.tiles import check_tile, cut, shares, tiled

SIDES = [(length, tile, stride) for stride in (1, 4, 16) for tile in (2, 3, 5) for length in (17, 33, 70, 128, 515)]


@pytest.mark.parametrize(("length", "tile", "stride"), [(side, tile * stride, stride) for side, tile, stride in SIDES])
def test_tiles_cover_a_side_and_overlap(length: int, tile: int, stride: int) -> None:
    tiles = cut(length, tile, stride)
    assert tiles[0][0] == 0 and tiles[-1][1] == length
    assert all(start % stride == 0 for start, _ in tiles), "a strided network meets the same pixels as in the whole"
    assert all(end - start == tile for start, end in tiles[:-1])
    assert len(tiles) == 1 or tile - stride < tiles[-1][1] - tiles[-1][0] <= tile
    overlaps = [end - start for (_, end), (start, _) in pairwise(tiles)]
    assert all(4 * overlap >= tile for overlap in overlaps)
    fewest = 1 + max(0, -(-(length - tile) // (tile - -(-tile // (4 * stride)) * stride)))
    assert len(tiles) == fewest
    counted = shares(tiles, length).numpy()
    np.testing.assert_allclose(counted.sum(axis=0), 1.0, rtol=0, atol=1e-6)
    assert counted.min() >= 0
    for (start, end), own in zip(tiles, counted, strict=True):
        assert not own[:start].any() and not own[end:].any(), "nothing is asked of a tile where it is not"


def test_shares_are_linear_over_an_overlap() -> None:
    tiles = cut(28, 16, 4)
    assert tiles == [(0, 16), (12, 28)]
    ramp = (np.arange(4) + 0.5) / 4
    first = np.concatenate([np.ones(12), 1 - ramp, np.zeros(12)])
    np.testing.assert_allclose(shares(tiles, 28).numpy(), [first, 1 - first], rtol=0, atol=1e-7)


def strided(x: Tensor) -> Tensor:
    """Means of blocks of 4 x 4, each at all its pixels; sides are continued by reflection."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (0, -width % 4, 0, -height % 4), mode="reflect")
    return F.interpolate(F.avg_pool2d(padded, 4), scale_factor=4)[..., :height, :width]


@pytest.mark.parametrize(("height", "width"), [(70, 53), (64, 128), (37, 200), (9, 40)])
def test_what_depends_on_its_surroundings_alone_is_the_same_in_tiles(height: int, width: int) -> None:
    planes = torch.from_numpy(np.random.RandomState(0).uniform(-1, 1, (2, 3, height, width))).float()
    shapes = []

    def paint(part: Tensor) -> Tensor:
        shapes.append(tuple(part.shape))
        return strided(part)

    found = tiled(paint, planes, 16, 4)
    assert len(shapes) > 2 and all(n == 2 and c == 3 and max(h, w) <= 16 for n, c, h, w in shapes)
    torch.testing.assert_close(found, strided(planes), rtol=0, atol=1e-6)


def test_tiles_that_differ_go_over_into_one_another() -> None:
    """Each tile has a colour of its own: the steepest step is that of the shortest overlap, and no seam."""
    numbers = iter(range(100))
    found = tiled(lambda part: torch.full_like(part, float(next(numbers) % 2)), torch.zeros(1, 1, 20, 100), 32, 4)
    assert found.shape == (1, 1, 20, 100) and {0.0, 1.0} <= set(found.flatten().tolist())
    tiles = cut(100, 32, 4)
    shortest = min(end - start for (_, end), (start, _) in pairwise(tiles))
    assert float(found.diff(dim=-1).abs().max()) == pytest.approx(1 / shortest, rel=1e-5)


def test_one_tile_is_the_whole() -> None:
    planes = torch.from_numpy(np.random.RandomState(0).normal(size=(1, 2, 21, 30))).float()
    seen = []
    found = tiled(lambda part: seen.append(part) or part * 3, planes, 32, 4)
    assert len(seen) == 1 and seen[0] is planes and torch.equal(found, planes * 3)


def test_tiles_that_are_too_small_are_refused() -> None:
    check_tile(32, 16)
    with pytest.raises(UserError, match="tiles of 31 pixels are too small for this network: take at least 32"):
        check_tile(31, 16)
