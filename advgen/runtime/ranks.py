"""The processes of an evaluation (:class:`advgen.metrics.ranks.Ranks`), as torch.distributed has them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from advgen.metrics.ranks import Alone, Ranks
from advgen.runtime.world import World


class ProcessRanks:
    """All processes of a world. Tensors may lie anywhere; what comes back lies where they lay."""

    def __init__(self, world: World) -> None:
        self._device, self._index, self._count = world.device, world.rank, world.size

    @property
    def index(self) -> int:
        """This process's number, from 0 on."""
        return self._index

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks, the same on each."""
        summed = values.detach().to(self._device, copy=True).contiguous()
        dist.all_reduce(summed)
        return summed.to(values.device)

    def rows(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, in their order. For a moment there are as many on each rank as on the fullest."""
        counts = [int(count) for count in self._gathered(torch.tensor([len(rows)], device=self._device))]
        if not max(counts):
            return rows
        padded = torch.zeros(max(counts), *rows.shape[1:], dtype=rows.dtype, device=self._device)
        padded[: len(rows)] = rows.detach()
        parts = self._gathered(padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(rows.device)

    def _gathered(self, values: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(values) for _ in range(self._count)]
        dist.all_gather(parts, values)
        return parts


def ranks_of(world: World) -> Ranks:
    """Those of a world."""
    return Alone() if world.size == 1 else ProcessRanks(world)
