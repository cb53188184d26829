"""What may be removed of a run folder without losing a result: old checkpoints, what killed writers left, caches."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from advgen.errors import UserError
from advgen.runtime.checkpoint import list_checkpoints, name_of, newest_whole, phase_ended, spaced
from advgen.runtime.run_folder import RunFolder

_ENTRY = re.compile(r"[0-9a-f]{64}\.(safetensors|json)")


@dataclass(frozen=True)
class Removable:
    """Something that may go.

    Attributes:
        size: in bytes, of all files in it.
        why: in a few words.
    """

    path: Path
    size: int
    why: str


def removable(folder: RunFolder, keep: int = 1, every: int | None = None) -> list[Removable]:
    """Old checkpoints, and what was being written when a training was killed.

    The ``keep`` newest checkpoints stay, those at phase ends (and the beginning), those that a metric or a likelihood
    was taken of, and, as in training, one in ``every`` so many images. The newest are counted from the one from which
    the run would go on: newer ones that are damaged stay as well, and all stay where none is whole. So does one whose
    state cannot be read, for a person to look at.
    """
    known = list_checkpoints(folder.checkpoints)
    spared = _named(folder) | (spaced(known, every) if every is not None else set())
    old: list[Removable] = []
    for path in known[:-keep]:
        try:
            within = phase_ended(path) is None
        except UserError:
            continue
        if within and path.name not in spared and not path.is_symlink():
            old.append(Removable(path, _size(path), "old checkpoint"))
    found: list[Removable] = []
    if old:  # only now: to look at a whole checkpoint is to read it
        whole, _ = newest_whole(folder.checkpoints)
        kept = {path.name for path in known if whole is None or path.name > whole.name}
        kept |= {path.name for path in [path for path in known if path.name not in kept][-keep:]}
        found = [each for each in old if each.path.name not in kept]
    for path in sorted((*folder.checkpoints.glob(".*.tmp"), *folder.profile.glob(".*.tmp"))):
        found.append(Removable(path, _size(path), "half-written"))
    return found


def cached(cache: Path) -> list[Removable]:
    """The entries of a cache of reference statistics and judges; other files there are left alone."""
    entries = sorted(path for path in cache.glob("*") if _ENTRY.fullmatch(path.name) and path.is_file())
    return [Removable(path, path.stat().st_size, "cache") for path in entries]


def remove(items: list[Removable]) -> None:
    """Remove them. A checkpoint loses its name first: a kill in between leaves no half of it under it."""
    for item in items:
        if not item.path.is_dir():
            item.path.unlink(missing_ok=True)
            continue
        doomed = item.path
        if not doomed.name.endswith(".tmp"):
            doomed = item.path.with_name(f".{item.path.name}.{os.getpid()}.old.tmp")
            os.replace(item.path, doomed)
        shutil.rmtree(doomed)


def _named(folder: RunFolder) -> set[str]:
    """Names of the checkpoints that records are of."""
    return {name_of(nimg) for path in (folder.metrics, folder.likelihood) for nimg in _nimg_in(path)}


def _nimg_in(path: Path) -> Iterator[int]:
    """Images seen at the checkpoints of a file's records.

    Raises:
        UserError: a record cannot be read: it may be of a checkpoint that would go.
    """
    for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else (), start=1):
        try:
            yield int(json.loads(line)["nimg"])
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path}: line {number} cannot be read, and a checkpoint that it is of would go. Take it out."
            ) from None


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(_size(each) for each in path.iterdir())
