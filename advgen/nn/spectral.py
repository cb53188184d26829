"""Spectral normalisation: layers whose weight is divided by an estimate of its largest singular value.

Miyato et al. 2018, algorithm 1: with the weight as a matrix W [outputs, rest] and a vector u that is kept,

    v = W^T u / |W^T u|,  u = W v / |W v|,  sigma = u^T W v,  y = (W / sigma) x

where the gradient takes u and v for constants. The iteration is not part of the forward: the player that trains the
network calls :func:`power_iteration` once an update, before it evaluates anything. A forward changes nothing, so

- an opponent, an average or a network that is evaluated keeps its u, whatever mode it is in;
- reals, fakes and points of a penalty are judged by the same function, as are micro-batches of one update (call it at
  ``context.micro_batch == 0`` only);
- activations that are computed again come out as they were, and no graph finds u changed under it.

u depends on weights alone, which are the same on every rank, and is a buffer: saved, moved and resumed as such. The
forward takes v anew from u: then sigma = |W^T u|, whose gradient by W is u v^T without more ado. Estimates are computed
in float32 with autocast off.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.nn.convolution import Conv2d
from advgen.precision import at_least_float32


class SpectralConv2d(Conv2d):
    """A convolution with zero padding.

    Args:
        inputs, outputs: channels in and out.
        kernel, stride, padding: in pixels.
        bias: whether there is one; it is not normalised.
    """

    u: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding, bias=bias)
        self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0))

    def forward(self, input: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h', w']."""
        return self.convolved(input, normalized(self.weight, self.u))


class SpectralLinear(nn.Linear):
    """A linear layer.

    Args:
        inputs, outputs: features in and out.
        bias: whether there is one; it is not normalised.
    """

    u: Tensor

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0))

    def forward(self, input: Tensor) -> Tensor:
        """[n, inputs] to [n, outputs]."""
        return F.linear(input, normalized(self.weight, self.u), self.bias)


class SpectralEmbedding(nn.Embedding):
    """Vectors of classes, the table [count, features] being the matrix (as a projection discriminator has it).

    Args:
        count: of classes.
        features: of a vector.
    """

    u: Tensor

    def __init__(self, count: int, features: int) -> None:
        super().__init__(count, features)
        self.register_buffer("u", F.normalize(torch.randn(count), dim=0))

    def forward(self, input: Tensor) -> Tensor:
        """int64 [n] to [n, features]."""
        return F.embedding(input, normalized(self.weight, self.u))


def normalized(weight: Tensor, u: Tensor) -> Tensor:
    """The weight [outputs, ...] over its largest singular value as u [outputs] estimates it; differentiable by it."""
    with torch.autocast(weight.device.type, enabled=False):
        return weight / torch.linalg.vector_norm(_matrix(weight).t() @ u)


@torch.no_grad()
def power_iteration(network: nn.Module) -> None:
    """One iteration of every layer's u towards the first left singular vector of the weight as it stands."""
    for layer in network.modules():
        if isinstance(layer, (SpectralConv2d, SpectralLinear, SpectralEmbedding)):
            matrix = _matrix(layer.weight)
            with torch.autocast(matrix.device.type, enabled=False):
                v = F.normalize(matrix.t() @ layer.u, dim=0)
                layer.u.copy_(F.normalize(matrix @ v, dim=0))


def _matrix(weight: Tensor) -> Tensor:
    """[outputs, rest], float32 at least."""
    return at_least_float32(weight).flatten(1)
