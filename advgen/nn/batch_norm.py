"""Batch normalisation over the global batch, for any number of ranks, on CPU and GPU, differentiable twice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.game import Across
from advgen.precision import at_least_float32


class BatchNorm(nn.Module):
    """gain * (x - mean) / sqrt(variance + eps) + bias, channel by channel (Ioffe & Szegedy 2015, algorithm 1).

    Moments are those of the global batch, of which each rank holds a slice of the same size. A forward never moves the
    running statistics: whoever's turn it is calls :func:`move_statistics` after it. So they stay where they are when
    the network is only evaluated, and move once where a block is computed a second time in the backward pass.

    Args:
        channels: features to normalise.
        classes: with classes, each has gains and biases of its own (conditional batch normalisation, de Vries et
            al. 2017, section 3); 0 for one of each.
        momentum: weight of the new moments in the running ones.
        eps: added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, classes: int = 0, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        shape = (classes, channels) if classes else (channels,)
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.momentum, self.eps = momentum, eps
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self._latest: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, across: Across | None, labels: Tensor | None = None) -> Tensor:
        """[n, channels, ...] to the same.

        Args:
            x: features.
            across: takes the moments of the batch on all ranks; None for the running statistics (evaluation).
            labels: int64 [n], where there are classes.
        """
        wide = at_least_float32(x)
        mean, variance = (self.running_mean, self.running_var) if across is None else self._moments(wide, across)
        gain, bias = self.weight, self.bias
        if labels is not None:
            gain, bias = F.embedding(labels, gain), F.embedding(labels, bias)
        scale = gain * torch.rsqrt(variance + self.eps)
        y = (wide - _spread(mean, x)) * _spread(scale, x) + _spread(bias, x)
        return y.to(x.dtype)

    def _moments(self, x: Tensor, across: Across) -> tuple[Tensor, Tensor]:
        """Mean and biased variance over the global batch, [channels] each; one row a rank goes around."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(x, axes, correction=0)
        if across.slices > 1:
            means, variances = across.gather(torch.stack((mean, variance))[None]).unbind(1)
            mean = means.mean(dim=0)
            variance = (variances + (means - mean).square()).mean(dim=0)
        count = x.numel() // x.shape[1] * across.slices
        self._latest = mean.detach(), variance.detach() * (count / max(count - 1, 1))
        return mean, variance

    @torch.no_grad()
    def move(self) -> None:
        """Running statistics move towards the moments of the last forward; the variance is the unbiased one."""
        assert self._latest is not None, "no batch was normalised yet"
        self.running_mean.lerp_(self._latest[0], self.momentum)
        self.running_var.lerp_(self._latest[1], self.momentum)


def move_statistics(network: nn.Module) -> None:
    """Move the running statistics of every :class:`BatchNorm` in the network; once, after the forward of its turn."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.move()


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """[c] or [n, c] in a shape that goes with x, [n, c, ...]."""
    return values.reshape(*values.shape, *(1,) * (x.ndim - 2))
