"""MS-SSIM against its definition in float64 numpy, window by window, on real images; and the pairs it is taken of."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from advgen.errors import UserError
from advgen.game import ImageSpec
from advgen.metrics.measures import Result
from advgen.metrics.ms_ssim import MsSsim, ms_ssim
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Alone, Ranks
from tests.unit.metrics.photographs import crops
from tests.unit.metrics.threads import on_ranks

Array = NDArray[np.float64]


def _ssim(a: Array, b: Array) -> tuple[float, float]:
    """Mean SSIM, and mean contrast-structure, of one channel; Wang et al. 2004, equations 14 to 16 and 13."""
    size = min(11, *a.shape)
    deviation = size * 1.5 / 11
    axis = [k - (size - 1) / 2 for k in range(size)]
    window = np.array([[math.exp(-(y * y + x * x) / (2 * deviation**2)) for x in axis] for y in axis])
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    whole, contrasts = [], []
    for y in range(a.shape[0] - size + 1):
        for x in range(a.shape[1] - size + 1):
            p, q = a[y : y + size, x : x + size], b[y : y + size, x : x + size]
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            variance_p, variance_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
            covariance = (window * (p - mean_p) * (q - mean_q)).sum()
            contrast = (2 * covariance + c2) / (variance_p + variance_q + c2)
            contrasts.append(contrast)
            whole.append(contrast * (2 * mean_p * mean_q + c1) / (mean_p**2 + mean_q**2 + c1))
    return float(np.mean(whole)), float(np.mean(contrasts))


def _by_definition(a: Tensor, b: Tensor) -> float:
    """Of one pair [c, h, w]; Wang et al. 2003, equation 7, terms averaged over pixels and channels."""
    one, other = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            one, other = (
                (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4 for x in (one, other)
            )
        terms = np.mean([_ssim(*channels) for channels in zip(one, other, strict=True)], axis=0)
        product *= max(0.0, terms[0 if scale == 4 else 1]) ** weight
    return product


@pytest.mark.parametrize(("name", "size", "width"), [("earth", 48, 48), ("portrait", 32, 48), ("portrait", 16, 16)])
def test_it_is_its_definition(name: str, size: int, width: int) -> None:
    """Windows of 11 pixels at the first scales, of 8, 4 ... at those that are smaller."""
    one, other = crops(name, 2, size, 1, width), crops(name, 2, size, 2, width)
    noise = torch.randint(-20, 21, one.shape, generator=torch.Generator().manual_seed(0))
    near = (one.int() + noise).clamp(0, 255).byte()
    for a, b in ((one, other), (one, near)):
        wanted = [_by_definition(*pair) for pair in zip(a, b, strict=True)]
        assert ms_ssim(a, b).tolist() == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    assert float(ms_ssim(one, near).min()) > float(ms_ssim(one, other).max())
    torch.testing.assert_close(ms_ssim(one, one), torch.ones(2, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.slow
def test_with_the_whole_window_at_each_scale() -> None:
    one, other = crops("earth", 1, 176, 1), crops("portrait", 1, 176, 2)
    near = (one // 2 + 40).byte()
    for b in (other, near):
        assert ms_ssim(one, b).tolist() == pytest.approx([_by_definition(one[0], b[0])], rel=1e-9, abs=1e-12)


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = crops("earth", 5, 32, 1), crops("earth", 5, 32, 2)
    whole = ms_ssim(one, other)
    monkeypatch.setattr("advgen.metrics.ms_ssim._VALUES", 2 * 3 * 32 * 32)
    torch.testing.assert_close(ms_ssim(one, other), whole, rtol=1e-13, atol=0)


def _measure(size: int, classes: int = 0, width: int | None = None) -> MsSsim:
    bench = SimpleNamespace(
        config=SimpleNamespace(samples=10),
        spec=ImageSpec(size, 3, classes=classes, width=width),
        device=torch.device("cpu"),
    )
    return MsSsim(cast(Any, bench))


def _taken(images: Tensor, labels: Tensor | None, classes: int, batch: int = 10, ranks: Ranks = Alone()) -> Result:
    tally = _measure(images.shape[-2], classes).start(images.shape[-2], ["ms_ssim"])
    first, end = (len(images) * index // ranks.count for index in (ranks.index, ranks.index + 1))
    for start in range(first, end, batch):
        rows = slice(start, min(start + batch, end))
        tally.add(Pictures(images[rows], None if labels is None else labels[rows]))
    tally.gather(ranks)
    return tally.results()["ms_ssim"]


def test_pairs_are_neighbours_of_a_class() -> None:
    images, labels = crops("earth", 9, 16), torch.tensor([0, 1, 0, 0, 1, 3, 1, 0, 0])
    alone = _taken(images, None, 0)
    assert alone.value == pytest.approx(ms_ssim(images[:-1], images[1:]).mean().item(), rel=1e-12)
    assert alone.per_class is None
    within = _taken(images, labels, 4)
    first = ms_ssim(images[[0, 2, 3, 7]], images[[2, 3, 7, 8]])
    second = ms_ssim(images[[1, 4]], images[[4, 6]])
    assert within.value == pytest.approx(torch.cat((first, second)).mean().item(), rel=1e-12)
    assert within.per_class == (
        pytest.approx(first.mean().item()),
        pytest.approx(second.mean().item()),
        None,
        None,
    )


@pytest.mark.parametrize("classes", [0, 3])
def test_neither_batches_nor_ranks_move_it(classes: int) -> None:
    images = crops("portrait", 21, 16)
    labels = torch.from_numpy(np.random.default_rng(0).integers(classes, size=21)) if classes else None
    alone = _taken(images, labels, classes)
    for batch in (1, 7, 64):
        assert _taken(images, labels, classes, batch).value == pytest.approx(alone.value, rel=1e-12)
    for count in (2, 4):
        for found in on_ranks(count, lambda ranks: _taken(images, labels, classes, 3, ranks)):
            assert found.value == pytest.approx(alone.value, rel=1e-12)
            assert found.per_class is None or found.per_class == pytest.approx(alone.per_class, rel=1e-12)
    few = on_ranks(4, lambda ranks: _taken(images[:3], None, 0, 3, ranks).value)  # one has no picture
    assert few == pytest.approx([_taken(images[:3], None, 0).value] * 4, rel=1e-12)


def test_collapse_shows() -> None:
    images = crops("earth", 12, 32)
    nudged = images[:1] + torch.randint(
        0, 3, images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    assert _taken(nudged, None, 0).value > 0.95 > 0.5 > _taken(images, None, 0).value


def test_what_has_no_pairs_or_scales_is_refused() -> None:
    images = crops("earth", 2, 16)
    with pytest.raises(UserError, match=r"ms_ssim: no two pictures are of one class"):
        _taken(images, torch.tensor([0, 1]), 2)
    for size, width in ((8, None), (40, None), (32, 24)):
        with pytest.raises(UserError, match=r"ms_ssim: images of .* multiples of 16, and 16 pixels are the least"):
            _measure(size, width=width)
