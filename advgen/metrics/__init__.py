"""Metrics of generated images and points, as a table: a metric is one file in this folder and one line here.

Importing this module imports neither torch nor a network; the line's functions import their file when they are called.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from advgen.errors import UserError

if TYPE_CHECKING:
    from advgen.metrics.features import Extractor
    from advgen.metrics.inception import InceptionExtractor
    from advgen.metrics.measures import Bench, Measure


@dataclass(frozen=True, kw_only=True)
class MetricFiles:
    """What metrics need from outside: files that the recipe names, and settings of their features."""

    inception_weights: Path | None = None
    """FID's Inception weights (``evaluation.inception_weights``); needed by metrics on Inception features."""

    reference_statistics: Path | None = None
    """``.npz`` of a mean and a covariance of Inception features (``evaluation.reference_statistics``)."""

    dinov2: Path | None = None
    """TorchScript of the network of ``fd_dinov2`` (``evaluation.dinov2``)."""

    segmenter: Path | None = None
    """TorchScript of a segmenter (``evaluation.segmenter``); None: one is trained on the real images."""

    classifier: Path | None = None
    """TorchScript of a classifier (``evaluation.classifier``); None: one is trained on the real images."""

    lpips: Path | None = None
    """TorchScript of LPIPS (``evaluation.lpips``); needed by ``lpips_diversity`` and ``ppl`` alone."""

    ignore_label: int | None = None
    """The id in label maps that stands for no class (``data.ignore_label``)."""

    lite0_size: int = 64
    """Pixels a side to which images are resized for EfficientNet-Lite0."""


