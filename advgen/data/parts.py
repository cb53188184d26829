"""Samples as the stream gives them, and what is done to all their parts alike."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

IDS = ("label_map", "instance_map")


@dataclass(frozen=True)
class Replaced:
    """A sample that could not be decoded, in whose place another stands.

    Attributes:
        place: shard, key and offset, and what it was made from.
        reason: why, as the end of a sentence.
        by: key of the sample that stands in its place.
    """

    place: str
    reason: str
    by: str

    def __str__(self) -> str:
        return f"{self.place} {self.reason}; {self.by} stands in its place"


@dataclass(frozen=True)
class Samples:
    """Samples of some positions, in their order.

    Attributes:
        images: uint8 [n, channels, h, w], 0..255, contiguous and the caller's own; of points float32 [n, d, 1, 1].
        labels: int64 [n], or None for images without classes.
        label_map: int32 [n, h, w], class ids, or None.
        instance_map: int32 [n, h, w], instance ids, or None.
        line_art: uint8 [n, 1, h, w], or None.
        replaced: samples that could not be decoded.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64] | None
    label_map: NDArray[np.int32] | None = None
    instance_map: NDArray[np.int32] | None = None
    line_art: NDArray[np.uint8] | None = None
    replaced: tuple[Replaced, ...] = ()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All parts that are there, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "replaced"}
        return {name: value for name, value in values.items() if value is not None}

    def cropped(self, tops: NDArray[np.int64], lefts: NDArray[np.int64], height: int, width: int) -> Samples:
        """Each sample cut at its own corner, int64 [n], to one size, with all its parts."""

        def cut(values: NDArray[Any]) -> NDArray[Any]:
            corners = zip(values, tops.tolist(), lefts.tolist(), strict=True)
            return np.stack([value[..., top : top + height, left : left + width] for value, top, left in corners])

        return replace(self, **{name: cut(values) for name, values in self.arrays().items() if name != "labels"})


def merged(parts: list[tuple[NDArray[np.int64], Samples]], count: int) -> Samples:
    """Samples put together from parts: (rows of the whole, samples)."""
    arrays: dict[str, NDArray[Any]] = {}
    replaced: tuple[Replaced, ...] = ()
    for rows, samples in parts:
        for name, values in samples.arrays().items():
            arrays.setdefault(name, np.empty((count, *values.shape[1:]), values.dtype))[rows] = values
        replaced += samples.replaced
    arrays.setdefault("labels", None)  # type: ignore[arg-type]
    return Samples(**arrays, replaced=replaced)
