"""The one object that knows ranks: devices, collectives and who writes files."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    DynamoBackend,
    InitProcessGroupKwargs,
    KwargsHandler,
)
from torch import Tensor

from advgen.errors import UserError
from advgen.runtime.config import TrainingConfig


class World:
    """The processes of a run. One process, ``accelerate launch`` and ``torchrun`` look alike from here.

    Attributes:
        accelerator: device, precision and DDP.
        rank, size: this process and their number.
    """

    def __init__(self, config: TrainingConfig) -> None:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        cpu = config.device == "cpu" or not torch.cuda.is_available()
        handlers: list[KwargsHandler] = [
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        ]
        launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
        if launched and cpu:
            handlers.append(InitProcessGroupKwargs(backend="gloo"))
        self.accelerator = Accelerator(
            cpu=cpu,
            mixed_precision="bf16" if config.precision == "bf16" else "no",
            kwargs_handlers=handlers,
        )
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise UserError("DeepSpeed is not supported yet. Launch without --use_deepspeed.")
        dynamo = self.accelerator.state.dynamo_plugin
        if dynamo is not None and dynamo.backend != DynamoBackend.NO:
            # A compiled network has no double backward, and accelerate compiles what it prepares.
            raise UserError("torch.compile is not supported. Launch with --dynamo_backend no.")
        self.rank = self.accelerator.process_index
        self.size = self.accelerator.num_processes
        # Batch statistics run inside forward and backward, where DDP's own collectives run too: a group of their
        # own keeps the two sequences from meeting.
        self._statistics = dist.new_group() if self.size > 1 else None

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return self.accelerator.device

    @property
    def main(self) -> bool:
        """Whether this rank writes files and talks to people."""
        return self.rank == 0

    def check_batch(self, batch_size: int, phase: str) -> None:
        """Refuse a global batch that the ranks do not divide.

        Raises:
            UserError: names the phase and the way out.
        """
        if batch_size % self.size:
            raise UserError(
                f"Phase '{phase}' has a global batch of {batch_size}, which {self.size} processes do not divide. "
                "Change the batch size in the recipe, or the number of processes."
            )

    def positions(self, start: int, count: int) -> Tensor:
        """This rank's strided slice of the samples start ... start + count: int64 on the CPU."""
        return torch.arange(start + self.rank, start + count, self.size, dtype=torch.int64)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; a collective."""
        if self.size == 1:
            return flag
        votes = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return bool(votes.item())

    def mean(self, scalars: Mapping[str, Tensor]) -> dict[str, float]:
        """Scalars averaged over ranks; a collective, for which all ranks hold the same names."""
        if not scalars:
            return {}
        values = torch.stack([value.detach().double().reshape(()) for value in scalars.values()])
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return dict(zip(scalars, values.tolist(), strict=True))

    def wait(self) -> None:
        """Until every rank is here."""
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the process group in order."""
        if self.size > 1:
            self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    @property
    def slices(self) -> int:
        """Ranks that share a global batch (:class:`advgen.game.Across`)."""
        return self.size

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all ranks in the order of the global batch; differentiable any number of times."""
        if self._statistics is None:
            return rows
        stacked = _Gather.apply(
            rows, self._statistics
        )  # [size, n, ...]; global sample i stands at [i % size, i // size]
        assert isinstance(stacked, Tensor)
        return stacked.transpose(0, 1).flatten(0, 1)

    def own(self, rows: Tensor) -> Tensor:
        """This rank's rows of what :meth:`gather` returned."""
        return rows[self.rank :: self.size]


class _Gather(torch.autograd.Function):
    """All ranks' tensors stacked; the gradient is the sum over ranks of each one's share, by :class:`_Scatter`."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:  # type: ignore[override]
        ctx.group = group
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, x.contiguous(), group=group)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx, *gradients: Tensor):  # type: ignore[override]
        return _Scatter.apply(gradients[0], ctx.group), None


class _Scatter(torch.autograd.Function):
    """The sum over ranks of this rank's entry; its gradient is a gather, so double backward works."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:  # type: ignore[override]
        ctx.group = group
        total = x.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total[dist.get_rank(group)].clone()

    @staticmethod
    def backward(ctx, *gradients: Tensor):  # type: ignore[override]
        return _Gather.apply(gradients[0], ctx.group), None