@dataclass(frozen=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: as it stands in recipes and in ``metrics.jsonl``.
        describe: one line for a person, with unit.
        better: which figures are the good ones.
        measure: makes what takes it (:mod:`advgen.metrics.measures`), once for all metrics that name the same function;
            raises UserError where a file or package is missing, or where the metric does not apply to the data.
        floor: whether real images can be measured alike.
        of: which pictures it is shown: generated ones; held-out images that went through the game's encoder and
            decoder; held-out images with the classes that the game's networks, or a probe, take them for.
        data: what it is taken of; one of points needs no feature network.
        walks: whether it looks along ways between latents, which the game then has to draw.
        smallest: height in pixels; pictures of the first phases of a game that grows, if smaller, are passed over.
    """

    name: str
    describe: str
    better: Literal["lower", "higher"]
    measure: Callable[[Bench], Measure]
    floor: bool = True
    of: Literal["samples", "reconstructions", "answers", "probed"] = "samples"
    data: Literal["images", "points"] = "images"
    walks: bool = False
    smallest: int = 1


Load = Callable[[MetricFiles], "Extractor"]


def _lite0(given: MetricFiles) -> Extractor:
    from advgen.metrics.lite0 import load_lite0

    return load_lite0(given.lite0_size)


def _inception(given: MetricFiles) -> InceptionExtractor:
    from advgen.metrics.inception import load_inception

    return load_inception(given.inception_weights)


def _dinov2(given: MetricFiles) -> Extractor:
    from advgen.metrics.dinov2 import load_dinov2

    return load_dinov2(given.dinov2)


# Measures that are taken of one feature network or of another; which one is bound below.
def _frechet(bench: Bench, load: Load, published: bool = False) -> Measure:
    from advgen.metrics.frechet import Frechet

    return Frechet(bench, load, bench.files.reference_statistics if published else None)


def _infinity(bench: Bench, load: Load, published: bool = False) -> Measure:
    from advgen.metrics.infinity import Infinity

    return Infinity(bench, load, bench.files.reference_statistics if published else None)


def _kernel(bench: Bench, load: Load) -> Measure:
    from advgen.metrics.kernel import Kernel

    return Kernel(bench, load)


def _neighbours(bench: Bench, load: Load) -> Measure:
    from advgen.metrics.neighbours import Neighbours

    return Neighbours(bench, load)


def _inception_score(bench: Bench) -> Measure:
    from advgen.metrics.inception_score import InceptionScore

    return InceptionScore(bench, _inception)


def _sliced_wasserstein(bench: Bench) -> Measure:
    from advgen.metrics.swd import SlicedWasserstein

    return SlicedWasserstein(bench)


def _ms_ssim(bench: Bench) -> Measure:
    from advgen.metrics.ms_ssim import MsSsim

    return MsSsim(bench)


def _lpips_diversity(bench: Bench) -> Measure:
    from advgen.metrics.lpips import LpipsDiversity

    return LpipsDiversity(bench)


def _path_length(bench: Bench) -> Measure:
    from advgen.metrics.lpips import load_lpips
    from advgen.metrics.path_length import PathLength

    return PathLength(bench, load_lpips(bench.files.lpips, "ppl"))


def _path_length_lite0(bench: Bench) -> Measure:
    from advgen.metrics.diversity import Lite0Distance
    from advgen.metrics.path_length import PathLength

    return PathLength(bench, Lite0Distance())


def _two_sample(bench: Bench) -> Measure:
    from advgen.metrics.two_sample import TwoSample

    return TwoSample(bench, _lite0)


def _agreement(bench: Bench) -> Measure:
    from advgen.metrics.conditions import agreement

    return agreement(bench)


def _recognition(bench: Bench) -> Measure:
    from advgen.metrics.conditions import recognition

    return recognition(bench)


def _answers(bench: Bench) -> Measure:
    from advgen.metrics.answers import Answers

    return Answers(bench, "classification_error")


def _probe(bench: Bench) -> Measure:
    from advgen.metrics.answers import Answers

    return Answers(bench, "probe_error", {"probe": "L2-SVM", "probe_labels": bench.config.probe_labels})


def _styles(bench: Bench) -> Measure:
    from advgen.metrics.conditions import Styles

    return Styles(bench)


def _modes(bench: Bench) -> Measure:
    from advgen.metrics.modes import ModesOfPoints

    return ModesOfPoints(bench)


_fd_lite0, _fd_dinov2 = partial(_frechet, load=_lite0), partial(_frechet, load=_dinov2)
_fid, _fid_infinity = (partial(made, load=_inception, published=True) for made in (_frechet, _infinity))
_fd_lite0_infinity = partial(_infinity, load=_lite0)
_kid, _kd_lite0 = partial(_kernel, load=_inception), partial(_kernel, load=_lite0)
_near_lite0, _near_inception = partial(_neighbours, load=_lite0), partial(_neighbours, load=_inception)

_TABLE = (
    MetricSpec("fd_lite0", "Frechet distance, EfficientNet-Lite0 features; not FID", "lower", _fd_lite0),
    MetricSpec("fid", "Frechet Inception distance (Heusel et al. 2017)", "lower", _fid),
    MetricSpec("fd_dinov2", "Frechet distance, DINOv2 features (Stein et al. 2023)", "lower", _fd_dinov2),
    MetricSpec("fid_infinity", "fid of endless fakes (Chong & Forsyth 2020)", "lower", _fid_infinity),
    MetricSpec("fd_lite0_infinity", "fd_lite0 of endless fakes (Chong & Forsyth 2020)", "lower", _fd_lite0_infinity),
    MetricSpec("kid", "kernel Inception distance (Binkowski et al. 2018)", "lower", _kid),
    MetricSpec("kd_lite0", "kernel distance, EfficientNet-Lite0 features; not KID", "lower", _kd_lite0),
    MetricSpec("inception_score", "Inception Score (Salimans et al. 2016)", "higher", _inception_score),
    MetricSpec(
        "swd",
        "sliced Wasserstein distance on Laplacian pyramids, x 1000 (Karras et al. 2018); from 16 pixels on",
        "lower",
        _sliced_wasserstein,
        smallest=16,
    ),
    MetricSpec("precision", "share of fakes among the reals (Kynkaanniemi et al. 2019)", "higher", _near_lite0),
    MetricSpec("recall", "share of reals among the fakes (Kynkaanniemi et al. 2019)", "higher", _near_lite0),
    MetricSpec("density", "reals around a fake, 1 for reals (Naeem et al. 2020)", "higher", _near_lite0),
    MetricSpec("coverage", "share of reals with a fake beside them (Naeem et al. 2020)", "higher", _near_lite0),
    MetricSpec("precision_inception", "precision on Inception features", "higher", _near_inception),
    MetricSpec("recall_inception", "recall on Inception features", "higher", _near_inception),
    MetricSpec("density_inception", "density on Inception features", "higher", _near_inception),
    MetricSpec("coverage_inception", "coverage on Inception features", "higher", _near_inception),
    MetricSpec(
        "c2st", "accuracy of telling fakes from reals, at best 0.5 (Lopez-Paz & Oquab 2017)", "lower", _two_sample
    ),
    MetricSpec("ratio_kl", "KL(fakes || reals) of features by a fitted density ratio, nats", "lower", _two_sample),
    MetricSpec("miou", "mean IoU of a segmenter's labels with the label maps painted from", "higher", _agreement),
    MetricSpec("pixel_accuracy", "share of pixels that a segmenter sees as the map says", "higher", _agreement),
    MetricSpec("recognised", "share of images that a classifier takes for their class", "higher", _recognition),
    MetricSpec(
        "reconstruction_recognised",
        "share of held-out images that a classifier takes for their class after encoding and decoding",
        "higher",
        _recognition,
        of="reconstructions",
    ),
    MetricSpec(
        "classification_error",
        "share of held-out images that the game's networks take for another class",
        "lower",
        _answers,
        floor=False,
        of="answers",
    ),
    MetricSpec(
        "probe_error",
        "share of held-out images that a linear probe of the game's features takes for another class",
        "lower",
        _probe,
        floor=False,
        of="probed",
    ),
    MetricSpec("style_diversity", "distance between pictures of one condition", "higher", _styles, floor=False),
    MetricSpec(
        "ms_ssim",
        "similarity of pairs of pictures, 1 for equal ones (Wang et al. 2003); from 16 pixels on",
        "lower",
        _ms_ssim,
        smallest=16,
    ),
    MetricSpec("lpips_diversity", "LPIPS between pairs of pictures (Zhang et al. 2018)", "higher", _lpips_diversity),
    MetricSpec(
        "ppl",
        "perceptual path length between latents, by LPIPS (Karras et al. 2019)",
        "lower",
        _path_length,
        floor=False,
        walks=True,
    ),
    MetricSpec(
        "ppl_lite0",
        "the same by EfficientNet-Lite0's layers; not PPL",
        "lower",
        _path_length_lite0,
        floor=False,
        walks=True,
    ),
    MetricSpec("modes", "modes of a set of points that are covered", "higher", _modes, data="points"),
    MetricSpec("high_quality", "share of points within three deviations of a mode", "higher", _modes, data="points"),
)

METRICS: dict[str, MetricSpec] = {spec.name: spec for spec in _TABLE}
"""Every metric, by name."""


def metric(name: str) -> MetricSpec:
    """The metric called ``name``.

    Raises:
        UserError: there is none; names the nearest one and all others.
    """
    if name in METRICS:
        return METRICS[name]
    near = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise UserError(f"unknown metric '{name}'; {hint}Known metrics: {', '.join(sorted(METRICS))}.")
