"""Ways between latents."""

from __future__ import annotations

import torch
from torch import Tensor


def slerp(a: Tensor, b: Tensor, share: Tensor | float) -> Tensor:
    """Spherical linear interpolation between normal latents (Shoemake 1985; White 2016, section 2.1).

    Directions move along the great circle at a constant rate, lengths linearly: points between two draws of
    N(0, I) are as long as those are, where points of the line between them are shorter than any draw. For a network
    that normalises its latents it is the interpolation of StyleGAN's released code.

    Args:
        a: float [n, d], where ``share`` is 0.
        b: float [n, d], where ``share`` is 1; no row opposite to that of ``a``, between which there is no one way.
        share: how far it is gone, in [0, 1]; one for all, or [n, 1].

    Returns:
        Of the type of ``a``, [n, d]; computed in float64, so that steps of 1e-4 keep their digits.
    """
    start, end = a.double(), b.double()
    length, other = start.norm(dim=1, keepdim=True), end.norm(dim=1, keepdim=True)
    start, end = start / length, end / other
    # The angle by atan2: acos loses half the digits where the directions are close.
    along = (start * end).sum(dim=1, keepdim=True)
    across = end - along * start
    size = across.norm(dim=1, keepdim=True)
    angle = torch.atan2(size, along) * share
    across = across / size.clamp_min(torch.finfo(torch.float64).tiny)  # equal directions: there is no way to go
    way = start * angle.cos() + across * angle.sin()
    return (way * (length + share * (other - length))).to(a.dtype)
