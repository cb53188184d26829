from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from advgen.data.config import ShardingConfig
from advgen.data.decode import BadImage, box_mean, decode, decode_ids
from advgen.data.fitting import Fit, Fitted, Shape
from tests.unit.data.make import encoded, picture


def fit(data: bytes, resolution: int, channels: int, **options) -> Fitted:
    return Fit(Shape(resolution, resolution, channels), ShardingConfig(**options))({"image": data})


def pixels_of(fitted: Fitted, channels: int = 3) -> np.ndarray:
    return decode(fitted.parts[0][1], channels)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_fits_is_kept_byte_for_byte(format: str, channels: int) -> None:
    data = encoded(picture(0, 16, channels), format)
    fitted = fit(data, 16, channels)
    assert fitted.parts == [({"PNG": "png", "JPEG": "jpg"}[format], data)]
    assert not fitted.enlarged and fitted.changes == ()


def test_a_wanted_format_is_written() -> None:
    png, jpeg = encoded(picture(0, 16)), encoded(picture(0, 16), "JPEG")
    assert fit(png, 16, 3, format="jpeg").parts[0][0] == "jpg"
    assert fit(jpeg, 16, 3, format="png").parts[0][0] == "png"
    assert fit(jpeg, 16, 3, format="jpeg").parts[0][1] == jpeg
    smaller = fit(png, 8, 3, format="jpeg", jpeg_quality=50).parts[0]
    assert smaller[0] == "jpg" and len(smaller[1]) < len(fit(png, 8, 3, format="jpeg").parts[0][1])


def test_centre_without_pixels_from_outside() -> None:
    pixels = np.full((32, 96, 3), 255, np.uint8)
    pixels[:, 32:64] = 100
    assert (pixels_of(fit(encoded(pixels), 8, 3)) == 100).all()
    assert (pixels_of(fit(encoded(pixels), 8, 3, crop="stretch"))[..., 0] > 200).all()
    with pytest.raises(BadImage, match="not the proportions"):
        fit(encoded(pixels), 8, 3, crop="none")
    wide = Fit(Shape(16, 32, 3), ShardingConfig())({"image": encoded(pixels)})
    assert pixels_of(wide).shape == (3, 16, 32)


@pytest.mark.parametrize("name", ["lanczos", "bicubic", "bilinear", "box", "nearest"])
def test_the_filter_is_the_one_asked_for(name: str) -> None:
    pixels = picture(0, 24)
    wanted = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling[name.upper()]))
    assert (pixels_of(fit(encoded(pixels), 8, 3, resize_filter=name)) == wanted.transpose(2, 0, 1)).all()


