"""Several sets as one stream, mixed by weight."""

from __future__ import annotations

from typing import Any

import numpy as np

from advgen.data.order import Mixture, Positions
from advgen.data.parts import Samples, merged
from advgen.data.stream import ImageStream
from advgen.errors import UserError


class MixedStream:
    """Several sets, mixed by weight."""

    def __init__(self, streams: list[ImageStream], weights: list[float], *, seed: int, lanes: int = 1) -> None:
        """
        Args:
            streams: of the same size, channels, parts and classes.
            weights: share of each, relative.
            seed: of the mixture.
            lanes: canonical nodes.

        Raises:
            UserError: sets that do not go together, or a weight that is too small.
        """
        first = streams[0].manifest
        for stream in streams[1:]:
            other = stream.manifest
            names = [each.name for each in first.classes], [each.name for each in other.classes]
            if names[0] != names[1] or first.parts != other.parts:
                raise UserError(
                    f"{stream}: its classes or parts are not those of the first set, so they cannot be mixed. "
                    "Shard them with the same classes."
                )
        try:
            self._mixture = Mixture(seed, weights, lanes)
        except ValueError as error:
            raise UserError(f"data.mix: {error}; such a set would hardly be seen.") from None
        self.streams = streams
        self._made_of = (streams, weights, seed, lanes)

    def __reduce__(self) -> tuple[Any, ...]:
        return _mixed, self._made_of

    def read(self, positions: Positions, level: int | None = None) -> Samples:
        """See :meth:`ImageStream.read`."""
        positions = np.asarray(positions, np.int64)
        sets, within = self._mixture.split(positions)
        rows = [(np.flatnonzero(sets == number), number) for number in range(len(self.streams))]
        parts = [(mine, self.streams[number].read(within[mine], level)) for mine, number in rows if len(mine)]
        return merged(parts, len(positions))


def _mixed(streams: list[ImageStream], weights: list[float], seed: int, lanes: int) -> MixedStream:
    return MixedStream(streams, weights, seed=seed, lanes=lanes)
