"""A folder of image files as a stream: what somebody else's model has drawn, for metrics to look at."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advgen.data.decode import BadImage, box_mean, decode
from advgen.data.order import Positions
from advgen.data.parts import Samples
from advgen.data.sources import EXTENSIONS
from advgen.errors import UserError
from advgen.files import sha256


class ImageFolder:
    """Image files of one size below a folder, in the order of their names (:class:`advgen.data.stream.NumberedStream`).

    Attributes:
        height, width: of every image, in pixels.
        digest: SHA-256 over names and contents.

    Raises:
        UserError: there is no image, or the first one cannot be decoded.
    """

    def __init__(self, folder: Path, channels: int) -> None:
        self._folder, self._channels = folder, channels
        found = sorted(folder.rglob("*")) if folder.is_dir() else []
        self._paths = [path for path in found if path.suffix.lower() in EXTENSIONS and path.is_file()]
        if not self._paths:
            raise UserError(f"{folder}: no images there ({', '.join(EXTENSIONS)}). Name a folder that holds some.")
        self.height, self.width = self._pixels(self._paths[0]).shape[1:]
        names = "".join(f"{path.relative_to(folder)} {sha256(path)}\n" for path in self._paths)
        self.digest = hashlib.sha256(names.encode()).hexdigest()

    def __str__(self) -> str:
        return str(self._folder)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, positions: Positions, level: int | None = None) -> Samples:
        """Images by their number, from 0 on; the folder stands once in the stream."""
        return self.fetch(positions, level)

    def fetch(self, indices: NDArray[np.int64], level: int | None = None) -> Samples:
        """Images by their number.

        Args:
            indices: int64 [n].
            level: height of the result in pixels, the images' divided by a power of two; None: as they are.

        Raises:
            UserError: a file cannot be decoded, or is of another size; names it.
        """
        images = [self._pixels(self._paths[index]) for index in indices.tolist()]
        for index, image in zip(indices.tolist(), images, strict=True):
            if image.shape[1:] != (self.height, self.width):
                raise UserError(
                    f"{self._paths[index]}: has {image.shape[2]} x {image.shape[1]} pixels, and {self._paths[0].name} "
                    f"{self.width} x {self.height}. Name a folder of images of one size."
                )
        return Samples(box_mean(np.stack(images), level or self.height), None)

    def _pixels(self, path: Path) -> NDArray[np.uint8]:
        try:
            return decode(path.read_bytes(), self._channels)
        except BadImage as error:
            raise UserError(f"{path}: {error}. Remove it, or make it anew.") from None
