"""Images between bytes, the range [-1, 1] of networks, and files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from advgen.errors import UserError
from advgen.files import atomic_all

if TYPE_CHECKING:
    from torch import Tensor


def to_signed(images: Tensor) -> Tensor:
    """uint8 [...] in 0..255 to float32 in [-1, 1]."""
    return images.float().mul_(2.0 / 255.0).sub_(1.0)


def to_bytes(images: Tensor) -> Tensor:
    """float [...], nominally in [-1, 1], to uint8: values outside are clipped, the rest rounded to nearest."""
    return images.float().add(1.0).mul(127.5).round_().clamp_(0, 255).byte()


def box_down(images: Tensor, resolution: int) -> Tensor:
    """Mean over square blocks, to ``resolution`` pixels a side; uint8 in, uint8 out (rounded), float alike.

    Args:
        images: [n, c, h, w] with h = w = resolution times a whole number.
    """
    import torch.nn.functional as F

    factor = images.shape[-1] // resolution
    if factor == 1:
        return images
    small = F.avg_pool2d(images.float(), factor)
    return small.round_().byte() if not images.is_floating_point() else small


def grid(images: Tensor, columns: int, magnify: int = 1) -> Tensor:
    """Images side by side.

    Args:
        images: uint8 [n, c, h, w]; c is 1 or 3.
        columns: images in a row; n must be a multiple of it.
        magnify: each pixel becomes a square of so many.

    Returns:
        uint8 [n / columns * h, columns * w, 3].
    """
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    if magnify > 1:
        images = images.repeat_interleave(magnify, 2).repeat_interleave(magnify, 3)
    n, c, h, w = images.shape
    rows = images.reshape(n // columns, columns, c, h, w).permute(0, 3, 1, 4, 2)
    return rows.reshape(n // columns * h, columns * w, c)


def save_png(path: Path, image: Tensor, about: Mapping[str, str] | None = None) -> None:
    """Write a PNG file, atomically; :func:`save_pngs` tells of the arguments."""
    save_pngs([(path, image, about or {})])


def save_pngs(pictures: Sequence[tuple[Path, Tensor, Mapping[str, str]]]) -> None:
    """Write PNG files, each atomically; several are compressed at a time, one a core.

    Args:
        pictures: of each the file; uint8 [h, w, 3], or [h, w, 1], which is stored as grey; and text that is stored with
            it, by keyword (tEXt chunks; iTXt where a value is not Latin-1).
    """
    from PIL import Image, PngImagePlugin

    def write(temporary: Path, image: Tensor, about: Mapping[str, str]) -> None:
        text = PngImagePlugin.PngInfo()
        for keyword, value in about.items():
            text.add_text(keyword, value)
        values = image.contiguous().cpu().numpy()
        grey = values.shape[-1] == 1
        Image.fromarray(values[..., 0] if grey else values).save(temporary, format="PNG", pnginfo=text)

    with atomic_all([path for path, _, _ in pictures]) as temporaries:
        works = [(temporary, image, about) for temporary, (_, image, about) in zip(temporaries, pictures, strict=True)]
        if len(works) == 1:
            write(*works[0])
            return
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # Pillow lets other threads work meanwhile
            for done in [pool.submit(write, *work) for work in works]:
                done.result()


def text_of(path: Path) -> dict[str, str]:
    """The text that :func:`save_png` stored with a picture; its pixels are not decoded.

    Raises:
        UserError: it is no PNG file, or cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            return {str(keyword): str(value) for keyword, value in image.info.items() if isinstance(value, str)}
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises the latter two for damaged chunks
        raise UserError(f"{path}: is no PNG file ({error}).") from None
