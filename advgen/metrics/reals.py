"""Real images as metrics see them: chosen by the evaluation's seed, at any resolution, and remembered as statistics.

Each rank looks at a slice of them, where it can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from advgen.data.parts import Samples
from advgen.data.stream import NumberedStream
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.features import Extractor
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Alone, Ranks, batches_of
from advgen.metrics.reading import read_ahead
from advgen.metrics.reference import entry_of, named_statistics, reference_statistics
from advgen.metrics.rows import Rows
from advgen.metrics.statistics import FeatureStatistics
from advgen.seeds import key_of, permutation


class Reals:
    """Some images of a stream.

    Attributes:
        stream: which.
        count: how many of its images, chosen by the evaluation's seed.
        device: where they are put.
        ranks: among which they are cut.
    """

    def __init__(
        self,
        stream: NumberedStream,
        count: int,
        config: EvaluationConfig,
        device: torch.device,
        labelled: bool,
        ranks: Ranks,
    ) -> None:
        self.stream, self.count, self.device, self.ranks = stream, min(count, len(stream)), device, ranks
        self._config, self._labelled = config, labelled
        self._features: tuple[object, int, torch.Tensor, torch.Tensor | None] | None = None

    def pictures(self, resolution: int) -> Iterator[Pictures]:
        """Batches of all of them, with their labels and maps, read ahead by threads; the same on every rank."""
        return self._pictures(resolution, Alone())

    def own_pictures(self, resolution: int) -> Iterator[Pictures]:
        """Batches of those in this rank's slice."""
        return self._pictures(resolution, self.ranks)

    def _pictures(self, resolution: int, ranks: Ranks) -> Iterator[Pictures]:
        def there(values: NDArray[np.integer] | None) -> torch.Tensor | None:
            return None if values is None else torch.from_numpy(values).to(self.device).long()

        # In the order of the shards, which is that of reading.
        order = np.sort(permutation(key_of(self._config.seed, "evaluation"), len(self.stream))[: self.count])

        def fetched(numbers: range) -> tuple[range, Samples]:
            return numbers, self.stream.fetch(order[numbers.start : numbers.stop], resolution)

        batches = batches_of(self.count, ranks, self._config.batch_size)
        with read_ahead(fetched, batches, self._config.batch_size * resolution**2) as read:
            for numbers, samples in read:
                images = torch.from_numpy(samples.images).to(self.device)
                labels = there(samples.labels) if self._labelled else None
                yield Pictures(images, labels, there(samples.label_map), first=numbers.start)

    def features(self, extractor: Extractor, resolution: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """float32 [count, dimensions] of all, and their labels, int64 [count], or None; a collective.

        Those of the last extractor and resolution are kept, so that they are taken once for all metrics that ask one
        after the other: they are not the caller's own.
        """
        kept = self._features
        if kept is None or kept[0] is not extractor or kept[1] != resolution:
            self._features = None  # before the next are there
            rows = Rows(extractor.dimensions, self.device, self._labelled)
            for pictures in self.own_pictures(resolution):
                rows.add(pictures.features(extractor), pictures.labels)
            rows.gather(self.ranks)
            self._features = kept = extractor, resolution, *rows.taken()
        return kept[2], kept[3]

    def statistics(self, extractor: Extractor, resolution: int) -> FeatureStatistics:
        """Of their features; read where they were computed before, or from the file that is named. A collective.

        Raises:
            UserError: the file that is named is of other images or features.
        """

        def compute() -> FeatureStatistics:
            statistics = FeatureStatistics(extractor.dimensions, self.device)
            for pictures in self.own_pictures(resolution):
                statistics.add(pictures.features(extractor))
            statistics.gather(self.ranks)
            return statistics

        key = self.statistics_key(extractor, resolution)
        if self._config.kept_statistics is not None:
            return named_statistics(Path(self._config.kept_statistics).expanduser(), key)
        return reference_statistics(key, Path(self._config.cache), compute, self.ranks)

    def statistics_file(self, extractor: Extractor, resolution: int) -> Path:
        """Where :meth:`statistics` are kept; what they depend on lies beside it, as ``.json``."""
        return entry_of(self.statistics_key(extractor, resolution), Path(self._config.cache))

    def statistics_key(self, extractor: Extractor, resolution: int) -> Mapping[str, Any]:
        """All that :meth:`statistics` depend on."""
        return {
            "manifest": self.stream.digest,
            "extractor": dict(extractor.identity),
            "resolution": resolution,
            "count": self.count,
            "seed": self._config.seed,
        }
