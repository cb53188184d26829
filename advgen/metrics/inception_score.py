"""The Inception Score (Salimans et al. 2016, "Improved Techniques for Training GANs", section 4).

exp of the mean KL(p(y|x) || p(y)): high where the network is sure of each image's class and the classes vary. It looks
at no real image, so that it says nothing of them, and at ImageNet's classes. Probabilities are the softmax of all 1,008
logits of the TensorFlow graph without their bias: OpenAI's code multiplies the pooled features by the weights and
leaves the bias out, and published figures are of that; torch-fidelity calls it ``logits_unbiased``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Protocol

import torch
from torch import Tensor

from advgen.errors import UserError
from advgen.metrics import MetricFiles
from advgen.metrics.features import Extractor
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import GROUP, Ranks
from advgen.seeds import key_of, permutation

SPLITS = 10
"""As in the paper's code: the figure is the mean over so many parts of the images."""


class Classifying(Extractor, Protocol):
    """A feature network that goes on to classes."""

    def logits(self, features: Tensor) -> Tensor:
        """float32 [n, dimensions] to [n, classes]."""
        ...


class InceptionScore:
    """``inception_score``.

    Raises:
        UserError: fewer images than splits.
    """

    def __init__(self, bench: Bench, load: Callable[[MetricFiles], Classifying]) -> None:
        self.samples, self.seed = bench.config.samples, bench.config.seed
        self.extractor, self.device = bench.extractor(load), bench.device
        _check(self.samples)

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """The extractor's identity, the logits, and the number of splits."""
        return {"extractor": dict(self.extractor.identity), "logits": "1008 without bias", "splits": SPLITS}

    def start(self, resolution: int, names: Collection[str]) -> _Tally:
        """Nothing seen yet."""
        return _Tally(self, names)


class _Tally:
    def __init__(self, measure: InceptionScore, names: Collection[str]) -> None:
        self._measure, self._names = measure, names
        self._logits: list[Tensor] = []

    def add(self, pictures: Pictures) -> None:
        extractor = self._measure.extractor
        # In groups: another number of rows at once gives other last bits.
        self._logits += [extractor.logits(rows) for rows in pictures.features(extractor).split(GROUP)]

    def gather(self, ranks: Ranks) -> None:
        extractor = self._measure.extractor
        empty = extractor.logits(torch.empty(0, extractor.dimensions, device=self._measure.device))
        self._logits = [ranks.rows(torch.cat([empty, *self._logits]))]

    def results(self) -> dict[str, Result]:
        logits = torch.cat(self._logits)
        self._logits.clear()
        _check(len(logits))
        # Real images come in the order of their shards, perhaps class by class: a split is to hold some of each.
        order = torch.from_numpy(permutation(key_of(self._measure.seed, "inception score"), len(logits)))
        return dict.fromkeys(self._names, inception_score(logits[order.to(logits.device)]))


def _check(count: int) -> None:
    if count < SPLITS:
        raise UserError(
            f"inception_score: {count} images cannot be split into {SPLITS} parts. Raise evaluation.samples and "
            "evaluation.held_out_samples."
        )


def inception_score(logits: Tensor, splits: int = SPLITS) -> Result:
    """Mean over equal parts of exp(E KL(p(y|x) || p(y))), p(y) being the mean of p(y|x) over the part.

    Args:
        logits: float [n, classes], n at least ``splits``; parts are consecutive.
        splits: number of parts; sizes differ by one where n does not divide.

    Returns:
        The mean, in [1, classes], and its standard error; the ± of papers is the standard deviation over the parts,
        which is √splits times as large. The score grows with the size of a part: compare only equal numbers of images.
    """
    scores = []
    for number in range(splits):
        part = logits[number * len(logits) // splits : (number + 1) * len(logits) // splits].double()
        log_p = part.log_softmax(1)
        p = log_p.exp()
        scores.append((p * (log_p - p.mean(0).log())).sum(1).mean().exp())
    values = torch.stack(scores)
    return Result(float(values.mean()), standard_error=float(values.std()) / math.sqrt(splits) if splits > 1 else None)
