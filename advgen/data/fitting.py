"""From a file of any kind to what is stored: upright, opaque, cut to shape, resized, with maps and smaller levels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from advgen.data.config import ShardingConfig
from advgen.data.decode import MODES, BadImage, box_mean, check_size, encode_ids, reason

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
RAW_HEIGHT, RAW_FRACTION = 32, 16
"""The smallest stored level is so high, or this part of the images' height where that is more: small beside the images,
so that its pixels are stored as they are, which no decoder is as fast as. Still smaller ones are means of it."""
_EXTENSIONS = {"PNG": "png", "JPEG": "jpg"}
_IMAGES = ("PNG", "JPEG", "WEBP")  # a JPEG of several pictures (MPO) is opened as JPEG
"""Pillow tells formats by the content, and some run other programs: a file.png may be PostScript."""
_ORIENTATION = 0x0112  # the EXIF tag


@dataclass(frozen=True)
class Shape:
    """What every sample of a set is brought to; sizes in pixels."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class Fitted:
    """A sample as it is stored.

    Attributes:
        parts: (extension, bytes) of each part, the image first.
        levels: the same for each level that is not raw.
        raw: uint8 [channels, h, w], the raw level, or None.
        changes: what was done to the image besides cutting and resizing.
        enlarged: whether the image was smaller.
        label_ids: ids in the label map.
    """

    parts: list[tuple[str, bytes]]
    levels: list[list[tuple[str, bytes]]]
    raw: NDArray[np.uint8] | None
    changes: tuple[str, ...]
    enlarged: bool
    label_ids: frozenset[int]


@dataclass(frozen=True)
class Fit:
    """How samples are fitted.

    Attributes:
        shape: of every sample.
        config: crop, filter, formats.
        levels: heights of the levels, largest first.
        raw: whether the last of them is raw.
        parts: of each sample.
        label_map_classes: ids must be below; None: any.
        ignore_label: an id that is allowed besides.
    """

    shape: Shape
    config: ShardingConfig
    levels: tuple[int, ...] = ()
    raw: bool = False
    parts: tuple[str, ...] = ("image",)
    label_map_classes: int | None = None
    ignore_label: int | None = None

    def __call__(self, files: dict[str, bytes]) -> Fitted:
        """Fit a sample.

        Args:
            files: content of the file of each part.

        Raises:
            BadImage: a part is no whole image, or does not belong to the others; the text begins with its part
                where there are several.
        """
        stored, upright, changes = self._image(files["image"])
        size = upright.size
        pixels = np.asarray(self._fitted(upright, FILTERS[self.config.resize_filter]))
        image = self._stored(stored, pixels)
        chw = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        maps = {part: self._map(part, files[part], size) for part in self.parts[1:]}
        label_ids = np.unique(maps["label_map"]) if "label_map" in maps else np.empty(0, np.int32)
        self._check_ids(label_ids)
        small = {height: box_mean(chw, height) for height in self.levels}
        encoded = self.levels[:-1] if self.raw else self.levels
        tables = _level_tables(image[1], self.config.level_quality) if encoded and image[0] == "jpg" else None
        return Fitted(
            parts=[image, *(_map_file(part, ids) for part, ids in maps.items())],
            levels=[
                [
                    _level(np.ascontiguousarray(small[h].transpose(1, 2, 0)), tables),
                    *(_map_file(part, _nearest(part, ids, h)) for part, ids in maps.items()),
                ]
                for h in encoded
            ],
            raw=small[self.levels[-1]] if self.raw else None,
            changes=changes,
            enlarged=size[0] < self.shape.width or size[1] < self.shape.height,
            label_ids=frozenset(int(i) for i in label_ids),
        )

    def _image(self, data: bytes) -> tuple[tuple[str, bytes] | None, Image.Image, tuple[str, ...]]:
        """((extension, bytes) if they can be stored untouched, the upright opaque image, what was changed)."""
        mode = MODES[self.shape.channels]
        try:
            with Image.open(io.BytesIO(data), formats=_IMAGES) as image:
                check_size(image)
                several = image.format == "MPO"  # the first is the picture, the others are previews or a second eye
                if getattr(image, "n_frames", 1) > 1 and not several:
                    raise BadImage(f"is an animation of {image.n_frames} frames")  # pyright: ignore[reportAttributeAccessIssue]
                image.load()
                extension = _EXTENSIONS.get(image.format or "", "")
                turned = image.getexif().get(_ORIENTATION, 1) != 1
                transparent = image.has_transparency_data
                changes = [image.mode] if image.mode != mode else []
                # Pillow itself reads colours of 16 bits as 8; a PNG's bits stand at byte 24.
                deep = image.format == "PNG" and data[24] == 16 and not image.mode.startswith("I;16")
                changes += ["16 bits"] * deep + ["several pictures"] * several
                changes += ["rotated"] * turned + ["transparent"] * transparent
                plain = _plain(ImageOps.exif_transpose(image) if turned else image, transparent, mode)
                same = plain.size == (self.shape.width, self.shape.height) and not changes and extension != ""
                if same and self.config.format in ("keep", _FORMATS[extension]):
                    return (extension, data), plain.copy(), ()
                return None, plain.copy(), tuple(changes)
        except BadImage:
            raise
        except Exception as error:
            raise BadImage(reason(error, data)) from None

    def _stored(self, untouched: tuple[str, bytes] | None, pixels: NDArray[np.uint8]) -> tuple[str, bytes]:
        if untouched is not None:
            return untouched
        out, image = io.BytesIO(), _picture(pixels)
        if self.config.format == "jpeg":
            image.save(out, "JPEG", quality=self.config.jpeg_quality)
            return "jpg", out.getvalue()
        image.save(out, "PNG")
        return "png", out.getvalue()

    def _fitted(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        """Cut to the shape's proportions and resized."""
        height, width = self.shape.height, self.shape.width
        if image.size == (width, height):
            return image
        if self.config.crop == "center":
            # The largest centred part of the right proportions, in whole pixels.
            w = min(image.width, max(1, round(image.height * width / height)))
            h = min(image.height, max(1, round(image.width * height / width)))
            left, top = (image.width - w) // 2, (image.height - h) // 2
            # Cropped first: resize(box=...) would mix in pixels from outside.
            image = image.crop((left, top, left + w, top + h))
        elif self.config.crop == "none" and image.width * height != image.height * width:
            raise BadImage(f"has {image.width} x {image.height} pixels, not the proportions {width}:{height}")
        return image if image.size == (width, height) else image.resize((width, height), resample)

    def _map(self, part: str, data: bytes, size: tuple[int, int]) -> NDArray[np.int32]:
        """A map int32 [h, w], or line art uint8 values in it, of the shape."""
        try:
            if part == "line_art":
                with _opened_map(data) as image:
                    grey = _plain(image, image.has_transparency_data, "L")
                    resample = FILTERS[self.config.resize_filter]
            else:
                grey, resample = Image.fromarray(read_ids(data)), Image.Resampling.NEAREST
            if grey.size != size:
                raise BadImage(f"has {grey.width} x {grey.height} pixels, its image {size[0]} x {size[1]}")
        except BadImage as error:
            raise BadImage(f"{part}: {error}") from None
        return np.asarray(self._fitted(grey, resample)).astype(np.int32)

    def _check_ids(self, ids: NDArray[np.int32]) -> None:
        if self.label_map_classes is None:
            return
        wrong = [int(i) for i in ids if i >= self.label_map_classes and i != self.ignore_label]
        if wrong:
            raise BadImage(f"label_map: has ids {wrong[:5]}, outside 0 to {self.label_map_classes - 1}")


def read_ids(data: bytes) -> NDArray[np.int32]:
    """A label or instance map as people have them: grey of 8, 16 or 32 bits, or a palette; PNG, TIFF, BMP.

    Returns:
        int32 [h, w], not negative.

    Raises:
        BadImage: the bytes are no such map.
    """
    with _opened_map(data) as image:
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
            raise BadImage(f"has colours ({image.mode}); ids in grey of 8, 16 or 32 bits are needed")
        ids = np.asarray(image).astype(np.int64)
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= 1 << 31:
        raise BadImage("has ids outside 0 to 2^31 - 1")
    return ids.astype(np.int32)


@contextmanager
def _opened_map(data: bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data), formats=(*_IMAGES, "TIFF", "BMP")) as image:
            check_size(image)
            image.load()
            yield image
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(reason(error, data)) from None


