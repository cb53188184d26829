"""Feature vectors that a metric needs all at once, one by one, as nearest neighbours do."""

from __future__ import annotations

import torch
from torch import Tensor

from advgen.metrics.ranks import Ranks


class Rows:
    """Features and labels, batch by batch, in the order in which they come.

    Args:
        dimensions: length of a vector.
        device: where they lie.
        labelled: whether each has a label.
    """

    def __init__(self, dimensions: int, device: torch.device, labelled: bool) -> None:
        self._features = [torch.empty(0, dimensions, device=device)]
        self._labels = [torch.empty(0, dtype=torch.int64, device=device)] if labelled else []

    def add(self, features: Tensor, labels: Tensor | None = None) -> None:
        """Take in a batch: float32 [n, dimensions], and int64 [n] if labelled."""
        self._features.append(features)
        if self._labels:
            assert labels is not None
            self._labels.append(labels)

    def gather(self, ranks: Ranks) -> None:
        """Take in the rows of the other ranks, in the order of the ranks; a collective."""
        features, labels = self.taken()
        self._features = [ranks.rows(features)]
        self._labels = [] if labels is None else [ranks.rows(labels)]

    def taken(self) -> tuple[Tensor, Tensor | None]:
        """float32 [n, dimensions] and int64 [n], or None without labels. Nothing is kept, as it may be large."""
        features = torch.cat(self._features)
        self._features = []
        labels = torch.cat(self._labels) if self._labels else None
        self._labels = []
        return features, labels
