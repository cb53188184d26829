"""Which sample stands at which position of an endless stream: functions of (seed, position) alone.

Epoch ``e`` holds positions ``e n`` to ``(e + 1) n - 1``. In each the shards are permuted, and then the samples inside
blocks of a few shards, which keeps reads near one another.

With several canonical nodes the shards are dealt to as many lanes, once and for all; position p takes the next sample
of lane ``p mod lanes``. A node that reads every k-th position, k a divisor of the lanes, reads only its own lanes'
shards, and all nodes together read the same order whatever their number.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from advgen.seeds import key_of, permutation

Positions = NDArray[np.int64]
_MIX_BLOCK = 1024  # positions whose sets are drawn at a time


class Order(Protocol):
    """Which sample of a set stands at each position."""

    def index_of(self, positions: Positions) -> NDArray[np.int64]:
        """Numbers of samples in the order of the shards, int64 [n]; positions are int64 [n], from 0 on."""
        ...

    def shards_near(self, position: int) -> tuple[Sequence[int], Sequence[int]]:
        """Numbers of the shards that this position and those after it read, and of those that come next."""
        ...


@dataclass(frozen=True)
class _Plan:
    """An epoch of a lane: pieces of shards (first, end) in the order of their reading, and their blocks' starts."""

    pieces: NDArray[np.int64]
    starts: NDArray[np.int64]


class Shuffled:
    """Every sample once an epoch, shuffled."""

    def __init__(self, seed: int, sizes: Sequence[int], block_shards: int, lanes: int = 1) -> None:
        """
        Args:
            seed: of the order.
            sizes: samples of each shard.
            block_shards: samples are shuffled over so many shards at a time.
            lanes: canonical nodes.
        """
        self._seed, self._block_shards, self._lanes = seed, block_shards, lanes
        self._ends = np.cumsum(np.asarray(sizes, np.int64))
        self._samples = int(self._ends[-1])
        dealt = permutation(key_of(seed, "stream", "lanes"), len(sizes)) if lanes > 1 else np.arange(len(sizes))
        self._dealt = np.stack((np.concatenate(([0], self._ends))[dealt], self._ends[dealt]), axis=1)
        # Plans are small (8 bytes a sample) and asked for again and again.
        self._epoch = functools.lru_cache(4 * lanes)(self._plan_epoch)
        self._block = functools.lru_cache(8 * lanes + 24)(self._plan_block)

    def index_of(self, positions: Positions) -> NDArray[np.int64]:
        """See :class:`Order`."""
        positions = np.asarray(positions, np.int64)
        if positions.size and positions.min() < 0:
            raise ValueError("positions start at 0")
        n, lanes = self._samples, self._lanes
        epochs, of_lane = positions // n, positions % lanes
        places = _before(positions, of_lane, lanes) - _before(epochs * n, of_lane, lanes)
        indices = np.empty_like(positions)
        for epoch, lane in np.unique(np.stack((epochs, of_lane)), axis=1).T.tolist():
            mine = np.flatnonzero((epochs == epoch) & (of_lane == lane))
            starts = self._epoch(epoch, lane).starts
            blocks = np.searchsorted(starts, places[mine], side="right") - 1
            for block in np.unique(blocks).tolist():
                chosen = mine[blocks == block]
                indices[chosen] = self._block(epoch, lane, block)[places[chosen] - starts[block]]
        return indices

    def shards_near(self, position: int) -> tuple[list[int], list[int]]:
        """See :class:`Order`."""
        epoch, lane = position // self._samples, position % self._lanes
        place = _before(np.int64(position), lane, self._lanes) - _before(
            np.int64(epoch * self._samples), lane, self._lanes
        )
        block = int(np.searchsorted(self._epoch(epoch, lane).starts, place, side="right")) - 1
        later = (epoch, block + 1)
        if (block + 1) * self._block_shards >= len(self._epoch(epoch, lane).pieces):
            later = (epoch + 1, 0)
        return self._shards(epoch, lane, block), self._shards(later[0], lane, later[1])

    def _shards(self, epoch: int, lane: int, block: int) -> list[int]:
        pieces = self._epoch(epoch, lane).pieces[block * self._block_shards : (block + 1) * self._block_shards]
        return np.unique(np.searchsorted(self._ends, pieces[:, 0], side="right")).tolist()

    def _plan_epoch(self, epoch: int, lane: int) -> _Plan:
        lanes, n = self._lanes, self._samples
        counts = [_before((epoch + 1) * n, each, lanes) - _before(epoch * n, each, lanes) for each in range(lane + 1)]
        pieces = _cut(self._dealt, sum(counts[:-1]), sum(counts))
        own = (lane,) if lanes > 1 else ()
        pieces = pieces[permutation(key_of(self._seed, "stream", epoch, "shards", *own), len(pieces))]
        sizes = pieces[:, 1] - pieces[:, 0]
        if not len(sizes):
            return _Plan(pieces, np.zeros(1, np.int64))
        ends = np.cumsum(np.add.reduceat(sizes, np.arange(0, len(sizes), self._block_shards)))
        return _Plan(pieces, np.concatenate(([0], ends)).astype(np.int64))

    def _plan_block(self, epoch: int, lane: int, block: int) -> NDArray[np.int64]:
        """Numbers of the samples of a block, shuffled."""
        pieces = self._epoch(epoch, lane).pieces[block * self._block_shards : (block + 1) * self._block_shards]
        members = np.concatenate([np.arange(first, end) for first, end in pieces.tolist()])
        own = (lane,) if self._lanes > 1 else ()
        return members[permutation(key_of(self._seed, "stream", epoch, "block", block, *own), len(members))]


