"""``advgen sample``: numbered pictures as files or shards, and videos."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from advgen.config import Recipe
from advgen.errors import UserError
from pipelines.sample_sheets import series_of
from pipelines.terminal import console, counting

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from advgen.drawing import Drawer


def numbered(recipe: Recipe, drawer: Drawer, given: argparse.Namespace) -> int:
    """A folder of PNG files."""
    from advgen.tools.numbered import Numbered, write_numbered

    series = series_of(recipe, given)
    pictures = Numbered(series, drawer.about, bool(given.by_class))
    numbers = range(given.first, given.first + given.count)
    with counting("samples") as progress:
        kept = write_numbered(given.out, pictures, numbers, partial(drawer.batches, series), progress)
    console.print(f"{given.out}: {given.count:,} samples" + (f", {kept:,} of them were there" if kept else ""))
    return 0


def shards(recipe: Recipe, drawer: Drawer, given: argparse.Namespace) -> int:
    """A folder of shards."""
    from advgen.tools.drawn_shards import write_drawn_shards
    from advgen.tools.numbered import Numbered

    series, data = series_of(recipe, given), recipe.data
    with counting("samples") as progress:
        manifest = write_drawn_shards(
            given.out,
            Numbered(series, drawer.about),
            range(given.first, given.first + given.count),
            partial(drawer.batches, series),
            progress,
            classes=data.classes,
            shape=(data.channels, drawer.resolution),
        )
    console.print(f"{given.out}: {manifest.samples:,} samples in {len(manifest.shards)} shards")
    return 0


def video(recipe: Recipe, drawer: Drawer, given: argparse.Namespace) -> int:
    """A closed loop, as a grid of cells."""
    from advgen.images import grid
    from advgen.tools.video import check_video, save_video

    check_video(given.out, given.fps)
    cells, count = given.rows * given.columns, round(given.seconds * given.fps)
    if count < 2:
        raise UserError(f"--seconds {given.seconds}: a video must have at least 2 frames.")
    series = series_of(recipe, given)
    about = {**drawer.about, **series.about}
    with counting("frames") as progress:

        def frames() -> Iterator[NDArray[np.uint8]]:
            for number, images in enumerate(drawer.loop(series, given.first, cells, given.keys, count)):
                yield grid(images, given.columns, given.magnify).numpy()
                progress(number + 1, count)

        save_video(given.out, frames(), count, given.fps, "; ".join(f"{key} {value}" for key, value in about.items()))
    console.print(f"{given.out}: {count} frames, {given.seconds:g} s")
    return 0
