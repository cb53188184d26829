"""``advgen sample``: one picture of many samples, of points, or of what becomes of real images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from advgen.config import Recipe
from advgen.errors import UserError
from pipelines.terminal import console

if TYPE_CHECKING:
    from advgen.drawing import Drawer
    from advgen.tools.numbered import Series


def series_of(recipe: Recipe, given: argparse.Namespace) -> Series:
    """The pictures that the flags ask for: of the classes in turn, all of them or those that are named."""
    from advgen.tools.numbered import Series

    classes = given.classes or range(recipe.data.classes)
    return Series(given.seed, tuple(classes), given.truncation)


def grid_of_samples(recipe: Recipe, drawer: Drawer, given: argparse.Namespace) -> int:
    """Samples side by side."""
    from advgen.images import grid, save_png

    count, series = given.rows * given.columns, series_of(recipe, given)
    images = drawer.draw(series, range(given.first, given.first + count))
    labels = [series.label(given.first + place) for place in range(count)] if series.classes else []
    about = {
        **drawer.about,
        **series.about,
        "index": f"{given.first} to {given.first + count - 1}",
        **({"label": " ".join(map(str, labels))} if labels else {}),
    }
    save_png(given.out, grid(images, given.columns, given.magnify), about)
    console.print(f"{given.out}: {count} samples")
    return 0


def points(recipe: Recipe, drawer: Drawer, given: argparse.Namespace) -> int:
    """A scatter plot: generated points, or reconstructions, over real ones."""
    import numpy as np
    import torch

    from advgen.build import open_held_out
    from advgen.tools.scatter import POINTS, save_scatter

    if given.reconstruct:
        both = drawer.reconstruct(drawer.reals(recipe, None, POINTS, given.seed), given.seed)
        real, made = both[::2], both[1::2]
    else:
        stream = open_held_out(recipe)
        assert stream is not None
        real = torch.from_numpy(stream.read(np.arange(POINTS)).images)
        made = drawer.draw(series_of(recipe, given), range(given.first, given.first + POINTS))
    save_scatter(given.out, real, made, {**drawer.about, "seed": str(given.seed)})
    console.print(f"{given.out}: {POINTS} {'reconstructions' if given.reconstruct else 'samples'}")
    return 0


def of_reals(recipe: Recipe, drawer: Drawer, given: argparse.Namespace) -> int:
    """Held-out images and their reconstructions, or ways between them."""
    from advgen.images import grid, save_png

    if given.reconstruct and given.columns % 2:
        raise UserError("--reconstruct: --columns must be even, as each image stands beside its reconstruction.")
    if given.interpolate and given.columns < 4:
        raise UserError("--interpolate: --columns must be at least 4, two images and the reconstructions of both.")
    if given.seed < 0:
        raise UserError("--seed must be at least 0.")
    if given.reconstruct:
        count = given.rows * given.columns // 2
        images = drawer.reconstruct(drawer.reals(recipe, given.images, count, given.seed), given.seed)
    else:
        count = 2 * given.rows
        real = drawer.reals(recipe, given.images, count, given.seed)
        images = drawer.interpolate(real, given.columns - 2, given.seed)
    about = {**drawer.about, "seed": str(given.seed), "of": "reconstructions" if given.reconstruct else "interpolation"}
    save_png(given.out, grid(images, given.columns, given.magnify), about)
    console.print(f"{given.out}: of {count} images")
    return 0
