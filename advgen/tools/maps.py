"""Label maps that a person gives, as games see them: checked, so that what is wrong is told with the file's name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advgen.data.decode import BadImage
from advgen.data.fitting import read_ids
from advgen.errors import UserError
from advgen.game import Batch
from advgen.tools.palette import colours

ENDINGS = (".png", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class MapFile:
    """The content of a file, and what to call it where it is refused."""

    name: str
    data: bytes


def maps_of(place: Path, instances: Path | None) -> list[tuple[str, Path, Path | None]]:
    """(name, label map, instance map) of a file, or of all files of a folder; instance maps have the same name there.

    Raises:
        UserError: there are none, two have one name, or one lacks its instance map.
    """
    if not place.is_dir():
        return [(place.stem, place, instances)]
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in ENDINGS)
    if not found:
        raise UserError(f"{place}: holds no label map ({', '.join(ENDINGS)}).")
    names = Counter(path.stem for path in found)
    twice = [path for path in found if names[path.stem] > 1]
    if twice:
        raise UserError(f"{twice[0]}: another map there has the same name but for its ending. Rename one.")
    if instances is None:
        return [(path.stem, path, None) for path in found]
    by_name = {path.stem: path for path in instances.iterdir()} if instances.is_dir() else {}
    lacking = [path.name for path in found if path.stem not in by_name]
    if lacking:
        raise UserError(f"{instances}: has no instance map for {lacking[0]} ({len(lacking)} lack theirs).")
    return [(path.stem, path, by_name[path.stem]) for path in found]


def read_maps(label_map: Path, instances: Path | None, *, classes: int, ignore: int | None) -> Batch:
    """The maps of two files, as :func:`check_maps` has them.

    Raises:
        UserError: a file cannot be read, or is refused.
    """
    found = None if instances is None else read_file(instances)
    return check_maps(read_file(label_map), found, classes=classes, ignore=ignore)


def read_file(path: Path) -> MapFile:
    """A file by its path.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return MapFile(str(path), path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def check_maps(
    label_map: MapFile,
    instances: MapFile | None,
    *,
    classes: int,
    ignore: int | None,
    size: tuple[int, int] | None = None,
) -> Batch:
    """One map as a batch without pixels.

    Args:
        label_map: ids in grey or palette.
        instances: ids of instances of the same size, or None.
        classes: ids of the label map are below.
        ignore: an id that is allowed besides.
        size: height and width that it must have, or None for any.

    Raises:
        UserError: a file is no such map, holds other ids, or has another size.
    """
    labels = _ids(label_map)
    if size is not None and labels.shape != size:
        raise UserError(f"{label_map.name}: has {_size(labels.shape)} pixels; this run paints {_size(size)}.")
    wrong = [int(i) for i in np.unique(labels) if i >= classes and i != ignore]
    if wrong:
        raise UserError(f"{label_map.name}: holds the ids {wrong[:5]}; this run knows 0 to {classes - 1}.")
    found = None if instances is None else _ids(instances)
    if instances is not None and found is not None and found.shape != labels.shape:
        raise UserError(f"{instances.name}: has {_size(found.shape)} pixels, its label map {_size(labels.shape)}.")
    return Batch(torch.empty(1, 0), None, _tensor(labels), None if found is None else _tensor(found))


def coloured(like: Batch, classes: int) -> Tensor:
    """The label map as a picture, uint8 [1, 3, h, w]; an id that stands for no class is black."""
    assert like.label_map is not None
    palette = torch.tensor([*colours(classes), (0, 0, 0)], dtype=torch.uint8)
    return palette[like.label_map.clamp(max=classes)].movedim(-1, 1)


def _ids(file: MapFile) -> NDArray[np.int32]:
    try:
        return read_ids(file.data)
    except BadImage as error:
        raise UserError(f"{file.name}: {error}. Give a map of ids in grey or palette, PNG for one.") from None


def _tensor(ids: NDArray[np.int32]) -> Tensor:
    return torch.from_numpy(ids.astype(np.int64))[None]


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
