from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from advgen.data.shards import verify_shards
from advgen.data.stream import ImageStream
from advgen.errors import UserError
from advgen.tools.drawn_shards import DRAWN, write_drawn_shards
from advgen.tools.numbered import Numbered, Series

SIDE = 8


def draw(numbers: range) -> Iterator[torch.Tensor]:
    """Picture i is noise of the seed i, except that 6 is 5 once more."""
    for number in numbers:
        random = np.random.default_rng(5 if number == 6 else number)
        yield torch.from_numpy(random.integers(0, 256, (1, 3, SIDE, SIDE), dtype=np.uint8))


def silent(done: int, total: int) -> None:
    """No progress is shown."""


def write(out: Path, seed: int = 0, numbers: range = range(3, 15), hand=draw):  # type: ignore[no-untyped-def]
    pictures = Numbered(Series(seed, classes=(2, 0)), {"run": "a"})
    return write_drawn_shards(out, pictures, numbers, hand, silent, classes=4, shape=(3, SIDE))


def test_shards_hold_the_pictures_in_their_order_with_their_labels(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "drawn"
    manifest = write(out)
    assert verify_shards(out) == manifest
    # Classes of which no picture was drawn count, too: labels are numbers among all of them.
    assert [(each.name, each.count) for each in manifest.classes] == [("0", 6), ("1", 0), ("2", 6), ("3", 0)]
    assert (manifest.samples, manifest.changed, manifest.rejected) == (12, {}, 0), "two equal ones stay two"
    stream = ImageStream(out, seed=0, resolution=SIDE, channels=3)
    found = stream.fetch(np.arange(12))
    np.testing.assert_array_equal(found.images, torch.cat(list(draw(range(3, 15)))).numpy())
    assert found.labels is not None and found.labels.tolist() == [0, 2] * 6
    told = {"run": "a", "seed": "0", "first": 3, "count": 12, "classes": [2, 0]}
    assert json.loads((out / DRAWN).read_text()) == told
    assert [path.name for path in out.parent.iterdir() if not path.name.endswith(".lock")] == ["drawn"]


def test_what_was_interrupted_goes_on_and_what_is_done_is_left_alone(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def some(numbers: range) -> Iterator[torch.Tensor]:
        yield from draw(range(numbers.start, numbers.start + 5))
        raise Killed

    def rest(numbers: range) -> Iterator[torch.Tensor]:
        assert numbers == range(8, 15), "five were there"
        return draw(numbers)

    def nothing(numbers: range) -> Iterator[torch.Tensor]:
        raise AssertionError("all are there")

    out = tmp_path / "drawn"
    with pytest.raises(Killed):
        write(out, hand=some)
    assert not out.exists()
    manifest = write(out, hand=rest)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert write(out, hand=nothing) == manifest
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == stamps
    assert write(tmp_path / "whole").digest == manifest.digest


def test_shards_that_were_not_recorded_yet_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    def killed(path: Path, value: object) -> None:
        raise Killed

    out = tmp_path / "drawn"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("advgen.tools.drawn_shards.write_json", killed)
        write(out)
    assert not (out / DRAWN).exists()
    assert write(out).samples == 12 and (out / DRAWN).is_file()


def test_other_shards_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    write(out)
    before = sorted(path.name for path in out.iterdir())
    for seed, numbers in ((1, range(3, 15)), (0, range(3, 14))):
        with pytest.raises(UserError, match="drawn: is there already, and holds other pictures"):
            write(out, seed, numbers)
    assert sorted(path.name for path in out.iterdir()) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("mine", "file"):
        with pytest.raises(UserError, match=f"{name}: is there already"):
            write(tmp_path / name)
