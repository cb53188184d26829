"""Normalisations and batch statistics shared by games."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Across
from advgen.precision import at_least_float32


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """x / sqrt(mean(x^2 over channels) + eps) at each pixel (Karras et al. 2017, section 4.2).

    Args:
        x: [n, c, ...].
    """
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + eps)


class MinibatchStddev(nn.Module):
    """Appends the standard deviation over groups of samples as one more channel (Karras et al. 2017, section 3).

    Groups are strided: of a global batch of N, the samples i, i + N/group, i + 2N/group ... form a group. The
    variance is biased (a mean of squares); its root (eps 1e-8 inside) is averaged over channels and pixels.
    Ranks hold strided slices, so groups fall whole into a slice if the ranks divide their number; else the
    features of all ranks are gathered, and the statistic is the same.

    Args:
        group: samples in a group; None for the whole batch. A smaller batch is one group.
    """

    def __init__(self, group: int | None = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor, across: Across) -> Tensor:
        """[n, c, h, w] to [n, c + 1, h, w]."""
        total = len(x) * across.slices
        group = min(self.group or total, total)
        if total % group:
            raise UserError(
                f"Minibatch stddev: groups of {group} do not divide the global batch of {total}. "
                "Choose a batch size that is a multiple of the group, or the whole batch as one group."
            )
        groups = total // group
        whole = groups % across.slices == 0
        rows = x if whole else across.gather(x)
        stddev = _group_stddev(at_least_float32(rows), group)
        column = stddev.repeat(group).to(x.dtype)
        if not whole:
            column = across.own(column)
        return torch.cat((x, column.reshape(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])), dim=1)


def _group_stddev(x: Tensor, group: int) -> Tensor:
    """[group * m, c, h, w] to [m]."""
    y = x.reshape(group, -1, *x.shape[1:])
    variance = (y - y.mean(dim=0, keepdim=True)).square().mean(dim=0)
    return torch.sqrt(variance + 1e-8).mean(dim=(1, 2, 3))
