"""How metrics see other processes: each was shown a slice of the pictures, and sums or rows are put together.

A figure is to be the same on any number of ranks, and whatever the batches. Networks give a picture other last bits in
another batch, and a pixel of a generated one may then be rounded the other way. So pictures go through networks in
groups that depend on nothing but their numbers: :data:`GROUP` of them, the first being number 0. Slices and batches
are of whole groups, and what a network takes at a time divides a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

GROUP = 64
"""Pictures with the numbers k * GROUP to (k + 1) * GROUP stay together; a power of two."""


class Ranks(Protocol):
    """The processes of an evaluation.

    Each is shown the pictures of :func:`slice_of`: rows that are put together in the order of the ranks are in that of
    the pictures. A rank may have none.
    """

    @property
    def index(self) -> int:
        """This process's number, from 0 on."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks of float64 or int64 values of any shape, the same on each."""
        ...

    def rows(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, [n_0 + n_1 + ..., ...] of [n_rank, ...], in their order; counts may differ or be 0."""
        ...


class Alone:
    """One process, which has all pictures."""

    index, count = 0, 1

    def total(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def rows(self, rows: Tensor) -> Tensor:
        """The rows themselves."""
        return rows


def slice_of(pictures: int, ranks: Ranks) -> range:
    """The numbers of this rank's pictures: whole groups, as many on each rank but for one; the last may be cut."""
    groups = -(-pictures // GROUP)
    first, end = (GROUP * (groups * index // ranks.count) for index in (ranks.index, ranks.index + 1))
    return range(min(first, pictures), min(end, pictures))


def batches_of(pictures: int, ranks: Ranks, batch_size: int) -> Iterator[range]:
    """This rank's numbers in batches of whole groups, of at least ``batch_size`` pictures but for the last."""
    own, size = slice_of(pictures, ranks), GROUP * -(-batch_size // GROUP)
    for start in range(own.start, own.stop, size):
        yield range(start, min(start + size, own.stop))


def bytes_of_first(content: bytes, ranks: Ranks) -> bytes:
    """Rank 0's bytes, on every rank; a collective. What the others give is not looked at."""
    if ranks.count == 1:
        return content
    mine = bytearray(content if ranks.index == 0 else b"")
    return (
        ranks.rows(torch.frombuffer(mine, dtype=torch.uint8) if mine else torch.empty(0, dtype=torch.uint8))
        .numpy()
        .tobytes()
    )


def flags_of_first(flags: list[bool], ranks: Ranks) -> list[bool]:
    """Rank 0's flags, on every rank, of which each gives as many; a collective."""
    mine = torch.tensor(flags, dtype=torch.int64)
    return [bool(flag) for flag in ranks.total(mine if ranks.index == 0 else torch.zeros_like(mine)).tolist()]


def any_of(flag: bool, ranks: Ranks) -> bool:
    """Whether the flag is set on any rank; a collective."""
    return bool(ranks.total(torch.tensor([int(flag)])))
