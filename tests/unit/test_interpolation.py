"""Spherical interpolation against its definition, written with the sines of angles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from advgen.interpolation import slerp


def _by_sines(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """One row: sin((1 - t) w) / sin(w) of one direction and sin(t w) / sin(w) of the other; lengths on a line."""
    length, other = np.sqrt((a * a).sum()), np.sqrt((b * b).sum())
    u, v = a / length, b / other
    angle = math.acos(float(u @ v))
    way = (math.sin((1 - share) * angle) * u + math.sin(share * angle) * v) / math.sin(angle)
    return way * ((1 - share) * length + share * other)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_it_is_the_formula_of_sines(share: float) -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 5, 16))
    found = slerp(torch.from_numpy(a), torch.from_numpy(b), share)
    np.testing.assert_allclose(found, [_by_sines(*rows, share) for rows in zip(a, b, strict=True)], rtol=1e-12)
    each = slerp(torch.from_numpy(a), torch.from_numpy(b), torch.full((5, 1), share, dtype=torch.float64))
    assert torch.equal(each, found)


def test_a_short_step_keeps_its_digits() -> None:
    """The step of the perceptual path length is 1e-4 of an angle, also in float32 and between neighbours."""
    a, b = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(1)).double()
    angle = math.acos(float((a @ b.T) / (a.norm() * b.norm())))
    step = (slerp(a, b, 1e-4) / slerp(a, b, 1e-4).norm() - a / a.norm()).norm()
    assert float(step) == pytest.approx(1e-4 * angle, rel=1e-6)
    near = a + 1e-9 * b
    torch.testing.assert_close(slerp(a, near, 0.5), (a + near) / 2, rtol=0, atol=1e-14)
    torch.testing.assert_close(slerp(a, a, 0.7), a, rtol=1e-14, atol=0)
    assert slerp(a.float(), b.float(), 0.5).dtype == torch.float32
