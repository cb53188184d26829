"""Protocols that the field knows by name: which metrics, of how many generated and real images.

The names are those of StyleGAN's code (Karras et al. 2019 and later) and of ProGAN's paper (Karras et al. 2018). What a
name fixes are the counts; features, weights and the resize filter stand in each record. A name stands in
``evaluation.metrics`` beside metrics. Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from advgen.errors import UserError
from advgen.metrics import METRICS, MetricSpec, metric


@dataclass(frozen=True)
class Counts:
    """How many images of each kind a figure is of, where its protocol says it.

    Attributes:
        samples: generated images, and held-out ones for the floor.
        reference: training images on the other side; None for all there are.
    """

    samples: int
    reference: int | None


@dataclass(frozen=True)
class NamedProtocol:
    """A protocol.

    Attributes:
        name: as it stands in recipes.
        figures: metrics by the names of their records.
        counts: of images.
    """

    name: str
    figures: Mapping[str, str]
    counts: Counts


@dataclass(frozen=True)
class Asked:
    """A figure that is asked for.

    Attributes:
        name: of its records.
        metric: that gives it.
        counts: those of a protocol; None for a metric by its own name, which takes the evaluation's settings.
        protocol: the protocol's name, if it has one.
    """

    name: str
    metric: MetricSpec
    counts: Counts | None = None
    protocol: str | None = None


def _one(name: str, metric: str, samples: int, reference: int | None) -> NamedProtocol:
    return NamedProtocol(name, {name: metric}, Counts(samples, reference))


def _each(name: str, metrics: Iterable[str], samples: int, reference: int | None) -> NamedProtocol:
    return NamedProtocol(name, {f"{name}_{metric}": metric for metric in metrics}, Counts(samples, reference))


_TABLE = (
    _one("fid50k", "fid", 50_000, 50_000),
    _one("fid50k_full", "fid", 50_000, None),
    _one("kid50k", "kid", 50_000, 50_000),
    _one("kid50k_full", "kid", 50_000, None),
    _one("is50k", "inception_score", 50_000, None),
    _each("pr50k3", ("precision", "recall"), 50_000, 50_000),
    _one("swd16k", "swd", 16_384, 16_384),
    _one("ms_ssim10k", "ms_ssim", 10_001, None),
    _each("dc50k5", ("density", "coverage"), 50_000, 50_000),
)

PROTOCOLS: dict[str, NamedProtocol] = {protocol.name: protocol for protocol in _TABLE}
"""Every protocol, by name."""

_FIGURES = {figure: METRICS[metric] for each in _TABLE for figure, metric in each.figures.items()}


def asked(names: Iterable[str]) -> list[Asked]:
    """The figures of metrics and protocols, each once.

    Raises:
        UserError: a name is neither's; names the nearest one and all others.
    """
    found: list[Asked] = []
    for name in dict.fromkeys(names):
        if name in PROTOCOLS:
            figures, counts = PROTOCOLS[name].figures, PROTOCOLS[name].counts
            found += [Asked(figure, METRICS[of], counts, name) for figure, of in figures.items()]
            continue
        try:
            found.append(Asked(name, metric(name)))
        except UserError as error:
            raise UserError(f"{error} Known protocols: {', '.join(PROTOCOLS)}.") from None
    return found


def metric_of(record: str) -> MetricSpec | None:
    """The metric that records of this name are of, whether by itself or by a protocol; None for a name not known."""
    return METRICS.get(record) or _FIGURES.get(record)
