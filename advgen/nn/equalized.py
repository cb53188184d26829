"""Layers with equalized learning rate (Karras et al. 2017, section 4.1).

Weights are drawn from N(0, 1) and multiplied at run time by gain / sqrt(fan_in), He's constant, so that the
step of an optimizer with normalised gradients is of the same relative size in every layer. Biases begin at
0 and are not scaled.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.nn.convolution import convolution

SQRT2 = math.sqrt(2.0)


class EqualizedLinear(nn.Module):
    """y = (gain / sqrt(inputs)) W x + b.

    Args:
        inputs, outputs: features in and out.
        gain: sqrt(2) before a rectifier, 1 before none.
        bias: whether there is one.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = SQRT2, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs] to [n, outputs]."""
        return F.linear(x, self.weight * self.scale, self.bias)


class EqualizedConv2d(nn.Module):
    """A convolution with zero padding that keeps the size, or doubles or halves it.

    Doubling is nearest-neighbour upsampling followed by the convolution, halving the convolution followed by
    a mean over 2x2 blocks. Both are done as one strided convolution with the kernel summed over the four
    shifts, which is the same function for 16 instead of 36 products a pixel (at the coarser side).

    Args:
        inputs, outputs: channels in and out.
        kernel: odd; 3 where ``resample`` is given.
        resample: "up", "down" or None.
        gain: sqrt(2) before a rectifier, 1 before none.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, resample: str | None = None, gain: float = SQRT2
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs * kernel * kernel)
        self.resample = resample
        self.padding = kernel // 2
        self.shifts: Tensor | None
        self.register_buffer("shifts", _four_shifts(resample) if resample else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h', w'] with h' = h, 2 h or h / 2."""
        weight = self.weight * self.scale
        if self.shifts is None:
            return convolution(x, weight, self.bias, padding=self.padding)
        # One product with a constant matrix is several times faster than sums of padded slices.
        weight = (weight.flatten(2) @ self.shifts).unflatten(2, (4, 4))
        if self.resample == "up":
            return convolution(x, weight.transpose(0, 1), self.bias, stride=2, padding=1, transposed=True)
        return convolution(x, weight, self.bias, stride=2, padding=1)


def _four_shifts(resample: str) -> Tensor:
    """[9, 16]: takes a flat 3x3 kernel to the flat sum of its four placements in 4x4.

    For "down" the sum is a mean; for "up" it is mirrored, as a transposed convolution lays its kernel out mirrored.
    """
    matrix = torch.zeros(3, 3, 4, 4)
    for y in range(3):
        for x in range(3):
            matrix[y, x, y : y + 2, x : x + 2] = 1.0
    if resample == "up":
        return matrix.flip(2, 3).reshape(9, 16)
    return matrix.reshape(9, 16) * 0.25