def test_unusual_kinds_by_rule() -> None:
    assert pixels_of(fit(encoded(picture(1, 8), "WEBP"), 8, 3)).shape == (3, 8, 8)
    deep = fit(encoded(np.full((8, 8), 40_000, np.uint16)), 8, 1)
    assert (pixels_of(deep, 1) == 40_000 >> 8).all() and deep.changes == ("I;16",)
    clear = fit(encoded(np.zeros((8, 8, 4), np.uint8)), 8, 3)
    assert (pixels_of(clear) == 255).all() and clear.changes == ("RGBA", "transparent")
    for mode, format in (("CMYK", "JPEG"), ("P", "PNG"), ("L", "PNG")):
        out = io.BytesIO()
        Image.new("RGB", (8, 8), (200, 40, 90)).convert(mode).save(out, format)
        fitted = fit(out.getvalue(), 8, 3)
        assert fitted.changes == (mode,)
        assert mode == "L" or np.abs(pixels_of(fitted)[:, 0, 0].astype(int) - [200, 40, 90]).max() < 30
    assert fit(encoded(picture(1, 8)), 16, 3).enlarged
    for format in ("TIFF", "EPS", "GIF"):  # whatever the file is called
        out = io.BytesIO()
        Image.new("RGB", (8, 8)).save(out, format)
        with pytest.raises(BadImage, match="no image of a known format"):
            fit(out.getvalue(), 8, 3)
    out = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(BadImage, match="animation"):
        fit(out.getvalue(), 8, 3)


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """uint16 [h, w, 3] as PNG, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colours_of_16_bits_are_cut_to_8_and_counted() -> None:
    deep = np.random.RandomState(0).randint(0, 1 << 16, (8, 8, 3)).astype(np.uint16)
    fitted = fit(png_of_16_bits(deep), 8, 3)
    assert fitted.changes == ("16 bits",) and fitted.parts[0][1][24] == 8
    assert (pixels_of(fitted) == (deep >> 8).transpose(2, 0, 1)).all()


def test_of_several_pictures_in_a_jpeg_the_first_is_taken() -> None:
    first, out = Image.fromarray(picture(1, 16)), io.BytesIO()
    first.save(out, "MPO", save_all=True, append_images=[Image.fromarray(picture(2, 16))])
    fitted = fit(out.getvalue(), 16, 3)
    assert fitted.changes == ("several pictures",)
    assert (pixels_of(fitted) == decode(out.getvalue(), 3)).all()


@pytest.mark.parametrize(("quality", "channels"), [(60, 3), (75, 3), (75, 1), (95, 3)])
def test_a_level_of_a_jpeg_is_nowhere_finer_than_its_source(quality: int, channels: int) -> None:
    def tables(data: bytes) -> dict[int, list[int]]:
        with Image.open(io.BytesIO(data)) as image:
            return image.quantization  # pyright: ignore[reportAttributeAccessIssue]

    out, at_90 = io.BytesIO(), io.BytesIO()
    source = Image.fromarray(picture(0, 128, channels))
    source.save(out, "JPEG", quality=quality)
    source.save(at_90, "JPEG", quality=90)
    make = Fit(Shape(128, 128, channels), ShardingConfig(), (64, 32), raw=True)
    level = make({"image": out.getvalue()}).levels[0][0][1]
    assert tables(level) == tables(out.getvalue() if quality < 90 else at_90.getvalue())
    assert make({"image": out.getvalue()}).levels[0][0][1] == level
    stored = Fit(Shape(128, 128, channels), ShardingConfig(format="jpeg", jpeg_quality=50), (64, 32), raw=True)(
        {"image": encoded(picture(0, 128, channels))}
    )
    assert tables(stored.levels[0][0][1]) == tables(stored.parts[0][1])


def test_upright_by_exif() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(out, format="JPEG", exif=exif, quality=95)
    fitted = fit(out.getvalue(), 8, 3)
    turned = pixels_of(fitted)
    assert turned[:, :4].mean() < 10 < 245 < turned[:, 4:].mean() and fitted.changes == ("rotated",)


@pytest.mark.parametrize(
    "damaged", [b"", b"nothing", encoded(picture(0, 64))[:900], encoded(picture(0, 64), "JPEG")[:900]]
)
def test_damaged_is_bad(damaged: bytes) -> None:
    with pytest.raises(BadImage):
        fit(damaged, 64, 3)


def test_a_bomb_is_bad_without_a_warning() -> None:
    out = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(out, "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage, match="9000 x 9000 pixels"):
            fit(out.getvalue(), 8, 3)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_levels_are_means_of_the_pixels(format: str) -> None:
    smooth = Image.fromarray(picture(0, 8)).resize((128, 128), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    smooth.save(out, format, quality=95)
    data = out.getvalue()
    fitted = Fit(Shape(128, 128, 3), ShardingConfig(level_quality=95), (64, 32), raw=True)({"image": data})
    stored = decode(data, 3)
    (level,) = fitted.levels
    assert level[0][0] == {"PNG": "webp", "JPEG": "jpg"}[format]
    difference = decode(level[0][1], 3).astype(int) - box_mean(stored, 64)
    assert np.abs(difference).mean() < (4 if format == "JPEG" else 1e-9)
    assert fitted.raw is not None and (fitted.raw == box_mean(stored, 32)).all()


def test_parts_are_cut_and_resized_alike() -> None:
    config = ShardingConfig()
    parts = ("image", "label_map", "instance_map", "line_art")
    make = Fit(Shape(8, 8, 3), config, (4,), parts=parts, label_map_classes=5, ignore_label=255)
    labels = np.zeros((16, 32), np.uint8)
    labels[:, 16:] = 3
    labels[0, 8] = 255
    instances = labels.astype(np.int32) * 70_000
    image = np.repeat(labels[..., None] * 80, 3, 2).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(instances).save(out, "TIFF")
    files = {
        "image": encoded(image),
        "label_map": encoded(labels),
        "instance_map": out.getvalue(),
        "line_art": encoded(image[..., 0]),
    }
    fitted = make(files)
    assert [extension for extension, _ in fitted.parts] == ["png", "label_map.png", "instance_map.png", "line_art.png"]
    found = decode_ids(fitted.parts[1][1])
    assert set(np.unique(found)) <= {0, 3, 255} and (found[:, 4:] == 3).all() and (found[1:, :4] == 0).all()
    assert (decode_ids(fitted.parts[2][1]) == np.where(found == 255, instances[0, 8], found * 70_000)).all()
    assert decode(fitted.parts[3][1], 1).shape == (1, 8, 8)
    assert decode_ids(fitted.levels[0][1][1]).shape == (4, 4)
    assert fitted.label_ids == frozenset(np.unique(found).tolist())

    def bad(**changes: bytes) -> str:
        with pytest.raises(BadImage) as caught:
            make({**files, **changes})
        return str(caught.value)

    assert "label_map: has ids [7], outside 0 to 4" in bad(label_map=encoded(np.full((16, 32), 7, np.uint8)))
    assert "label_map: has 8 x 8 pixels, its image 32 x 16" in bad(label_map=encoded(np.zeros((8, 8), np.uint8)))
    assert "instance_map: has colours" in bad(instance_map=encoded(image))
    assert bad(line_art=encoded(image)[:60]).startswith("line_art: ")
    out = io.BytesIO()
    Image.new("F", (32, 16)).save(out, "TIFF")
    assert "32 bits" in bad(line_art=out.getvalue())
