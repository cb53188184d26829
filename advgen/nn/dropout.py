"""Dropout by position (Srivastava et al. 2014): what is left out of a sample depends on no other, and on no rank."""

from __future__ import annotations

from torch import Tensor

from advgen.seeds import Noise


def dropout_mask(noise: Noise, purpose: str, rate: float, *shape: int) -> Tensor:
    """[n, *shape], n being the noise's rows: 0 with probability ``rate`` in [0, 1), and 1 / (1 - rate) else."""
    draw = noise.uniform(purpose, *shape)
    return (draw >= rate).to(draw.dtype) / (1.0 - rate)
