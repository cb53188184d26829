"""Sample grids of many runs, made small enough that all together stay within a fixed number of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advgen.report.compare_data import Compared
from advgen.report.data import Grid

MOST_BYTES = 11_000_000
"""Of all pictures of a page, before they are written as base64, which takes a third more."""
MOST_PICTURES = 600
"""Of a page: to make one takes about a hundredth of a second."""
_MOST_OF_A_RUN = 24
_WIDTHS = (640, 480, 320, 240, 160, 120, 80)
_QUALITY = 82


def pictures_of(runs: Sequence[Compared]) -> tuple[list[list[dict[str, Any]]], list[str]]:
    """For each run its grids by images seen, and notes of those that could not be shown.

    Returns:
        Lists of ``{"kimg", "phase", "source", "width", "height", "of"}``: a data URI, its size in pixels, and that of
        the file if it was made smaller.
    """
    showing = sum(bool(run.run.grids) for run in runs)
    each = max(1, min(_MOST_OF_A_RUN, MOST_PICTURES // max(1, showing)))
    chosen = [_spread(_latest_of_each_nimg(run.run.grids), each) for run in runs]
    limit = MOST_BYTES // max(1, sum(map(len, chosen)))
    found: list[list[dict[str, Any]]] = []
    notes: list[str] = []
    for run, grids in zip(runs, chosen, strict=True):
        mine: list[dict[str, Any]] = []
        for grid in grids:
            try:
                mine.append({"kimg": grid.nimg / 1000, "phase": grid.phase, **_thumbnail(grid.path, limit)})
            except (OSError, ValueError, SyntaxError) as error:
                notes.append(f"{run.name}: samples/{grid.path.name} is no PNG image that could be read ({error}).")
        found.append(mine)
    return found, notes


def _latest_of_each_nimg(grids: Sequence[Grid]) -> list[Grid]:
    return [by for _, by in sorted({grid.nimg: grid for grid in grids}.items())]


def _spread(grids: Sequence[Grid], count: int) -> list[Grid]:
    """At most ``count``, evenly over the training; the last is among them."""
    if len(grids) <= count:
        return list(grids)
    step = (len(grids) - 1) / max(1, count - 1)
    return [grids[len(grids) - 1 - round(step * index)] for index in range(count)][::-1]


def _thumbnail(path: Path, limit: int) -> dict[str, Any]:
    """A picture as it is if it takes at most ``limit`` bytes, else as the widest JPEG that does."""
    from PIL import Image

    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as opened:
            opened.load()
            size = opened.size
            if len(data) <= limit and size[0] <= _WIDTHS[0]:
                return {"source": _uri("png", data), "width": size[0], "height": size[1], "of": None}
            image = opened.convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None
    smaller = data
    for width in (width for width in _WIDTHS if width <= size[0] or width == _WIDTHS[-1]):
        image = image.resize((width, max(1, round(size[1] * width / size[0]))), Image.Resampling.BOX)
        file = io.BytesIO()
        image.save(file, format="JPEG", quality=_QUALITY)
        smaller = file.getvalue()
        if len(smaller) <= limit:
            break
    return {
        "source": _uri("jpeg", smaller),
        "width": image.width,
        "height": image.height,
        "of": f"{size[0]} × {size[1]}",
    }


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
