"""Collectives that a loss may be differentiated through, any number of times."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class Gather(torch.autograd.Function):
    """All ranks' tensors stacked; the gradient is the sum over ranks of each one's share, by :class:`Scatter`."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:  # type: ignore[override]
        ctx.group = group
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, x.contiguous(), group=group)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx, *gradients: Tensor):  # type: ignore[override]
        return Scatter.apply(gradients[0], ctx.group), None


class Scatter(torch.autograd.Function):
    """The sum over ranks of this rank's entry; its gradient is a gather, so double backward works."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:  # type: ignore[override]
        ctx.group = group
        total = x.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total[dist.get_rank(group)].clone()

    @staticmethod
    def backward(ctx, *gradients: Tensor):  # type: ignore[override]
        return Gather.apply(gradients[0], ctx.group), None
