"""Pixels from bytes: decoding, smaller levels; and doing such work on threads, in order."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

Item = TypeVar("Item")
Result = TypeVar("Result")

MODES = {1: "L", 3: "RGB"}
MAX_PIXELS = 1 << 26
"""An image of more pixels (8192 x 8192) is refused before it is decoded: a small file may hold an enormous one."""


class BadImage(Exception):
    """Bytes that are no whole image; the text says why, the caller knows from where."""


def decode(data: bytes, channels: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Decode a stored JPEG, PNG or WebP.

    JPEG goes through libjpeg-turbo directly (simplejpeg), which gives Pillow's pixels in a third of the time and
    lets other threads work meanwhile.

    Args:
        data: the whole file.
        channels: 1 (grey) or 3 (RGB).
        into: memory of a thread's own, flat. A JPEG that fits goes there, and the result is a view of it: fresh memory
            for each image would be mapped and unmapped each time, for which threads wait for one another.

    Returns:
        uint8 [channels, height, width], not always contiguous.

    Raises:
        BadImage: the bytes are no whole image of these kinds, or one of more than :data:`MAX_PIXELS`.
    """
    if data[:2] == b"\xff\xd8":
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            if int(height) * int(width) <= MAX_PIXELS:
                fits = into is not None and int(height) * int(width) * channels <= into.size
                pixels = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB", buffer=into if fits else None)
                return pixels.transpose(2, 0, 1)
        except ValueError:
            pass  # Pillow reads what is unusual, and says best what is wrong
    # Codecs report damage with many kinds of exception (OSError, SyntaxError, ValueError, struct.error ...).
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            check_size(image)
            pixels = np.asarray(image if image.mode == MODES[channels] else image.convert(MODES[channels]))
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(reason(error, data)) from None
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def decode_ids(data: bytes) -> NDArray[np.int32]:
    """Decode a stored label or instance map.

    Args:
        data: a PNG of 8 or 16 bits, or RGBA with the ids' 32 bits in its channels, lowest first.

    Returns:
        int32 [height, width].

    Raises:
        BadImage: the bytes are no such PNG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            check_size(image)
            pixels = np.asarray(image)
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(reason(error, data)) from None
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels).view("<i4")[..., 0].astype(np.int32)
    return pixels.astype(np.int32)


def encode_ids(ids: NDArray[np.int32]) -> bytes:
    """A PNG that :func:`decode_ids` reads, of 8, 16 or 32 bits as the largest id needs."""
    largest = int(ids.max(initial=0))
    if largest < 1 << 8:
        image = Image.fromarray(ids.astype(np.uint8))
    elif largest < 1 << 16:
        image = Image.fromarray(ids.astype(np.uint16))
    else:
        packed = np.ascontiguousarray(ids.astype("<i4")).view(np.uint8).reshape(*ids.shape, 4)
        image = Image.fromarray(packed)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def check_size(image: Image.Image) -> None:
    """Refuse an opened, not yet decoded image of too many pixels.

    Raises:
        BadImage: more than :data:`MAX_PIXELS`.
    """
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"says it has {image.width} x {image.height} pixels; more than {MAX_PIXELS:,} are refused")


def reason(error: Exception, data: bytes) -> str:
    """Why bytes could not be decoded, as the end of a sentence."""
    if not data:
        return "is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "is no image of a known format"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"says it has more than {MAX_PIXELS:,} pixels, which are refused"
    return f"cannot be decoded ({error})"


def box_mean(images: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """Mean over square blocks, rounded to nearest (halves to even), as ProGAN's own data files hold each level.

    Args:
        images: uint8 [..., h, w]; h / level must be a power of two that divides w.
        level: height of the result, in pixels.

    Returns:
        uint8 [..., level, w * level / h].
    """
    factor = images.shape[-2] // level
    if factor == 1:
        return images
    # Whole numbers all the way: a sum over 16 x 16 bytes, and what rounding adds, fit 16 bits. Rows are added as they
    # lie in memory, where a decoder left channels together; columns give the order that is wanted.
    wide, total = np.uint16 if factor <= 16 else np.uint32, images
    while total.shape[-2] > level:
        total = np.add(total[..., 0::2, :], total[..., 1::2, :], dtype=wide)
        total = np.add(total[..., 0::2], total[..., 1::2], order="C")
    shift = 2 * (factor.bit_length() - 1)
    odd = (total >> shift) & 1
    total += odd
    total += (1 << (shift - 1)) - 1
    total >>= shift
    return total.astype(np.uint8)


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
