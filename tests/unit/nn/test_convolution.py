"""Convolutions with their own second derivative, against torch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.losses.penalties import input_gradient
from advgen.nn.convolution import Conv2d, convolution

CASES = [(1, 1, 3, False), (1, 0, 1, False), (2, 1, 4, False), (2, 1, 4, True)]
Layer = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def ours(stride: int, padding: int, transposed: bool) -> Layer:
    return lambda x, weight, bias: convolution(x, weight, bias, stride, padding, transposed)


def theirs(stride: int, padding: int, transposed: bool) -> Layer:
    kind = F.conv_transpose2d if transposed else F.conv2d
    return lambda x, weight, bias: kind(x, weight, bias, stride, padding)


def tensors(kernel: int, transposed: bool, biased: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    torch.manual_seed(0)
    shape = (3, 5) if transposed else (5, 3)
    weight = torch.randn(*shape, kernel, kernel, dtype=dtype, requires_grad=True)
    return torch.randn(4, 3, 8, 8, dtype=dtype), weight, torch.randn(5, dtype=dtype, requires_grad=biased)


def penalised(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    """A critic of two uses of the layer, one of which bends; its loss with a penalty, and the gradients of that."""

    def critic(images: Tensor) -> Tensor:
        y = F.leaky_relu(layer(images, weight, bias), 0.2)
        return (y.square() + torch.sin(layer(images.flip(2), weight, bias))).mean(dim=(1, 2, 3))

    norms = input_gradient(critic, x).norm(dim=1)
    loss = critic(x).mean() + 10 * (norms - 1).square().mean()
    wanted = (weight,) if bias is None or not bias.requires_grad else (weight, bias)
    return loss.detach(), *torch.autograd.grad(loss, wanted)


@pytest.mark.parametrize(("stride", "padding", "kernel", "transposed"), CASES)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_penalty_has_torchs_gradients(
    stride: int, padding: int, kernel: int, transposed: bool, biased: bool, layout: torch.memory_format
) -> None:
    x, weight, bias = tensors(kernel, transposed, biased, torch.float64)
    x, bias = x.contiguous(memory_format=layout), bias if biased else None
    found = penalised(ours(stride, padding, transposed), x, weight, bias)
    expected = penalised(theirs(stride, padding, transposed), x, weight, bias)
    assert len(found) == len(expected) == (3 if biased else 2)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("stride", "padding", "kernel", "transposed"), CASES)
def test_derivatives_are_those_of_differences(stride: int, padding: int, kernel: int, transposed: bool) -> None:
    x, weight, bias = tensors(kernel, transposed, True, torch.float64)
    layer = ours(stride, padding, transposed)
    assert bias is not None
    assert torch.autograd.gradcheck(layer, (x[:1, :, :4, :4].clone().requires_grad_(), weight, bias))
    images = x[:1, :, :4, :4].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: layer(x, weight.detach(), None).square(), (images,))


def test_the_gradient_of_a_weight_is_not_recorded() -> None:
    x, weight, bias = tensors(3, False, True, torch.float32)
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        torch.autograd.grad(convolution(x, weight, bias, 1, 1).sum(), weight, create_graph=True)


def test_autocast_rounds_it_as_torchs() -> None:
    x, _, _ = tensors(3, False, True, torch.float32)
    layer = Conv2d(3, 5, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1)
    assert found.dtype == torch.bfloat16 and torch.equal(found, expected)
    found.sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32


def test_compiled_it_is_the_same_and_a_penalty_runs_as_written() -> None:
    x, _, _ = tensors(3, False, True, torch.float32)

    class Critic(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Conv2d(3, 5, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            return F.leaky_relu(self.layer(images), 0.2, inplace=True).square().mean(dim=(1, 2, 3))

    critic = Critic()

    def gradients() -> tuple[Tensor, ...]:
        loss = critic(x).mean() + (input_gradient(critic, x).norm(dim=1) - 1).square().mean()
        return torch.autograd.grad(loss, list(critic.parameters()))

    plain = gradients()
    critic.compile(
        backend="aot_eager"
    )  # takes the graph's gradient in advance, as the default does, without a compiler
    for one, other in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="double backward"):
        (gradient,) = torch.autograd.grad(critic(x.requires_grad_()).sum(), x, create_graph=True)
        gradient.square().sum().backward()
