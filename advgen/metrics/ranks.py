"""How metrics see other processes: each was shown a slice of the pictures, and sums or rows are put together."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Ranks(Protocol):
    """The processes of an evaluation.

    Rank ``index`` of ``count`` is shown the pictures numbered from n * index // count on, up to those of the next: so
    rows that are put together in the order of the ranks are in that of the pictures.
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
