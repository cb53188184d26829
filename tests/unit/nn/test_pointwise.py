"""1x1 convolutions, on one pixel and on more."""

import pytest
import torch
from torch import nn

from advgen.nn.pointwise import PointwiseConv2d


@pytest.mark.parametrize("pixels", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_gives_what_a_convolution_gives_forward_and_backward(pixels: int, bias: bool) -> None:
    ours, plain = PointwiseConv2d(5, 7, bias).double(), nn.Conv2d(5, 7, 1, bias=bias).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(4, 5, pixels, pixels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grads = []
    for layer in (ours, plain):
        given = x.clone().requires_grad_()
        out = layer(given)
        assert out.shape == (4, 7, pixels, pixels)
        grads.append((out, *torch.autograd.grad(out.square().sum(), [given, *layer.parameters()])))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
