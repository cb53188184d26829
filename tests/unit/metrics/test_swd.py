"""The sliced Wasserstein distance against its definition in float64 numpy, patch by patch, on real images."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from advgen.errors import UserError
from advgen.game import ImageSpec
from advgen.metrics.measures import Result
from advgen.metrics.patches import Patches
from advgen.metrics.pictures import Pictures
from advgen.metrics.pyramid import laplacian_pyramid, sizes
from advgen.metrics.ranks import Alone, Ranks
from advgen.metrics.swd import SlicedWasserstein, wasserstein
from advgen.seeds import Noise
from tests.unit.metrics.photographs import crops
from tests.unit.metrics.threads import on_ranks

Array = NDArray[np.float64]
FILTER = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
SEED = 5


def _pyramid(image: Array, levels: int) -> list[Array]:
    """Of one channel [h, w]."""
    found = [image]
    for _ in range(levels - 1):
        coarse = scipy.ndimage.convolve(found[-1], FILTER, mode="mirror")[::2, ::2]
        spread = np.zeros((2 * coarse.shape[0], 2 * coarse.shape[1]))
        spread[::2, ::2] = coarse
        found[-1] = found[-1] - scipy.ndimage.convolve(spread, 4 * FILTER, mode="mirror")
        found.append(coarse)
    return found


def _descriptors(images: Tensor, kind: str, level: int, levels: int) -> Array:
    """Normalised patches [n * 128, 147], cut one by one where the seed says."""
    found: list[Array] = []
    for number, image in enumerate(images.numpy().astype(np.float64)):
        channels = np.stack([_pyramid(channel, levels)[level] for channel in image])
        _, height, width = channels.shape
        draw = Noise(SEED, ("swd", kind, height), torch.tensor([number])).uniform("corner", 128, 2)[0].numpy()
        for v, u in draw:
            # Centres from 3 to size - 4, as in the released code.
            y, x = math.floor(v * (height - 6)), math.floor(u * (width - 6))
            assert 3 <= y + 3 <= height - 4 and 3 <= x + 3 <= width - 4
            found.append(channels[:, y : y + 7, x : x + 7])
    patches = np.stack(found)
    patches -= patches.mean((0, 2, 3), keepdims=True)
    patches /= patches.std((0, 2, 3), keepdims=True)
    return patches.reshape(len(patches), 147)


def _by_definition(reals: Tensor, fakes: Tensor, levels: int) -> list[float]:
    """Of each level, times 1,000."""
    found: list[float] = []
    for level in range(levels):
        height = reals.shape[-2] >> level
        a, b = _descriptors(fakes, "pictures", level, levels), _descriptors(reals, "reference", level, levels)
        drawn = Noise(SEED, ("swd", height), torch.arange(512)).normal("direction", 147).double().numpy()
        distances = []
        for direction in drawn:
            unit = direction / np.sqrt((direction**2).sum())
            distances.append(scipy.stats.wasserstein_distance(a @ unit, b @ unit))
        found.append(1000 * float(np.mean(distances)))
    return found


def _measure(reals: Tensor, folder: Path, batch: int = 10, ranks: Ranks = Alone()) -> SlicedWasserstein:
    def own_pictures(resolution: int) -> list[Pictures]:
        assert resolution == reals.shape[-2]
        return _own(reals, batch, ranks)

    _, channels, height, width = reals.shape
    bench = SimpleNamespace(
        config=SimpleNamespace(samples=100, seed=SEED, cache=str(folder)),
        spec=ImageSpec(height, channels, width=width),
        device=torch.device("cpu"),
        reference=SimpleNamespace(own_pictures=own_pictures, count=len(reals)),
    )
    return SlicedWasserstein(cast(Any, bench))


def _own(images: Tensor, size: int, ranks: Ranks) -> list[Pictures]:
    """A rank's slice, in batches."""
    first, end = (len(images) * index // ranks.count for index in (ranks.index, ranks.index + 1))
    return [Pictures(images[start : min(start + size, end)], first=start) for start in range(first, end, size)]


def _taken(of: SlicedWasserstein, images: Tensor, batch: int = 10, ranks: Ranks = Alone()) -> Result:
    tally = of.start(images.shape[-2], ["swd"])
    for pictures in _own(images, batch, ranks):
        tally.add(pictures)
    tally.gather(ranks)
    return tally.results()["swd"]


@pytest.mark.parametrize("name", ["earth", "portrait"])
def test_a_laplacian_pyramid_is_that_of_scipys_convolutions(name: str) -> None:
    images = crops(name, 2, 64, width=96)
    found = laplacian_pyramid(images)
    assert [level.shape[-2:] for level in found] == [(64, 96), (32, 48), (16, 24)]
    for number, image in enumerate(images.numpy().astype(np.float64)):
        for channel, values in enumerate(image):
            for level, wanted in zip(found, _pyramid(values, 3), strict=True):
                np.testing.assert_allclose(level[number, channel], wanted, atol=1e-4)  # of 255
    alone = laplacian_pyramid(images[1:])
    assert all(torch.equal(level[1:], one) for level, one in zip(found, alone, strict=True))


@pytest.mark.parametrize(("reals", "fakes"), [("earth", "portrait"), ("portrait", "portrait")])
def test_it_is_its_definition(tmp_path: Path, reals: str, fakes: str) -> None:
    """Also of unlike counts, where the definition is the integral over the difference of quantiles."""
    real, fake = crops(reals, 6, 32, seed=1), crops(fakes, 4, 32, seed=2)
    for images in (fake, crops(fakes, 6, 32, seed=3)):
        found = _taken(_measure(real, tmp_path), images)
        levels = _by_definition(real, images, 2)
        assert found.parts is not None and list(found.parts) == ["32", "16"]
        assert list(found.parts.values()) == pytest.approx(levels, rel=1e-5)
        assert found.value == pytest.approx(np.mean(levels), rel=1e-5)


def test_equal_sets_lie_together_and_others_apart(tmp_path: Path) -> None:
    """Places of patches are drawn for each side, so that the distance of equal sets is small and not 0."""
    earth = crops("earth", 40, 32, seed=1)
    of = _measure(earth, tmp_path)
    same, alike = _taken(of, earth).value, _taken(of, crops("earth", 40, 32, seed=2)).value
    blurred = torch.nn.functional.avg_pool2d(earth.float(), 3, 1, 1).round().byte()
    apart, soft = (_taken(of, images).value for images in (crops("portrait", 40, 32), blurred))
    assert 0 < same < alike < apart and 2 * same < soft, (same, alike, apart, soft)
    # One set of patches against itself.
    tally = of.start(32, ["swd"])
    tally._own = of.reference(32)  # type: ignore[attr-defined]
    tally.gather(Alone())
    assert tally.results()["swd"].value == 0.0


def test_neither_batches_nor_ranks_move_it(tmp_path: Path) -> None:
    real, fake = crops("earth", 10, 32, seed=1), crops("earth", 21, 32, seed=2)
    alone = _taken(_measure(real, tmp_path), fake)
    for batch in (1, 7, 64):
        assert _taken(_measure(real, tmp_path, batch=batch), fake, batch).value == pytest.approx(alone.value, rel=1e-9)
    for count in (2, 4):
        for found in on_ranks(count, lambda ranks: _taken(_measure(real, tmp_path, 7, ranks), fake, 8, ranks)):
            assert found.value == pytest.approx(alone.value, rel=1e-7)  # a product of matrices sums in another order
            assert found.parts is not None and list(found.parts) == ["32", "16"]
    few = crops("earth", 2, 32)
    # Two have none.
    [*some] = on_ranks(4, lambda ranks: _taken(_measure(real, tmp_path, ranks=ranks), few, 8, ranks).value)
    assert some == pytest.approx([_taken(_measure(real, tmp_path), few).value] * 4, rel=1e-7)


def test_the_projections_of_one_pass_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = crops("earth", 10, 16, seed=1), crops("earth", 10, 16, seed=2)
    whole = _taken(_measure(real, tmp_path), fake).value
    monkeypatch.setattr("advgen.metrics.swd._PROJECTIONS", 100 * 1280)
    monkeypatch.setattr("advgen.metrics.patches._BLOCK", 300)
    assert _taken(_measure(real, tmp_path), fake).value == pytest.approx(whole, rel=1e-7)


def test_grey_counts_as_three_channels_and_flat_channels_as_nothing(tmp_path: Path) -> None:
    grey, other = crops("earth", 4, 16)[:, :1], crops("portrait", 4, 16)[:, :1]
    coloured = _taken(_measure(grey.expand(-1, 3, -1, -1), tmp_path), other.expand(-1, 3, -1, -1)).value
    assert _taken(_measure(grey, tmp_path), other).value == coloured > 0
    assert _taken(_measure(torch.zeros(4, 3, 16, 16).byte(), tmp_path), torch.zeros(4, 3, 16, 16).byte()).value == 0


def test_samples_of_unlike_counts_have_the_distance_of_scipy() -> None:
    draw = np.random.default_rng(0)
    for n, m in ((5, 5), (7, 3), (4, 12), (1, 9)):
        a, b = np.sort(draw.standard_normal((3, n))), np.sort(draw.standard_normal((3, m)) + 0.3)
        wanted = [scipy.stats.wasserstein_distance(*rows) for rows in zip(a, b, strict=True)]
        np.testing.assert_allclose(wasserstein(torch.from_numpy(a), torch.from_numpy(b)), wanted, rtol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(15, 64), (64, 8)])
def test_small_images_are_refused_with_the_least_size(tmp_path: Path, height: int, width: int) -> None:
    with pytest.raises(UserError, match=rf"swd: images of {height}x{width} .* 16 pixels a side are the least"):
        _measure(torch.zeros(1, 3, height, width), tmp_path)


def test_levels_are_halved_only_where_that_is_even() -> None:
    assert sizes(64, 64) == [(64, 64), (32, 32), (16, 16)]
    assert sizes(17, 31) == [(17, 31)]
    assert sizes(48, 100) == [(48, 100), (24, 50)]
    with pytest.raises(UserError, match="a level of 35x35 pixels cannot be halved"):
        sizes(70, 70)


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"patches for swd could not be written .*evaluation\.cache"):
        Patches(tmp_path / "file" / "cache")
    with pytest.raises(UserError, match=r"No space left .*evaluation\.cache"):
        patches = Patches(tmp_path)
        with open("/dev/full", "wb", buffering=0) as full:
            patches._file = full  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
            patches.add(torch.zeros(3, 147))
