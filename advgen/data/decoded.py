"""Decoded images that are kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from advgen.data.manifest import Manifest


class Decoded:
    """Decoded images of the first samples, as many as fit; one array a level.

    Nothing is evicted image by image: an epoch visits every sample once, in another order each time, so that
    keeping a fixed part is hit as often as anything can be. A new level pushes out the one used longest ago.
    """

    def __init__(self, manifest: Manifest, budget: int) -> None:
        self._manifest, self._budget = manifest, budget
        self._levels: OrderedDict[int, tuple[NDArray[np.uint8], NDArray[np.bool_]]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._levels)

    def of_level(self, level: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(images uint8 [m, channels, level, w], whether each is there bool [m]) of the first m samples."""
        manifest = self._manifest
        with self._lock:
            if level not in self._levels:
                shape = (manifest.channels, level, manifest.width * level // manifest.height)
                each = shape[0] * shape[1] * shape[2]
                kept = min(manifest.samples, self._budget // each)
                while self._levels and sum(i.nbytes for i, _ in self._levels.values()) + kept * each > self._budget:
                    self._levels.popitem(last=False)
                self._levels[level] = (np.empty((kept, *shape), np.uint8), np.zeros(kept, bool))
            self._levels.move_to_end(level)
            return self._levels[level]
