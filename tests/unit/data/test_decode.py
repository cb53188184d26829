from __future__ import annotations

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from advgen.data.decode import MAX_PIXELS, BadImage, box_mean, decode, decode_ids, encode_ids, in_order
from tests.unit.data.make import encoded, picture


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("stored", ["L", "RGB"])
def test_jpeg_has_the_pixels_that_pillow_gives(channels: int, subsampling: int, stored: str) -> None:
    """Shards may be read by other programs, and an earlier advgen read them by Pillow: not a bit may differ."""
    if channels == 1 and stored == "RGB":
        pytest.skip("Pillow computes grey from RGB, libjpeg takes the stored luminance: they differ by a level")
    for number in range(5):
        out = io.BytesIO()
        Image.fromarray(picture(number, 37)).convert(stored).save(out, "JPEG", quality=80, subsampling=subsampling)
        with Image.open(io.BytesIO(out.getvalue())) as image:
            wanted = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(37, 37, -1)
        assert (decode(out.getvalue(), channels) == wanted.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_truncated_or_empty_is_bad(format: str) -> None:
    data = encoded(picture(0, 64), format)
    for damaged in (data[: len(data) // 2], b"", b"nothing"):
        with pytest.raises(BadImage):
            decode(damaged, 3)


def test_bombs_are_refused_before_they_are_decoded() -> None:
    assert MAX_PIXELS < 20_000**2

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )
    jpeg = bytearray(encoded(picture(0, 16), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 20_000, 20_000)
    for data in (png, bytes(jpeg)):
        with pytest.raises(BadImage, match="pixels"):
            decode(data, 3)
    with pytest.raises(BadImage, match="pixels"):
        decode_ids(png)


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.int32, (5, 7), elements=st.integers(0, 2**31 - 1)), st.sampled_from([2**8, 2**16, 2**31]))
def test_ids_of_any_width_come_back(ids: np.ndarray, limit: int) -> None:
    ids = ids % limit if limit < 2**31 else ids
    assert (decode_ids(encode_ids(ids)) == ids).all()


def test_box_mean_rounds_the_exact_mean() -> None:
    images = np.random.RandomState(0).randint(0, 256, (2, 3, 16, 16)).astype(np.uint8)
    wanted = np.rint(images.reshape(2, 3, 4, 4, 4, 4).astype(np.float64).mean((3, 5))).astype(np.uint8)
    assert (box_mean(images, 4) == wanted).all()
    assert box_mean(images, 16) is images


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_in_order_keeps_order_and_ends_its_threads(threads: int) -> None:
    before = threading.active_count()
    assert list(in_order(lambda x: x * x, range(50), threads=threads, ahead=4)) == [x * x for x in range(50)]

    results = in_order(lambda x: 6 // (3 - x), range(50), threads=threads, ahead=4)
    assert [next(results) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
    left = in_order(abs, range(50), threads=threads, ahead=4)
    next(left)
    left.close()
    assert threading.active_count() == before