def _before(positions, lane, lanes: int):  # type: ignore[no-untyped-def]
    """How many positions below are this lane's."""
    return (positions - lane + lanes - 1) // lanes


def _cut(pieces: NDArray[np.int64], first: int, end: int) -> NDArray[np.int64]:
    """The part [first, end) of pieces laid one after the other."""
    ends = np.cumsum(pieces[:, 1] - pieces[:, 0])
    starts = ends - (pieces[:, 1] - pieces[:, 0])
    cut = pieces.copy()
    cut[:, 0] += np.maximum(first - starts, 0)
    cut[:, 1] -= np.maximum(ends - end, 0)
    return cut[cut[:, 0] < cut[:, 1]]


class Balanced:
    """Every class equally often: each ``classes`` positions show each class once, in an order of their own.

    A class's samples come round one after the other, shuffled anew each time. They lie in all shards, so nothing keeps
    reads near one another.
    """

    def __init__(self, seed: int, labels: NDArray[np.int64], classes: int, sizes: Sequence[int]) -> None:
        """
        Args:
            seed: of the order.
            labels: int64 [n] of all samples, each in 0 to ``classes`` - 1; every class has a sample.
            classes: how many.
            sizes: samples of each shard.
        """
        self._seed, self._classes = seed, classes
        self._members = [np.flatnonzero(labels == c) for c in range(classes)]
        self._all = list(range(len(sizes)))
        self._turn = functools.lru_cache(64)(lambda turn: permutation(key_of(seed, "balance", "turn", turn), classes))
        self._round = functools.lru_cache(2 * classes)(self._plan_round)

    def index_of(self, positions: Positions) -> NDArray[np.int64]:
        """See :class:`Order`."""
        positions = np.asarray(positions, np.int64)
        if positions.size and positions.min() < 0:
            raise ValueError("positions start at 0")
        indices = np.empty_like(positions)
        for row, (turn, place) in enumerate(zip(*np.divmod(positions, self._classes), strict=True)):
            members_of = int(self._turn(int(turn))[place])
            number, within = divmod(int(turn), len(self._members[members_of]))
            indices[row] = self._round(members_of, number)[within]
        return indices

    def shards_near(self, position: int) -> tuple[Sequence[int], Sequence[int]]:
        """See :class:`Order`."""
        return self._all, ()

    def _plan_round(self, label: int, number: int) -> NDArray[np.int64]:
        members = self._members[label]
        return members[permutation(key_of(self._seed, "balance", label, number), len(members))]


class Mixture:
    """Several sets mixed by weight: which set stands at a position, and which position of that set it is.

    Each block of 1,024 positions of a lane holds every set as often as its weight says (rounded; what rounding leaves
    over goes round by a fixed rule, so that the shares are exact over many blocks), in an order of its own.
    """

    def __init__(self, seed: int, weights: Sequence[float], lanes: int = 1) -> None:
        """
        Args:
            seed: of the order.
            weights: share of each set, relative; at least 1/1,024 of their sum.
            lanes: canonical nodes.

        Raises:
            ValueError: a weight is smaller.
        """
        self._seed, self._lanes = seed, lanes
        exact = [Fraction(weight) for weight in weights]
        shares = [weight / sum(exact) * _MIX_BLOCK for weight in exact]
        if min(shares) < 1:
            raise ValueError(f"a weight of {min(weights)} is less than 1/{_MIX_BLOCK} of all")
        self._whole = [int(share) for share in shares]
        rests = [share - whole for share, whole in zip(shares, self._whole, strict=True)]
        self._rests = [sum(rests[: n + 1], Fraction(0)) for n in range(len(rests))]
        self._block = functools.lru_cache(64 * lanes)(self._plan_block)

    def split(self, positions: Positions) -> tuple[NDArray[np.int64], Positions]:
        """(number of the set, position in it) for each position, int64 [n] both."""
        positions = np.asarray(positions, np.int64)
        sets, within = np.empty_like(positions), np.empty_like(positions)
        of_lane, own = positions % self._lanes, positions // self._lanes
        blocks, places = np.divmod(own, _MIX_BLOCK)
        for lane, block in np.unique(np.stack((of_lane, blocks)), axis=1).T.tolist():
            mine = np.flatnonzero((of_lane == lane) & (blocks == block))
            drawn, counted = self._block(lane, block)
            sets[mine], within[mine] = drawn[places[mine]], counted[places[mine]] * self._lanes + lane
        return sets, within

    def _seen(self, number: int, block: int) -> int:
        """How often a set stands in the first blocks of a lane."""
        below = int(self._rests[number - 1] * block) if number else 0
        return self._whole[number] * block + int(self._rests[number] * block) - below

    def _plan_block(self, lane: int, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        first = [self._seen(n, block) for n in range(len(self._whole))]
        end = [self._seen(n, block + 1) for n in range(len(self._whole))]
        sets = np.repeat(np.arange(len(first)), [e - f for f, e in zip(first, end, strict=True)])
        sets = sets[permutation(key_of(self._seed, "mixture", lane, block), len(sets))]
        counted = np.empty_like(sets)
        for number, start in enumerate(first):
            mine = np.flatnonzero(sets == number)
            counted[mine] = start + np.arange(len(mine))
        return sets, counted
