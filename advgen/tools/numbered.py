"""Pictures in a folder, one PNG file a number, each with the text that says what it is: begun again, it goes on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from advgen.data.folders import exclusive
from advgen.errors import UserError
from advgen.images import save_pngs, text_of


@dataclass(frozen=True)
class Series:
    """Pictures by number: each is a function of these, of its number and of the checkpoint.

    Attributes:
        seed: of the noise.
        classes: number i is of the i-th of them, in turn; empty without classes.
        truncation: threshold at which latents are truncated (:func:`advgen.tools.latents.truncated`); None: they are
            not.
    """

    seed: int
    classes: tuple[int, ...] = ()
    truncation: float | None = None

    def label(self, number: int) -> int | None:
        """The class of a picture."""
        return self.classes[number % len(self.classes)] if self.classes else None

    @property
    def about(self) -> dict[str, str]:
        """What all of its pictures share, as text to be stored with them."""
        truncation = {} if self.truncation is None else {"truncation": repr(self.truncation)}
        return {"seed": str(self.seed), **truncation}


@dataclass(frozen=True)
class Numbered:
    """How the pictures of a folder are named and described.

    Attributes:
        series: which pictures they are.
        drawn_with: text about that, which all of them store.
        by_class: whether each class has a sub-folder.
    """

    series: Series
    drawn_with: Mapping[str, str]
    by_class: bool = False

    def name(self, number: int) -> str:
        """Path of a picture within the folder: ``000012.png``, or ``3/000012.png`` of class 3."""
        return f"{self.series.label(number)}/{number:06d}.png" if self.by_class else f"{number:06d}.png"

    @property
    def about(self) -> dict[str, str]:
        """What all pictures store."""
        return {**self.drawn_with, **self.series.about}

    def text(self, number: int) -> dict[str, str]:
        """All that a picture stores."""
        label = self.series.label(number)
        return {**self.about, "index": str(number), **({} if label is None else {"label": str(label)})}


def write_numbered(
    out: Path,
    pictures: Numbered,
    numbers: range,
    draw: Callable[[range], Iterator[Tensor]],
    progress: Callable[[int, int], None],
) -> int:
    """Write the pictures that are not there yet; those that are there are left alone, whatever their numbers.

    Args:
        out: the folder; new, empty, or of the same pictures.
        pictures: names and texts.
        numbers: of pictures to write.
        draw: gives pictures uint8 [n, c, h, w] of consecutive numbers, batch by batch.
        progress: called with (done, total) pictures.

    Returns:
        How many were there.

    Raises:
        UserError: the folder holds something else; nothing is written then.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file. Name a folder for numbered pictures.")
    with exclusive(out, what="pictures"):
        there = _there(out, pictures)
        kept = sum(number in there for number in numbers)
        done = kept
        progress(done, len(numbers))
        for gap in _gaps(numbers, there):
            number = gap.start
            for batch in draw(gap):
                save_pngs(
                    [
                        (out / pictures.name(i), image.permute(1, 2, 0), pictures.text(i))
                        for i, image in enumerate(batch, number)
                    ]
                )
                number += len(batch)
                done += len(batch)
                progress(done, len(numbers))
    return kept


def _there(out: Path, pictures: Numbered) -> set[int]:
    """Numbers of the pictures of a folder, each looked at: it must be the one that would be written."""
    found: set[int] = set()
    for parent, folders, files in os.walk(out):
        folders.sort()
        for file in sorted(files):
            path = Path(parent) / file
            name = path.relative_to(out).as_posix()
            if re.fullmatch(r"\.[0-9]+\.png\.[0-9]+\.tmp", file):
                path.unlink()  # half a file of a process that was killed; nobody else writes here
                continue
            number = re.fullmatch(r"([0-9]{6,18})\.png", file)
            if number is None or pictures.name(int(number[1])) != name:
                raise UserError(f"{out}: holds {name}, which is none of these pictures. Name a new folder.")
            _check(path, pictures.text(int(number[1])))
            found.add(int(number[1]))
    return found


def _check(path: Path, wanted: Mapping[str, str]) -> None:
    stored = text_of(path)
    differing = [key for key in {**wanted, **stored} if stored.get(key) != wanted.get(key)]
    if differing:
        rows = [f"{key} {stored.get(key, 'not told')!r} and not {wanted.get(key, 'not told')!r}" for key in differing]
        raise UserError(f"{path}: was drawn otherwise: {'; '.join(rows)}. Name a new folder, or remove this one.")


def _gaps(numbers: range, there: set[int]) -> Iterator[range]:
    """Consecutive numbers that are missing."""
    start: int | None = None
    for number in numbers:
        if number in there:
            if start is not None:
                yield range(start, number)
            start = None
        elif start is None:
            start = number
    if start is not None:
        yield range(start, numbers.stop)
