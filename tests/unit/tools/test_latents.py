from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from advgen.seeds import Noise
from advgen.tools.latents import closed_way, truncated


def normal(rows: int, columns: int) -> torch.Tensor:
    return Noise(0, ("test",), torch.arange(rows)).normal("latent", columns)


@pytest.mark.parametrize("threshold", [0.04, 0.5, 2.0, 5.0])
def test_truncated_latents_are_of_the_truncated_normal_distribution(threshold: float) -> None:
    z = normal(500, 40)
    within = truncated(z, threshold)
    assert within.dtype == torch.float32 and within.abs().max() <= threshold
    reference = stats.truncnorm(-threshold, threshold)
    # 20,000 draws by a fixed seed; a p value below 0.001 would be one in a thousand.
    assert stats.kstest(within.double().flatten().numpy(), reference.cdf).pvalue > 0.001
    # Value by value the quantile of the same probability, by scipy.
    expected = reference.ppf(stats.norm.cdf(z.double().numpy()))
    np.testing.assert_allclose(within.double().numpy(), expected, rtol=1e-6, atol=1e-7)


def test_far_thresholds_leave_latents_as_they_are_and_tails_keep_their_order() -> None:
    z = torch.linspace(-6, 6, 2001)
    torch.testing.assert_close(truncated(z, 9.0), z, rtol=0, atol=1e-6)
    near = truncated(z.double(), 1.0)
    assert (near.diff() > 0).all() and torch.equal(near, -truncated(-z.double(), 1.0))
    assert truncated(torch.zeros(3), 0.5).abs().max() == 0


def test_a_closed_way_passes_its_keys_and_returns() -> None:
    keys = normal(12, 16).reshape(4, 3, 16)
    for spherical in (True, False):
        for key in range(4):
            at = torch.full((3,), float(key), dtype=torch.float64)
            torch.testing.assert_close(closed_way(keys, at, spherical=spherical), keys[key], rtol=0, atol=1e-6)
        near_end = closed_way(keys, torch.full((3,), 4 - 1e-6, dtype=torch.float64), spherical=spherical)
        torch.testing.assert_close(near_end, keys[0], rtol=0, atol=1e-4)


def test_each_way_of_several_is_as_far_as_it_says() -> None:
    keys = normal(6, 16).reshape(3, 2, 16).double()
    at = torch.tensor([0.25, 1.5], dtype=torch.float64)
    line = closed_way(keys, at, spherical=False)
    torch.testing.assert_close(line[0], 0.75 * keys[0, 0] + 0.25 * keys[1, 0])
    torch.testing.assert_close(line[1], 0.5 * keys[1, 1] + 0.5 * keys[2, 1])
    arc = closed_way(keys, at, spherical=True)
    # Halfway on an arc a point is as near to one end as to the other, in angle, and of the mean length.
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(arc[1], keys[1, 1], dim=0), cosine(arc[1], keys[2, 1], dim=0))
    torch.testing.assert_close(arc[1].norm(), (keys[1, 1].norm() + keys[2, 1].norm()) / 2)
