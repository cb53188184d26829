"""Streaming moments against numpy, in whatever cut and order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from advgen.metrics.statistics import FeatureStatistics

OFFSET = 1e4  # a naive sum of squares in float32 loses everything here, in float64 half of the digits


def _vectors(n: int = 331, d: int = 17) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + OFFSET


def _of(*batches: torch.Tensor) -> FeatureStatistics:
    statistics = FeatureStatistics(batches[0].shape[1])
    for batch in batches:
        statistics.add(batch)
    return statistics


def _assert_equal_moments(a: FeatureStatistics, b: FeatureStatistics) -> None:
    assert a.count == b.count
    torch.testing.assert_close(a.mean, b.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(a.covariance, b.covariance, rtol=1e-10, atol=1e-10)


def test_three_odd_batches_give_the_moments_of_numpy():
    vectors = _vectors()
    statistics = _of(*vectors.split([7, 1, 323]))
    assert statistics.count == 331
    # The mean is 1e4 with 16 digits: 1e-11 is its last one. The covariance is of order 10.
    np.testing.assert_allclose(statistics.mean.numpy(), vectors.numpy().mean(0), rtol=0, atol=2e-11)
    np.testing.assert_allclose(statistics.covariance.numpy(), np.cov(vectors.numpy().T), rtol=1e-10, atol=1e-10)


def test_float32_features_are_summed_in_float64():
    vectors = _vectors().float()
    np.testing.assert_allclose(
        _of(*vectors.split(50)).covariance.numpy(), np.cov(vectors.double().numpy().T), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("cut", [[331], [1] * 331, [100, 0, 231], [2, 3, 5, 321]])
def test_the_cut_does_not_matter(cut: list[int]):
    vectors = _vectors()
    _assert_equal_moments(_of(*vectors.split(cut)), _of(vectors))


def test_the_order_does_not_matter():
    vectors = _vectors()
    _assert_equal_moments(_of(*vectors.flip(0).split(13)), _of(vectors))


def test_merging_the_parts_of_processes_gives_the_whole():
    vectors = _vectors()
    merged = FeatureStatistics(17)
    for rank in range(4):
        merged.merge(_of(vectors[rank::4]))
    merged.merge(FeatureStatistics(17))
    _assert_equal_moments(merged, _of(vectors))


def test_merging_leaves_the_other_as_it_is():
    vectors = _vectors()
    part = _of(vectors[:100])
    whole = _of(vectors[100:])
    whole.merge(part)
    whole.add(vectors)
    _assert_equal_moments(part, _of(vectors[:100]))


def test_the_covariance_is_exactly_symmetric():
    covariance = _of(*_vectors().split(10)).covariance
    assert torch.equal(covariance, covariance.T)


def test_tensors_carry_the_state_bit_for_bit():
    vectors = _vectors()
    first = _of(vectors[:100])
    second = FeatureStatistics.from_tensors(first.to_tensors())
    for statistics in (first, second):
        statistics.add(vectors[100:])
    assert first.count == second.count
    assert torch.equal(first.mean, second.mean) and torch.equal(first.covariance, second.covariance)


def test_inference_tensors_are_taken_in():
    with torch.inference_mode():
        vectors = _vectors()
    assert _of(*vectors.split(100)).count == 331


@pytest.mark.parametrize(
    "change",
    [
        {"mean": torch.zeros(3)},
        {"scatter": torch.zeros(3, 2, dtype=torch.float64)},
        {"count": torch.tensor([-1])},
        {"surplus": torch.zeros(1)},
    ],
)
def test_malformed_tensors_are_refused(change: dict[str, torch.Tensor]):
    with pytest.raises(ValueError, match="tensors"):
        FeatureStatistics.from_tensors(FeatureStatistics(3).to_tensors() | change)


def test_a_value_that_is_not_finite_is_refused_and_leaves_no_trace():
    vectors = _vectors()
    statistics = _of(vectors)
    bad = vectors.clone()
    bad[5, 2] = torch.inf
    with pytest.raises(ValueError, match="finite"):
        statistics.add(bad)
    _assert_equal_moments(statistics, _of(vectors))


def test_misuse_is_named():
    statistics = FeatureStatistics(4)
    with pytest.raises(ValueError, match="at least one"):
        _ = statistics.mean
    statistics.add(torch.ones(1, 4))
    with pytest.raises(ValueError, match="at least two"):
        _ = statistics.covariance
    with pytest.raises(ValueError, match=r"\[n, 4\]"):
        statistics.add(torch.ones(2, 5))
    with pytest.raises(ValueError, match="merge"):
        statistics.merge(FeatureStatistics(5))
