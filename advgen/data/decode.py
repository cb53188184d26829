"""Pixels from bytes: decoding, fitting to a square, smaller levels; and doing such work on threads, in order."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Item = TypeVar("Item")
Result = TypeVar("Result")

_MODES = {1: "L", 3: "RGB"}
_STORED = {"PNG": "png", "JPEG": "jpg"}
_ORIENTATION = 0x0112  # the EXIF tag


class BadImage(Exception):
    """Bytes that are no whole image; the text says why, the caller knows from where."""


def decode(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Decode a stored PNG or JPEG.

    Args:
        data: the whole file.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        uint8 [channels, height, width].

    Raises:
        BadImage: the bytes are no whole PNG or JPEG.
    """
    # Codecs report damage with many kinds of exception (OSError, SyntaxError, ValueError, struct.error ...).
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            pixels = np.asarray(image if image.mode == _MODES[channels] else image.convert(_MODES[channels]))
    except Exception as error:
        raise BadImage(_reason(error, data)) from None
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


@dataclass(frozen=True)
class Fitted:
    """An image as it is stored: the file's bytes, its extension, and whether it had to be enlarged."""

    data: bytes
    extension: str
    enlarged: bool


def fit(data: bytes, resolution: int, channels: int) -> Fitted:
    """Decode an image fully, and make it a square of ``resolution`` pixels.

    What has the right size, colours and format already is returned byte for byte. Others are turned upright
    (EXIF), laid on white where transparent, cut to the central square, resized (Lanczos) and encoded as PNG.

    Raises:
        BadImage: the bytes are no whole image, or one of more than 8 bits that cannot be reduced.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            format = image.format or ""
            upright = image.getexif().get(_ORIENTATION, 1) == 1
            transparent = image.has_transparency_data
            same = image.size == (resolution, resolution) and image.mode == _MODES[channels]
            if same and upright and not transparent and format in _STORED:
                return Fitted(data, _STORED[format], enlarged=False)
            plain = _plain(image if upright else ImageOps.exif_transpose(image), transparent, _MODES[channels])
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(_reason(error, data)) from None
    side = min(plain.size)
    left, top = (plain.width - side) // 2, (plain.height - side) // 2
    # Cropped first: resize(box=...) would mix in pixels outside the square.
    square = plain.crop((left, top, left + side, top + side))
    if side != resolution:
        square = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    square.save(out, format="PNG")
    return Fitted(out.getvalue(), "png", enlarged=side < resolution)


def _plain(image: Image.Image, transparent: bool, mode: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion to 8 bits clips at 255 instead of scaling.
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise BadImage(f"has pixels of kind {image.mode} (32 bits); only 8 and 16 bits can be used")
    if transparent:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    return image.convert(mode)


def _reason(error: Exception, data: bytes) -> str:
    if not data:
        return "is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "is no image of a known format"
    return f"cannot be decoded ({error})"


def box_mean(images: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """Mean over square blocks, rounded to nearest (halves to even), as ProGAN's own data files hold each level.

    Args:
        images: uint8 [..., r, r]; r / level must be a power of two.
        level: pixels a side of the result.

    Returns:
        uint8 [..., level, level].
    """
    factor = images.shape[-1] // level
    if factor == 1:
        return images
    total = images.astype(np.uint32)
    while total.shape[-1] > level:
        rows = total[..., 0::2, :] + total[..., 1::2, :]
        total = rows[..., 0::2] + rows[..., 1::2]
    return np.rint(total / (factor * factor)).astype(np.uint8)


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """``map(function, items)`` on threads, results in the order of the items.

    Items are taken on the caller's thread, at most ``ahead`` before their result is asked for. The first
    exception is raised where its result would have come. Closing the generator ends its threads.

    Args:
        threads: how many; 0 works on the caller's thread.
        ahead: items in work or done that have not been asked for, at least 1.
    """
    if threads == 0:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="advgen-data") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
