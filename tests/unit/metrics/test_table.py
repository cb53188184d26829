"""The table of metrics, and a whole metric from images to figure."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from advgen.errors import UserError
from advgen.game import ImageSpec
from advgen.metrics import METRICS, MetricFiles, lite0, metric
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.measures import Bench


def test_the_names_of_the_table_are_those_of_its_entries():
    neighbours, conditions = {"precision", "recall", "density", "coverage"}, {"miou", "pixel_accuracy", "recognised"}
    held_out, points = {"reconstruction_recognised", "classification_error", "probe_error"}, {"modes", "high_quality"}
    neighbours |= {f"{name}_inception" for name in neighbours}
    distances = {"fd_lite0", "fid", "fd_dinov2", "fid_infinity", "fd_lite0_infinity", "kid", "kd_lite0"}
    others = {"inception_score", "style_diversity", "c2st", "ratio_kl", "swd", "ms_ssim", "lpips_diversity"}
    others |= {"ppl", "ppl_lite0"}
    assert set(METRICS) == distances | others | neighbours | conditions | held_out | points
    assert {name for name, spec in METRICS.items() if spec.data == "points"} == points
    assert all(metric(name) is spec and spec.name == name and spec.describe for name, spec in METRICS.items())


@pytest.mark.parametrize(
    ("given", "nearest"), [("fd_lite", "fd_lite0"), ("FID", None), ("fid50k", "fid"), ("kd", "kid"), ("xyz", None)]
)
def test_an_unknown_name_gets_the_nearest_known_one(given: str, nearest: str | None):
    with pytest.raises(UserError, match=f"unknown metric '{given}'") as caught:
        metric(given)
    assert "Known metrics: c2st, classification_error, coverage, coverage_inception, density," in str(caught.value)
    if nearest:
        assert f"did you mean '{nearest}'" in str(caught.value)


def test_the_table_imports_no_torch():
    code = "import sys, advgen.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("fid", "inception_weights"),
        ("fid_infinity", "inception_weights"),
        ("kid", "inception_weights"),
        ("inception_score", "inception_weights"),
        ("recall_inception", "inception_weights"),
        ("fd_dinov2", "dinov2"),
    ],
)
def test_a_metric_without_its_file_says_what_it_needs(name: str, setting: str):
    with pytest.raises(UserError, match=rf"evaluation\.{setting}"):
        METRICS[name].measure(_bench())


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("miou", "data.label_map_classes"),
        ("pixel_accuracy", "data.label_map_classes"),
        ("recognised", "data.classes"),
        ("reconstruction_recognised", "data.classes"),
        ("classification_error", "data.classes"),
        ("style_diversity", "data.label_map_classes or data.classes"),
    ],
)
def test_a_metric_that_the_data_do_not_allow_is_refused_by_name(name: str, setting: str):
    with pytest.raises(UserError, match=rf"^{name}: cannot be taken of data without .* \({setting} is not set\)"):
        METRICS[name].measure(_bench(name))


def _bench(*names: str) -> Bench:
    """Of data without labels and maps; nothing is read."""
    reference = cast(Any, SimpleNamespace(device=torch.device("cpu")))
    config = EvaluationConfig(metrics=names or ("fid",))
    return Bench(config, MetricFiles(), ImageSpec(resolution=16), reference, None)


@pytest.mark.skipif(not all(map(lite0.find_spec, lite0._PACKAGES)), reason="the extra advgen[demo] is not installed")
def test_fd_lite0_grows_with_the_damage_to_images():
    """Coloured discs against discs, and against discs under more and more noise."""
    from advgen.metrics.frechet import frechet_distance
    from advgen.metrics.lite0 import load_lite0
    from advgen.metrics.statistics import FeatureStatistics

    generator = torch.Generator().manual_seed(0)
    extractor = load_lite0()

    def discs(n: int, noise: float) -> FeatureStatistics:
        axis = torch.arange(64.0)
        centre, radius = torch.randint(20, 44, (2, n, 1, 1), generator=generator)
        inside = (axis[:, None] - centre) ** 2 + (axis - centre.flip(0)) ** 2 < (radius / 2) ** 2
        colours = torch.randint(0, 256, (n, 3, 1, 1), generator=generator)
        images = torch.where(inside[:, None], colours, 255).float()
        images = images + noise * torch.randn(images.shape, generator=generator)
        statistics = FeatureStatistics(extractor.dimensions)
        statistics.add(extractor(images.round().clamp(0, 255).byte()))
        return statistics

    real = discs(100, 0.0)
    floor, some, more = (frechet_distance(real, discs(100, noise)) for noise in (0.0, 8.0, 32.0))
    assert 0 < floor < some < more
