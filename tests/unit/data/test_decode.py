from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from PIL import Image

from advgen.data.decode import BadImage, box_mean, decode, fit, in_order
from tests.unit.data.make import encoded, picture


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_fits_is_kept_byte_for_byte(format: str, channels: int) -> None:
    data = encoded(picture(0, 16, channels), format)
    fitted = fit(data, 16, channels)
    assert fitted.data == data and not fitted.enlarged
    assert decode(data, channels).shape == (channels, 16, 16)


def test_centre_square_without_pixels_from_outside() -> None:
    pixels = np.full((32, 96, 3), 255, np.uint8)
    pixels[:, 32:64] = 100
    fitted = fit(encoded(pixels), 8, 3)
    assert fitted.extension == "png"
    assert (decode(fitted.data, 3) == 100).all()


def test_other_kinds_become_8_bit_png() -> None:
    assert decode(fit(encoded(picture(1, 8), "WEBP"), 8, 3).data, 3).shape == (3, 8, 8)
    deep = np.full((8, 8), 40_000, np.uint16)
    assert (decode(fit(encoded(deep), 8, 1).data, 1) == 40_000 >> 8).all()
    clear = np.zeros((8, 8, 4), np.uint8)
    assert (decode(fit(encoded(clear), 8, 3).data, 3) == 255).all()
    assert fit(encoded(picture(1, 8)), 16, 3).enlarged


def test_upright_by_exif() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(out, format="JPEG", exif=exif, quality=95)
    turned = decode(fit(out.getvalue(), 8, 3).data, 3)
    assert turned[:, :4].mean() < 10 < 245 < turned[:, 4:].mean()


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_truncated_or_empty_is_bad(format: str) -> None:
    data = encoded(picture(0, 64), format)
    for damaged in (data[: len(data) // 2], b"", b"nothing"):
        with pytest.raises(BadImage):
            decode(damaged, 3)
        with pytest.raises(BadImage):
            fit(damaged, 64, 3)


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
