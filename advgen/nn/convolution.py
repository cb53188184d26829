"""Convolutions of critics whose gradients with respect to images are trained on (a gradient penalty).

torch's own second derivative takes the gradient of a weight as a convolution of one batch with the other, whose
"kernel" is as large as an image: several times slower than the kernels that libraries have for a weight's gradient.
Here both backward passes use those. The functions are the same; sums are in another order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from advgen.precision import lowered

_forward, _backward = torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default
_Shape = tuple[int, int, bool]
"""Stride, padding, and whether it is a transposed convolution."""


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` by :func:`convolution`: square, with zero padding, without groups or dilation.

    Args:
        inputs, outputs: channels in and out.
        kernel, stride, padding: in pixels.
        bias: whether there is one.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h', w']."""
        return self.convolved(input, self.weight)

    def convolved(self, input: Tensor, weight: Tensor) -> Tensor:
        """The same with another weight."""
        stride, padding = self.stride[0], self.padding[0]
        assert isinstance(padding, int)
        return convolution(input, weight, self.bias, stride, padding)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0, transposed: bool = False
) -> Tensor:
    """As ``conv2d`` or ``conv_transpose2d``, once more differentiable with respect to ``x`` alone.

    In a backward pass that is itself recorded (``create_graph=True``) weight and bias get no gradient: what a penalty
    differentiates is the gradient of images, and theirs would be thrown away.

    Args:
        x: [n, inputs, h, w].
        weight: [outputs, inputs, k, k]; transposed [inputs, outputs, k, k].
        bias: [outputs], or None.
        stride, padding: in pixels, along both sides.
        transposed: whether it is the transposed convolution.
    """
    x, weight = lowered(x), lowered(weight)
    bias = None if bias is None else lowered(bias)
    recorded = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    if not recorded or tracing:  # an export holds no Python
        return _forward(x, weight, bias, *_rest((stride, padding, transposed)))
    return _Convolution.apply(x, weight, bias, (stride, padding, transposed))  # pyright: ignore[reportReturnType]


def _rest(shape: _Shape) -> tuple[Any, ...]:
    stride, padding, transposed = shape
    return (stride, stride), (padding, padding), (1, 1), transposed, (0, 0), 1


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: _Shape) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape, ctx.sizes = shape, None if bias is None else list(bias.shape)
        return _forward(x, weight, bias, *_rest(shape))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (y,), (x, weight) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():
            return _Back.apply(y, x.detach(), weight, ctx.shape), None, None, None
        mask = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.sizes is not None and ctx.needs_input_grad[2]]
        return *_backward(y, x, weight, ctx.sizes, *_rest(ctx.shape), mask), None


class _Back(torch.autograd.Function):
    """The gradient of a convolution's input: linear in the output's gradient and in the weight."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, weight: Tensor, shape: _Shape) -> Tensor:
        ctx.save_for_backward(y, weight)
        ctx.shape = shape
        return _backward(y, x, weight, None, *_rest(shape), [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,), (y, weight) = gradients, ctx.saved_tensors
        for_y = _Convolution.apply(x, weight, None, ctx.shape) if ctx.needs_input_grad[0] else None
        for_weight = None
        if ctx.needs_input_grad[2]:
            for_weight = _backward(y, x, weight, None, *_rest(ctx.shape), [False, True, False])[1]
        return for_y, None, for_weight, None
