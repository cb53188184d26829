"""The cache of a reference's statistics: used under its own key alone, and never trusted when damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from advgen.errors import UserError
from advgen.metrics.reference import entry_of, named_statistics, reference_statistics
from advgen.metrics.statistics import FeatureStatistics

KEY = {
    "manifest": "ab" * 32,
    "extractor": {"name": "lite0", "weights_sha256": "57934424", "input_size": 64},
    "resolution": 64,
    "count": 20,
    "samples": "first",
}


class _Counted:
    """A computation that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> FeatureStatistics:
        self.calls += 1
        statistics = FeatureStatistics(5)
        statistics.add(torch.randn(20, 5, generator=torch.Generator().manual_seed(0)))
        return statistics


def _same(a: FeatureStatistics, b: FeatureStatistics) -> bool:
    return a.count == b.count and torch.equal(a.mean, b.mean) and torch.equal(a.covariance, b.covariance)


def test_the_second_call_reads_what_the_first_stored(tmp_path: Path):
    compute = _Counted()
    first = reference_statistics(KEY, tmp_path / "new" / "cache", compute)
    second = reference_statistics(dict(reversed(KEY.items())), tmp_path / "new" / "cache", compute)
    assert compute.calls == 1
    assert _same(first, second)


@pytest.mark.parametrize(
    "change",
    [
        {"manifest": "cd" * 32},
        {"extractor": {"name": "lite0", "weights_sha256": "57934424", "input_size": 128}},
        {"resolution": 32},
        {"count": 21},
        {"samples": "last"},
    ],
)
def test_any_part_of_the_key_makes_another_entry(tmp_path: Path, change: dict[str, object]):
    compute = _Counted()
    reference_statistics(KEY, tmp_path, compute)
    reference_statistics(KEY | change, tmp_path, compute)
    assert compute.calls == 2
    reference_statistics(KEY, tmp_path, compute)
    assert compute.calls == 2


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))


def _other_key(path: Path) -> None:
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"key": {"manifest": "of another set"}}))


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".safetensors", _cut),
        (".safetensors", _flip),
        (".safetensors", Path.unlink),
        (".safetensors", lambda path: path.write_bytes(b"")),
        (".json", _cut),
        (".json", Path.unlink),
        (".json", lambda path: path.write_text("[]")),
        (".json", lambda path: path.write_bytes(b"\xff\xfe")),
        (".json", _other_key),
    ],
)
def test_a_damaged_entry_is_computed_anew_and_replaced(tmp_path: Path, suffix: str, damage: Callable[[Path], object]):
    compute = _Counted()
    sound = reference_statistics(KEY, tmp_path, compute)
    [path] = tmp_path.glob(f"*{suffix}")
    damage(path)
    assert _same(reference_statistics(KEY, tmp_path, compute), sound)
    assert compute.calls == 2
    assert _same(reference_statistics(KEY, tmp_path, compute), sound)
    assert compute.calls == 2


def test_tensors_that_are_no_statistics_are_refused_even_with_the_right_hash(tmp_path: Path):
    import hashlib

    import safetensors.torch

    compute = _Counted()
    reference_statistics(KEY, tmp_path, compute)
    [tensors], [sidecar] = tmp_path.glob("*.safetensors"), tmp_path.glob("*.json")
    tensors.write_bytes(safetensors.torch.save({"weights": torch.zeros(3)}))
    entry = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(entry | {"sha256": hashlib.sha256(tensors.read_bytes()).hexdigest()}))
    reference_statistics(KEY, tmp_path, compute)
    assert compute.calls == 2


def test_a_cache_that_cannot_be_written_costs_only_the_storing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    compute = _Counted()
    assert reference_statistics(KEY, blocked, compute).count == 20
    assert "could not be stored" in caplog.text


def test_nothing_but_the_entry_is_left(tmp_path: Path):
    reference_statistics(KEY, tmp_path, _Counted())
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_an_entry_that_is_named_is_read(tmp_path: Path):
    stored = reference_statistics(KEY, tmp_path, _Counted())
    assert _same(named_statistics(entry_of(KEY, tmp_path), KEY), stored)


def test_one_of_something_else_is_refused_with_all_that_differs(tmp_path: Path):
    reference_statistics(KEY, tmp_path, _Counted())
    other = KEY | {"resolution": 32, "extractor": {"name": "lite0", "weights_sha256": "57934424", "input_size": 128}}
    with pytest.raises(UserError) as caught:
        named_statistics(entry_of(KEY, tmp_path), other)
    text = str(caught.value)
    assert (
        "extractor.input_size: 64 in the file, 128 wanted" in text and "resolution: 64 in the file, 32 wanted" in text
    )
    assert "weights" not in text and "manifest" not in text


@pytest.mark.parametrize("damage", ["missing", "cut", "no entry"])
def test_one_that_is_not_whole_is_refused(tmp_path: Path, damage: str):
    reference_statistics(KEY, tmp_path, _Counted())
    path = entry_of(KEY, tmp_path)
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    else:
        path.with_suffix(".json").write_text("[]")
    with pytest.raises(
        UserError, match=f"{path}: is no whole file of reference statistics .* `advgen evaluate reference"
    ):
        named_statistics(path, KEY)
