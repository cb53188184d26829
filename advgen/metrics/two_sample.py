"""Can generated images be told from real ones, and how far apart are they: ``c2st`` and ``ratio_kl``.

Both come of one log-ratio that :func:`advgen.ratio.fit_ratio` fits to features of generated (p) and of real images (q).
``c2st`` is the accuracy of the classifier two-sample test (Lopez-Paz & Oquab 2017, "Revisiting Classifier Two-Sample
Tests", section 3): 0.5 where nothing tells them apart, 1 where every image is known for what it is. It is cross-fitted:
each image is judged by a classifier that never saw it. ``ratio_kl`` is KL(generated || real) in nats.

Features are first brought down to their principal components over both sets, each set weighing the same: which is which
does not enter, so the test stays one. What lies outside of the components is not seen, so that either figure is one of
the images as these components show them; and KL of them is at most that of the features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from advgen.errors import UserError
from advgen.metrics import MetricFiles
from advgen.metrics.features import Extractor
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks
from advgen.metrics.rows import Rows
from advgen.ratio import FittedRatio, fit_ratio

COMPONENTS = 16
"""Principal components that are kept."""
FOLDS = 5
LEAST = 100
"""Images of either kind."""
_TOO_FEW = (
    f"c2st, ratio_kl: need at least {LEAST} images of each kind. Raise evaluation.samples, "
    "evaluation.reference_samples and evaluation.held_out_samples, or shard more images."
)


class TwoSample:
    """The two figures, of all pictures together."""

    def __init__(self, bench: Bench, load: Callable[[MetricFiles], Extractor]) -> None:
        self.samples, self.seed = bench.config.samples, bench.config.seed
        self.extractor, self.reference, self.device = bench.extractor(load), bench.reference, bench.device
        if min(self.samples, self.reference.count) < LEAST:
            raise UserError(_TOO_FEW)

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """The extractor's identity, the projection, and the estimator."""
        components = min(COMPONENTS, self.extractor.dimensions)
        projection = {"kind": "principal components of both sets", "components": components}
        return {
            "extractor": dict(self.extractor.identity),
            "projection": projection,
            "estimator": {"name": "advgen.ratio.fit_ratio", "folds": FOLDS},
        }

    def start(self, resolution: int, names: Collection[str]) -> _Tally:
        """Nothing seen yet."""
        return _Tally(self, resolution, names)


class _Tally:
    def __init__(self, measure: TwoSample, resolution: int, names: Collection[str]) -> None:
        self._measure, self._resolution, self._names = measure, resolution, names
        self._rows = Rows(measure.extractor.dimensions, measure.device, labelled=False)

    def add(self, pictures: Pictures) -> None:
        self._rows.add(pictures.features(self._measure.extractor))

    def gather(self, ranks: Ranks) -> None:
        self._rows.gather(ranks)

    def results(self) -> dict[str, Result]:
        measure, fakes = self._measure, self._rows.taken()[0]
        reals, _ = measure.reference.features(measure.extractor, self._resolution)
        if min(len(fakes), len(reals)) < LEAST:
            raise UserError(_TOO_FEW)
        found = figures(fit_ratio(*principal(fakes, reals), seed=measure.seed, folds=FOLDS))
        return {name: found[name] for name in self._names}


def figures(fitted: FittedRatio) -> dict[str, Result]:
    """Both, by name; KL has no standard error where the sets hardly overlap, as its figure is a mere "far" then."""
    told, divergence = fitted.accuracy, fitted.kl
    return {
        "c2st": Result(told.value, standard_error=told.standard_error),
        "ratio_kl": Result(divergence.value, standard_error=None if fitted.disjoint else divergence.standard_error),
    }


def principal(a: Tensor, b: Tensor, components: int = COMPONENTS) -> tuple[Tensor, Tensor]:
    """Scores of both sets on the principal components of their equal mixture.

    Args:
        a, b: float32 [n, d] and [m, d].
        components: how many at most.

    Returns:
        float64 [n, k] and [m, k], relative to the mixture's mean, k the lesser of ``components`` and d.
    """
    centre = (a.mean(0, dtype=torch.float64) + b.mean(0, dtype=torch.float64)) / 2
    covariance = torch.zeros(len(centre), len(centre), dtype=torch.float64, device=a.device)
    for rows in (a, b):
        for part in rows.split(4096):
            away = part.double() - centre
            covariance += away.T @ away / (2 * len(rows))
    basis = torch.linalg.eigh(covariance).eigenvectors[:, -components:]
    return (a.double() - centre) @ basis, (b.double() - centre) @ basis
