"""Latents of a truncated normal distribution, and closed ways through latents."""

from __future__ import annotations

import torch
from torch import Tensor

from advgen.interpolation import slerp


def truncated(latents: Tensor, threshold: float) -> Tensor:
    """Draws of N(0, 1) to draws of N(0, 1) given that no magnitude is above a threshold, value by value.

    The truncation trick of BigGAN (Brock et al. 2018, section 3.1) draws values anew until they lie within; this is the
    same distribution by its inverse, z' = F^-1(F(-t) + F(z) (F(t) - F(-t))) with the normal distribution function F.
    It needs no loop whose length depends on the draw, and keeps which picture it is: z' grows with z and tends to it
    for large thresholds.

    Args:
        latents: float, from N(0, 1).
        threshold: t, positive.

    Returns:
        Of the type and shape of ``latents``, within [-t, t]; computed in float64.
    """
    # By the smaller half, whose share of the distribution keeps its digits in the tail.
    z = -latents.double().abs()
    low = torch.special.ndtr(torch.tensor(-threshold, dtype=torch.float64, device=z.device))
    within = torch.special.ndtri(low + torch.special.ndtr(z) * (1 - 2 * low))
    return within.abs().clamp_max(threshold).copysign(latents.double()).to(latents.dtype)


def closed_way(keys: Tensor, at: Tensor, *, spherical: bool) -> Tensor:
    """Points of ways through keys and back to the first, at a constant rate from each key to the next.

    Args:
        keys: float [k, n, d], the keys of n ways.
        at: float64 [n], how far each is gone, in keys: whole numbers are keys, k is the first again.
        spherical: whether it goes by arcs (:func:`advgen.interpolation.slerp`), as for normal latents, or by lines.

    Returns:
        [n, d].
    """
    count, rows = len(keys), torch.arange(keys.shape[1], device=keys.device)
    before = at.floor().long()
    share = (at - before)[:, None]
    start, end = keys[before % count, rows], keys[(before + 1) % count, rows]
    if spherical:
        return slerp(start, end, share)
    return torch.lerp(start.double(), end.double(), share).to(keys.dtype)
