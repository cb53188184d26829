"""The table of metrics, and a whole metric from images to figure."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from advgen.errors import UserError
from advgen.metrics import METRICS, MetricFiles, lite0, metric


def test_the_names_of_the_table_are_those_of_its_entries():
    assert set(METRICS) == {"fd_lite0", "fid"}
    assert all(metric(name) is spec and spec.name == name and spec.describe for name, spec in METRICS.items())


@pytest.mark.parametrize(
    ("given", "nearest"), [("fd_lite", "fd_lite0"), ("FID", None), ("fid50k", "fid"), ("kd", None)]
)
def test_an_unknown_name_gets_the_nearest_known_one(given: str, nearest: str | None):
    with pytest.raises(UserError, match=f"unknown metric '{given}'") as caught:
        metric(given)
    assert "Known metrics: fd_lite0, fid" in str(caught.value)
    if nearest:
        assert f"did you mean '{nearest}'" in str(caught.value)


def test_the_table_imports_no_torch():
    code = "import sys, advgen.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fid_without_its_file_says_what_it_needs():
    with pytest.raises(UserError, match=r"evaluation\.inception_weights"):
        METRICS["fid"].load_extractor(MetricFiles())


@pytest.mark.skipif(not all(map(lite0.find_spec, lite0._PACKAGES)), reason="the extra advgen[demo] is not installed")
def test_fd_lite0_grows_with_the_damage_to_images():
    """Coloured discs against discs, and against discs under more and more noise."""
    from advgen.metrics.statistics import FeatureStatistics

    generator = torch.Generator().manual_seed(0)
    extractor = METRICS["fd_lite0"].load_extractor(MetricFiles())

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
    floor, some, more = (METRICS["fd_lite0"].distance(real, discs(100, noise)) for noise in (0.0, 8.0, 32.0))
    assert 0 < floor < some < more
