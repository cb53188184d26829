"""Ranks without processes: threads that meet at a barrier (:class:`advgen.metrics.ranks.Ranks`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class ThreadRanks:
    """One of several ranks, a thread each."""

    def __init__(self, index: int, count: int, barrier: threading.Barrier, given: list[Tensor]) -> None:
        self.index, self.count, self._barrier, self._given = index, count, barrier, given

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks."""
        assert values.dtype in (torch.float64, torch.int64)
        return torch.stack(self._exchanged(values)).sum(0)

    def rows(self, rows: Tensor) -> Tensor:
        """The rows of all ranks."""
        return torch.cat(self._exchanged(rows))

    def _exchanged(self, mine: Tensor) -> list[Tensor]:
        self._given[self.index] = mine.clone()
        self._barrier.wait(60)
        parts = list(self._given)
        self._barrier.wait(60)
        return parts


def on_ranks(count: int, work: Callable[[ThreadRanks], T]) -> list[T]:
    """What each of so many ranks makes of the same work, in order."""
    barrier, given = threading.Barrier(count), [torch.empty(0)] * count
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(_run, work, ThreadRanks(index, count, barrier, given)) for index in range(count)]
        return [future.result() for future in futures]


def _run(work: Callable[[ThreadRanks], T], ranks: ThreadRanks) -> T:
    try:
        return work(ranks)
    except BaseException:
        ranks._barrier.abort()  # the others would wait
        raise
