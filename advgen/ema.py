"""Exponential moving averages of network parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Discriminator

from advgen.strict_config import configuration

if TYPE_CHECKING:
    from torch import Tensor, nn


@configuration
class ConstantDecay:
    """The same weight of the old value at each update (ProGAN: .999)."""

    kind: Literal["constant"] = "constant"
    decay: float = 0.999
    """Weight of the old value, in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError("decay must lie in [0, 1)")

    def at(self, nimg: int, batch_size: int) -> float:
        """Weight of the old value at an update after ``nimg`` images."""
        return self.decay


@configuration
class HalfLife:
    """A half-life in images, so that the average does not depend on the batch size (StyleGAN2's form)."""

    kind: Literal["half_life"] = "half_life"
    kimg: float = 10.0
    """Half-life in thousands of images."""
    rampup: float | None = None
    """If given, the half-life is at most this fraction of the images seen, so that it is short in the beginning."""

    def __post_init__(self) -> None:
        if self.kimg <= 0 or (self.rampup is not None and self.rampup <= 0):
            raise ValueError("kimg and rampup must be positive")

    def at(self, nimg: int, batch_size: int) -> float:
        """Weight of the old value at an update after ``nimg`` images."""
        half_life = self.kimg * 1000.0
        if self.rampup is not None:
            half_life = min(half_life, nimg * self.rampup)
        return 0.5 ** (batch_size / max(half_life, 1e-8))


DecayRule = Annotated[ConstantDecay | HalfLife, Discriminator("kind")]


def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * network, parameter by parameter; buffers are copied."""
    import torch

    with torch.no_grad():
        old: list[Tensor] = list(average.parameters())
        new: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(old, new, 1.0 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for buffer, latest in zip(average.buffers(), network.buffers(), strict=True):
            buffer.copy_(latest)