_FORMATS = {"png": "png", "jpg": "jpeg"}


def _map_file(part: str, ids: NDArray[np.int32]) -> tuple[str, bytes]:
    return f"{part}.png", encode_ids(ids)


def _nearest(part: str, ids: NDArray[np.int32], height: int) -> NDArray[np.int32]:
    """Every so many pixels one, as pix2pixHD's own half-size maps; means for line art, whose values are greys."""
    if part == "line_art":
        return box_mean(ids.astype(np.uint8), height).astype(np.int32)
    step = ids.shape[0] // height
    return ids[step // 2 :: step, step // 2 :: step]


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """uint8 [h, w, 3] or [h, w(, 1)] as Pillow's."""
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)


def _level(pixels: NDArray[np.uint8], tables: list[list[int]] | None) -> tuple[str, bytes]:
    """uint8 [h, w, 3 or 1] as JPEG with these quantisation tables, or else lossless."""
    out = io.BytesIO()
    if tables is not None:
        _picture(pixels).save(out, "JPEG", qtables=tables)
        return "jpg", out.getvalue()
    # A third of the time for a twentieth more bytes.
    _picture(pixels).save(out, "WEBP", lossless=True, quality=20, method=1)
    return "webp", out.getvalue()


def _level_tables(data: bytes, quality: int) -> list[list[int]]:
    """Tables of a JPEG's levels, for brightness and colours: of a quality, but nowhere finer than its own."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        own = [image.quantization.get(layer[3], [1] * 64) for layer in image.layer[:2]]  # pyright: ignore[reportAttributeAccessIssue]
    wanted = _tables(quality)[: len(own)]
    return [[min(255, max(pair)) for pair in zip(*both, strict=True)] for both in zip(own, wanted, strict=True)]


@lru_cache
def _tables(quality: int) -> list[list[int]]:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", quality=quality)
    with Image.open(out, formats=("JPEG",)) as image:
        return [image.quantization[number] for number in (0, 1)]  # pyright: ignore[reportAttributeAccessIssue]


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
