"""c2st and ratio_kl of pixels from known densities, and the way of a standard error into records and onto pages."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch

from advgen.errors import UserError
from advgen.game import ImageSpec
from advgen.metrics import MetricFiles
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Alone
from advgen.metrics.reals import Reals
from advgen.metrics.records import Records, read_records
from advgen.metrics.two_sample import TwoSample, principal
from pipelines.telling import tell


class Pixels:
    identity: ClassVar[dict[str, Any]] = {"name": "pixels"}
    dimensions = 3
    images = 0  # that it has seen

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        with torch.inference_mode():  # as real extractors do
            return images.flatten(1).float()


def pixels(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    """Images of one pixel: three channels of N(128, 20²), the first shifted by so many standard deviations."""
    values = 128 + 20 * np.random.default_rng(seed).standard_normal((count, 3, 1, 1))
    values[:, 0] += 20 * shift
    return torch.from_numpy(values.round().clip(0, 255).astype(np.uint8))


def batches(images: torch.Tensor) -> list[Pictures]:
    return [Pictures(part) for part in images.split(300)]


class Stream:
    """Images as a stream of them."""

    digest = "pixels"

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images.numpy()

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, indices: Any, level: int | None = None) -> Any:
        return SimpleNamespace(images=self.images[indices], labels=None, label_map=None)


def measure(reals: torch.Tensor, samples: int) -> tuple[TwoSample, Pixels]:
    """The measure, and the extractor that it takes features by."""
    config, extractor, device = EvaluationConfig(samples=samples), Pixels(), torch.device("cpu")
    reference = Reals(cast(Any, Stream(reals)), len(reals), config, device, labelled=False, ranks=Alone())
    bench = Bench(config, MetricFiles(), ImageSpec(1), reference, None)
    return TwoSample(bench, cast(Any, lambda _: extractor)), extractor


def taken(of: TwoSample, fakes: torch.Tensor, names: tuple[str, ...] = ("c2st", "ratio_kl")) -> dict[str, Result]:
    tally = of.start(1, names)
    for pictures in batches(fakes):
        tally.add(pictures)
    return dict(tally.results())


def test_the_figures_are_those_of_the_densities() -> None:
    """A shift by one standard deviation: the best accuracy is Phi(1/2), KL 1/2."""
    of, extractor = measure(pixels(3000, 1), 2000)
    found = taken(of, pixels(2000, 2, shift=1.0))
    for name, exact in (("c2st", 0.6915), ("ratio_kl", 0.5)):
        error = found[name].standard_error
        assert error is not None and abs(found[name].value - exact) < 4 * error < 0.2
    assert found["c2st"].per_class is None
    alike = taken(of, pixels(2000, 3))
    error = alike["c2st"].standard_error
    assert error is not None and abs(alike["c2st"].value - 0.5) < 4 * error
    assert abs(alike["ratio_kl"].value) < 0.05
    assert extractor.images == 3000 + 2000 + 2000  # the reals are kept
    assert set(taken(of, pixels(2000, 3), ("c2st",))) == {"c2st"}


def test_where_nothing_overlaps_kl_has_no_standard_error() -> None:
    found = taken(measure(pixels(200, 1) // 4, 200)[0], pixels(200, 2))
    assert found["c2st"].value == 1.0 and found["c2st"].standard_error == 0.0
    assert found["ratio_kl"].value > 3 and found["ratio_kl"].standard_error is None


def test_the_protocol_names_projection_and_estimator() -> None:
    protocol = measure(pixels(100, 1), 100)[0].protocol("c2st", 1)
    assert json.loads(json.dumps(protocol)) == {
        "extractor": {"name": "pixels"},
        "projection": {"kind": "principal components of both sets", "components": 3},
        "estimator": {"name": "advgen.ratio.fit_ratio", "folds": 5},
    }


def test_too_few_images_are_refused() -> None:
    for reals, samples in ((99, 200), (200, 99)):
        with pytest.raises(UserError, match=r"c2st, ratio_kl: need at least 100 .*evaluation\.samples"):
            measure(pixels(reals, 1), samples)
    with pytest.raises(UserError, match="need at least 100"):
        taken(measure(pixels(200, 1), 200)[0], pixels(50, 2))  # the floor of a small held-out set


def test_components_are_those_of_the_equal_mixture() -> None:
    """Against numpy's singular values of the sets stacked with weights, whose signs are free."""
    draw = np.random.default_rng(0)
    mix = draw.standard_normal((6, 6))
    a, b = draw.standard_normal((50, 6)) @ mix, draw.standard_normal((80, 6)) @ mix + 2
    found = principal(torch.from_numpy(a).float(), torch.from_numpy(b).float(), 3)
    a, b = (each.astype(np.float32).astype(np.float64) for each in (a, b))
    centre = (a.mean(0) + b.mean(0)) / 2
    stacked = np.concatenate([(a - centre) / np.sqrt(2 * len(a)), (b - centre) / np.sqrt(2 * len(b))])
    basis = np.linalg.svd(stacked, full_matrices=False)[2][:3]
    for scores, rows in zip(found, (a, b), strict=True):
        wanted = (rows - centre) @ basis.T
        np.testing.assert_allclose(np.abs(scores.numpy()[:, ::-1]), np.abs(wanted), atol=1e-5)
    assert principal(torch.zeros(5, 2), torch.ones(5, 2))[0].shape == (5, 2)


def test_a_standard_error_stands_in_the_record_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    old = {"name": "fd_lite0", "nimg": 0, "value": 3.0}
    path.write_text(json.dumps(old) + "\n")
    records = Records(path)
    assert records.find({"name": "fd_lite0", "nimg": 0}) == old
    records.add({"name": "c2st", "nimg": 0}, Result(0.75, standard_error=0.01))
    records.add({"name": "recall", "nimg": 0}, Result(0.5))
    assert read_records(path) == [
        old,
        {"name": "c2st", "nimg": 0, "value": 0.75, "standard_error": 0.01},
        {"name": "recall", "nimg": 0, "value": 0.5},
    ]


def test_evaluate_tells_it_beside_the_figure(capsys: pytest.CaptureFixture) -> None:
    record = {"moment": "end", "phase": "a", "nimg": 1000, "name": "c2st", "value": 0.75}
    tell({**record, "standard_error": 0.0125}, False)
    tell(record, True)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("0.7500 ± 0.0125") and second.endswith("0.7500 (known)")
