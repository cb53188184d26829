"""A global batch in strided slices, one a thread: what ranks do, with the graph of all of them in one process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Slice:
    """One thread's :class:`advgen.game.Across`; threads meet at the barrier and leave their rows in the table."""

    index: int
    slices: int
    barrier: Barrier
    table: list[Tensor]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all slices in the order of the global batch."""
        self.table[self.index] = rows
        self.barrier.wait()
        whole = torch.stack(self.table, dim=1).flatten(0, 1)
        self.barrier.wait()
        return whole

    def own(self, rows: Tensor) -> Tensor:
        """This slice's rows."""
        return rows[self.index :: self.slices]

    def total(self, counts: Tensor) -> Tensor:
        """The sum over the slices."""
        return self.gather(counts[None]).sum(dim=0)


def in_slices(count: int, play: Callable[[Slice], T]) -> list[T]:
    """What ``play`` gives in each of ``count`` slices, all at the same time."""
    barrier = Barrier(count, timeout=30)
    table = [torch.empty(0)] * count

    def guarded(index: int) -> T:
        try:
            return play(Slice(index, count, barrier, table))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(guarded, range(count)))
