"""Real images as metrics see them: chosen by the evaluation's seed, at any resolution, and remembered as statistics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from advgen.data.stream import NumberedStream
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.features import Extractor
from advgen.metrics.pictures import Pictures
from advgen.metrics.reference import reference_statistics
from advgen.metrics.statistics import FeatureStatistics
from advgen.seeds import key_of, permutation


class Reals:
    """Some images of a stream.

    Attributes:
        stream: which.
        count: how many of its images, chosen by the evaluation's seed.
        device: where they are put.
    """

    def __init__(
        self, stream: NumberedStream, count: int, config: EvaluationConfig, device: torch.device, labelled: bool
    ) -> None:
        self.stream, self.count, self.device = stream, min(count, len(stream)), device
        self._config, self._labelled = config, labelled

    def pictures(self, resolution: int) -> Iterator[Pictures]:
        """Batches of them, with their labels and maps."""

        def there(values: NDArray[np.integer] | None) -> torch.Tensor | None:
            return None if values is None else torch.from_numpy(values).to(self.device).long()

        size = self._config.batch_size
        # In the order of the shards, which is that of reading.
        order = np.sort(permutation(key_of(self._config.seed, "evaluation"), len(self.stream))[: self.count])
        for number, indices in enumerate(np.split(order, range(size, self.count, size))):
            samples = self.stream.fetch(indices, resolution)
            images = torch.from_numpy(samples.images).to(self.device)
            labels = there(samples.labels) if self._labelled else None
            yield Pictures(images, labels, there(samples.label_map), first=number * size)

    def statistics(self, extractor: Extractor, resolution: int) -> FeatureStatistics:
        """Of their features; read where they were computed before."""
        key = {
            "manifest": self.stream.digest,
            "extractor": dict(extractor.identity),
            "resolution": resolution,
            "count": self.count,
            "seed": self._config.seed,
        }

        def compute() -> FeatureStatistics:
            statistics = FeatureStatistics(extractor.dimensions, self.device)
            for pictures in self.pictures(resolution):
                statistics.add(pictures.features(extractor))
            return statistics

        return reference_statistics(key, Path(self._config.cache), compute)
