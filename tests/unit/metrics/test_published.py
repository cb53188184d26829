"""Published statistics: files as pytorch-fid, ADM and EDM write them, and files that are none."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advgen import files
from advgen.errors import UserError
from advgen.metrics.frechet import frechet_distance
from advgen.metrics.published import read_statistics
from advgen.metrics.statistics import FeatureStatistics

D = 6


def moments(dtype: Any = np.float64) -> dict[str, Any]:
    """mu and sigma of 50 vectors, as numpy computes them."""
    features = np.random.default_rng(0).standard_normal((50, D)) + 2.0
    return {"mu": features.mean(0).astype(dtype), "sigma": np.cov(features, rowvar=False).astype(dtype)}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("more", [{}, {"mu_s": np.zeros(3), "sigma_s": np.eye(3)}])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_file_gives_its_mean_and_covariance(tmp_path: Path, compressed: bool, more: dict[str, Any], dtype: Any):
    path, given = tmp_path / "reference.npz", moments(dtype)
    save: Any = np.savez_compressed if compressed else np.savez
    save(path, **given, **more)
    found = read_statistics(path)
    assert found.dimensions == D and found.sha256 == files.sha256(path)
    assert found.mean.dtype == found.covariance.dtype == torch.float64
    np.testing.assert_array_equal(found.mean, given["mu"])
    np.testing.assert_allclose(found.covariance, given["sigma"], rtol=1e-6)
    assert torch.equal(found.covariance, found.covariance.T)


def test_the_distance_from_a_file_is_that_from_the_features(tmp_path: Path):
    features = torch.randn(50, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    others = torch.randn(40, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    np.savez(tmp_path / "a.npz", mu=features.numpy().mean(0), sigma=np.cov(features.numpy(), rowvar=False))
    a, b = FeatureStatistics(D), FeatureStatistics(D)
    a.add(features)
    b.add(others)
    assert frechet_distance(b, read_statistics(tmp_path / "a.npz")) == pytest.approx(frechet_distance(b, a), rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": None}, "has no array sigma"),
        ({"mu": None, "sigma": None}, "has no array mu and sigma"),
        ({"mu": np.zeros(D - 1)}, r"mu \[5\] and sigma \[6, 6\]"),
        ({"mu": np.zeros(()), "sigma": np.zeros(())}, r"mu \[\] and sigma \[\]"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "no mean and covariance"),
        ({"mu": np.arange(D)}, r"mu \(int64\) is not made of finite floating-point"),
        ({"mu": np.full(D, np.nan)}, "mu .* finite"),
        ({"sigma": np.full((D, D), np.inf)}, "sigma .* finite"),
        ({"sigma": np.triu(np.ones((D, D)))}, "not symmetric"),
        ({"sigma": -np.eye(D)}, "negative variances"),
        ({"mu": np.array([_ for _ in "abcdef"], dtype=object)}, "pickle"),
    ],
)
def test_what_is_no_mean_and_covariance_is_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    path = tmp_path / "reference.npz"
    np.savez(path, other=np.zeros(1), **{k: v for k, v in (moments() | changes).items() if v is not None})
    with pytest.raises(UserError, match=rf"reference\.npz: .*{message}"):
        read_statistics(path)


def test_other_files_are_refused_and_no_pickle_is_opened(tmp_path: Path):
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "harm",)

    whole = tmp_path / "whole.npz"
    np.savez(whole, **moments())
    content = whole.read_bytes()
    np.save(tmp_path / "array.npy", moments()["mu"])
    spoiled = bytearray(content)
    spoiled[len(content) // 2] ^= 0xFF
    for number, each in enumerate(
        (
            b"",
            b"text",
            content[: len(content) // 2],
            bytes(spoiled),
            pickle.dumps(Harmful()),
            (tmp_path / "array.npy").read_bytes(),
        )
    ):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(each)
        with pytest.raises(UserError, match=rf"{number}\.npz: is (damaged|no \.npz)"):
            read_statistics(path)
    assert not (tmp_path / "harm").exists()
    for missing in (tmp_path / "nowhere.npz", tmp_path):
        with pytest.raises(UserError, match="no such file"):
            read_statistics(missing)
