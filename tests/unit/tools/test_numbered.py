from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advgen.errors import UserError
from advgen.images import text_of
from advgen.tools.numbered import Numbered, Series, write_numbered

ABOUT = {"run": "a", "nimg": "7"}


class Hand:
    """Draws picture i as the grey i, five at a time, and remembers which it was asked for."""

    def __init__(self) -> None:
        self.asked: list[range] = []

    def __call__(self, numbers: range) -> Iterator[torch.Tensor]:
        self.asked.append(numbers)
        for start in range(numbers.start, numbers.stop, 5):
            rows = torch.arange(start, min(start + 5, numbers.stop), dtype=torch.uint8)
            yield rows[:, None, None, None].expand(-1, 1, 4, 4)


def write(out: Path, numbers: range, pictures: Numbered | None = None) -> tuple[int, list[range], list[int]]:
    """(how many were there, what was drawn, what was told)."""
    hand, told = Hand(), list[int]()

    def progress(done: int, total: int) -> None:
        assert total == len(numbers)
        told.append(done)

    kept = write_numbered(out, pictures or Numbered(Series(0), ABOUT), numbers, hand, progress)
    return kept, hand.asked, told


def names(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_what_is_there_is_kept_and_only_gaps_are_drawn(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert write(out, range(8)) == (0, [range(8)], [0, 5, 8])
    assert names(out) == [f"{number:06d}.png" for number in range(8)]
    for number in (2, 3, 6):
        (out / f"{number:06d}.png").unlink()
    (out / ".000002.png.4711.tmp").write_bytes(b"half")
    old = (out / "000005.png").stat().st_mtime_ns
    assert write(out, range(1, 10)) == (4, [range(2, 4), range(6, 7), range(8, 10)], [4, 6, 7, 9])
    assert names(out) == [f"{number:06d}.png" for number in range(10)]
    assert (out / "000005.png").stat().st_mtime_ns == old
    assert write(out, range(10)) == (10, [], [10])
    for number in range(10):
        with Image.open(out / f"{number:06d}.png") as image:
            assert image.mode == "L" and (np.asarray(image) == number).all()
        assert text_of(out / f"{number:06d}.png") == {**ABOUT, "seed": "0", "index": str(number)}


def test_classes_have_folders_of_their_own(tmp_path: Path) -> None:
    pictures = Numbered(Series(3, classes=(4, 11), truncation=0.5), ABOUT, by_class=True)
    assert write(tmp_path / "out", range(3), pictures) == (0, [range(3)], [0, 3])
    assert names(tmp_path / "out") == ["11/000001.png", "4/000000.png", "4/000002.png"]
    wanted = {**ABOUT, "seed": "3", "truncation": "0.5", "index": "2", "label": "4"}
    assert text_of(tmp_path / "out/4/000002.png") == wanted
    assert write(tmp_path / "out", range(3), pictures) == (3, [], [3])


def test_other_pictures_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, range(3))
    for pictures, message in (
        (Numbered(Series(1), ABOUT), r"000000.png: was drawn otherwise: seed '0' and not '1'"),
        (Numbered(Series(0), {"run": "a"}), "nimg '7' and not 'not told'"),
        (Numbered(Series(0, truncation=1.0), ABOUT), "truncation 'not told' and not '1.0'"),
        (Numbered(Series(0, classes=(0, 1)), ABOUT, by_class=True), "holds 000000.png, which is none of these"),
    ):
        with pytest.raises(UserError, match=message):
            write(out, range(3, 5), pictures)
    for name, content in (("note.txt", b"mine"), ("000003.png", b"no picture"), ("7.png", b"")):
        (out / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.* is (none of these pictures|no PNG file)"):
            write(out, range(3, 5))
        (out / name).unlink()
    shutil.copy(out / "000001.png", out / "000003.png")
    with pytest.raises(UserError, match="000003.png: was drawn otherwise: index '1' and not '3'"):
        write(out, range(5))
    (out / "000003.png").unlink()
    assert names(out) == ["000000.png", "000001.png", "000002.png"]
    with pytest.raises(UserError, match="is a file. Name a folder"):
        write(out / "000000.png", range(3))
