"""Ranks as threads of one process, which meet at a barrier: what tallies gather, without torch.distributed."""

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
class Thread:
    """One rank's :class:`advgen.metrics.ranks.Ranks`; what a rank gives lies in the table for all to see."""

    index: int
    count: int
    barrier: Barrier
    table: list[Tensor]

    def rows(self, rows: Tensor) -> Tensor:
        """The rows of all, in the order of the ranks."""
        self.table[self.index] = rows
        self.barrier.wait()
        found = torch.cat(self.table)
        self.barrier.wait()
        return found

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks."""
        assert values.dtype in (torch.float64, torch.int64)
        return self.rows(values[None]).sum(dim=0)


def on_ranks(count: int, play: Callable[[Thread], T]) -> list[T]:
    """What ``play`` gives on each of ``count`` ranks, all at the same time."""
    barrier = Barrier(count, timeout=60)
    table = [torch.empty(0)] * count

    def guarded(index: int) -> T:
        try:
            return play(Thread(index, count, barrier, table))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(guarded, range(count)))
