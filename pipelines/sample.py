"""``advgen sample RUN``: images from a run's newest checkpoint."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from advgen.config import Recipe
from advgen.errors import UserError
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import parse, read_yaml
from pipelines.terminal import console

if TYPE_CHECKING:
    import torch

    from advgen.drawing import Drawer
    from advgen.game import Batch


def main(argv: list[str]) -> int:
    """Draw a grid of samples, or paint label maps."""
    parser = argparse.ArgumentParser(
        prog="advgen sample",
        description="Draw images from a run's newest checkpoint (moving averages): a grid, by class where the run has "
        "classes, or pictures painted from label maps, or what the networks make of real images.",
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME")
    parser.add_argument("out", type=Path, help="PNG file to write; a folder for several maps or styles")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--magnify", type=int, default=1, help="each pixel becomes a square of so many")
    parser.add_argument("--classes", type=int, nargs="+", help="only these, one a column in turn; else all, in turn")
    real = parser.add_mutually_exclusive_group()
    real.add_argument("--reconstruct", action="store_true", help="held-out images, each beside its reconstruction")
    real.add_argument(
        "--interpolate",
        action="store_true",
        help="each row: a held-out image, a way to another one in the space of latents, that other one",
    )
    parser.add_argument("--images", metavar="SHARDS", help="for these two: shards of images instead of data.held_out")
    parser.add_argument("--label-map", type=Path, help="paint this map (ids in grey or palette), or all of a folder")
    parser.add_argument("--instances", type=Path, help="its instance map, or the folder of theirs")
    parser.add_argument("--styles", type=int, default=1, help="so many pictures of each map")
    parser.add_argument(
        "--sheet",
        action="store_true",
        help="one PNG file: a row a map, which stands first in the colours of its classes",
    )
    parser.add_argument(
        "--style-of",
        nargs="+",
        default=[],
        metavar="ID=K",
        help="instance ID of the map gets style K of its class, and all others keep theirs",
    )
    parser.add_argument(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="where memory is short: paint maps in tiles of so many pixels a side that overlap by a quarter; a network "
        "with instance or layer norm paints a tile otherwise than it would paint that part of the whole",
    )
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of the networks")
    given = parser.parse_args(argv)
    if min(given.rows, given.columns, given.magnify, given.styles) < 1:
        raise UserError("--rows, --columns, --magnify and --styles must be at least 1.")
    folder = RunFolder(given.run).require()
    recipe = parse(Recipe, read_yaml(folder.config), str(folder.config))
    if given.label_map is None and (given.instances or given.style_of or given.tile or given.sheet):
        raise UserError("--instances, --style-of, --tile and --sheet go with --label-map. Name one, too.")

    if recipe.data.points is not None:
        return _points(recipe, folder, given)
    if given.reconstruct or given.interpolate:
        return _of_reals(recipe, folder, given)
    if given.images:
        raise UserError("--images goes with --reconstruct or --interpolate. Name one, too.")
    if given.label_map is not None:
        return _paint(recipe, folder, given)
    if recipe.data.label_map_classes:
        raise UserError(f"{folder.path}: paints label maps. Name one: --label-map FILE, or a folder of them.")
    return _grid(recipe, folder, given)


def _labels(recipe: Recipe, classes: list[int] | None, count: int) -> list[int] | None:
    known = recipe.data.classes
    if not known:
        if classes:
            raise UserError("--classes: this run has no classes.")
        return None
    wrong = [number for number in classes or [] if not 0 <= number < known]
    if wrong:
        raise UserError(f"--classes {wrong[0]}: this run has the classes 0 to {known - 1}.")
    chosen = classes or list(range(known))
    return [chosen[number % len(chosen)] for number in range(count)]


def _like(recipe: Recipe, classes: list[int] | None, count: int) -> Batch | None:
    import torch

    from advgen.game import Batch

    labels = _labels(recipe, classes, count)
    return None if labels is None else Batch(torch.empty(count, 0), torch.tensor(labels))


def _grid(recipe: Recipe, folder: RunFolder, given: argparse.Namespace) -> int:
    from advgen.drawing import Drawer
    from advgen.images import grid, save_png

    count = given.rows * given.columns
    images = Drawer(recipe, folder, _dtype(given)).draw(count, given.seed, _like(recipe, given.classes, count))
    save_png(given.out, grid(images, given.columns, given.magnify))
    console.print(f"{given.out}: {count} samples")
    return 0


def _points(recipe: Recipe, folder: RunFolder, given: argparse.Namespace) -> int:
    """A scatter plot: generated points, or reconstructions, over real ones."""
    import numpy as np
    import torch

    from advgen.build import open_held_out
    from advgen.drawing import Drawer
    from advgen.tools.scatter import POINTS, save_scatter

    if given.interpolate or given.images or given.label_map is not None:
        raise UserError(f"{folder.path}: was trained on points: leave --interpolate, --images and --label-map out.")
    drawer = Drawer(recipe, folder, _dtype(given))
    if given.reconstruct:
        both = drawer.reconstruct(drawer.reals(recipe, None, POINTS, given.seed), given.seed)
        real, made = both[::2], both[1::2]
    else:
        stream = open_held_out(recipe)
        assert stream is not None
        real = torch.from_numpy(stream.read(np.arange(POINTS)).images)
        made = drawer.draw(POINTS, given.seed, _like(recipe, given.classes, POINTS))
    save_scatter(given.out, real, made)
    console.print(f"{given.out}: {POINTS} {'reconstructions' if given.reconstruct else 'samples'}")
    return 0


def _of_reals(recipe: Recipe, folder: RunFolder, given: argparse.Namespace) -> int:
    from advgen.drawing import Drawer
    from advgen.images import grid, save_png

    if given.label_map is not None or given.classes:
        raise UserError("--reconstruct and --interpolate start from real images: leave --label-map and --classes out.")
    if given.reconstruct and given.columns % 2:
        raise UserError("--reconstruct: --columns must be even, as each image stands beside its reconstruction.")
    if given.interpolate and given.columns < 4:
        raise UserError("--interpolate: --columns must be at least 4, two images and the reconstructions of both.")
    if given.seed < 0:
        raise UserError("--seed must be at least 0.")
    drawer = Drawer(recipe, folder, _dtype(given))
    if given.reconstruct:
        count = given.rows * given.columns // 2
        images = drawer.reconstruct(drawer.reals(recipe, given.images, count, given.seed), given.seed)
    else:
        count = 2 * given.rows
        real = drawer.reals(recipe, given.images, count, given.seed)
        images = drawer.interpolate(real, given.columns - 2, given.seed)
    save_png(given.out, grid(images, given.columns, given.magnify))
    console.print(f"{given.out}: of {count} images")
    return 0


def _dtype(given: argparse.Namespace) -> torch.dtype:
    import torch

    return {"float32": torch.float32, "bf16": torch.bfloat16}[given.precision]


def _styles_of(texts: list[str]) -> dict[int, int]:
    found: dict[int, int] = {}
    for text in texts:
        match = re.fullmatch(r"([0-9]{1,10})=([0-9]{1,10})", text)
        if match is None:
            raise UserError(f"--style-of {text}: give an instance's id and the number of a style, as 26001=3.")
        if int(match[1]) in found:
            raise UserError(f"--style-of {text}: instance {match[1]} stands there twice.")
        found[int(match[1])] = int(match[2])
    return found


def _paint(recipe: Recipe, folder: RunFolder, given: argparse.Namespace) -> int:
    import torch

    from advgen.drawing import Drawer
    from advgen.images import grid, save_png
    from advgen.tools.maps import coloured, maps_of

    if not recipe.data.label_map_classes:
        raise UserError(f"{folder.path}: this run was not trained on label maps, so it paints none.")
    styles = _styles_of(given.style_of)
    maps = maps_of(given.label_map, given.instances)
    single = given.sheet or len(maps) * given.styles == 1
    if single and given.out.is_dir():
        raise UserError(f"{given.out}: is a folder. Name a PNG file for one picture.")
    if not single and given.out.is_file():
        raise UserError(f"{given.out}: is a file. Name a folder for several pictures.")
    drawer = Drawer(recipe, folder, _dtype(given))
    _check(recipe, drawer, [(labels, instances) for _, labels, instances in maps], styles, given)
    if not single:
        given.out.mkdir(parents=True, exist_ok=True)
    rows: list[torch.Tensor] = []
    for name, labels, instances in maps:
        like = _read(recipe, labels, instances)
        pictures = (drawer.paint(like, given.seed + style, styles, given.tile) for style in range(given.styles))
        if given.sheet:
            rows += [coloured(like, recipe.data.label_map_classes), *(each.expand(-1, 3, -1, -1) for each in pictures)]
            continue
        for style, picture in enumerate(pictures):
            path = given.out if single else given.out / (f"{name}-{style}.png" if given.styles > 1 else f"{name}.png")
            save_png(path, grid(picture, 1, given.magnify))
    if given.sheet:
        save_png(given.out, grid(torch.cat(rows), 1 + given.styles, given.magnify))
    console.print(f"{given.out}: {len(maps) * given.styles} pictures")
    return 0


def _read(recipe: Recipe, labels: Path, instances: Path | None) -> Batch:
    from advgen.tools.maps import read_maps

    return read_maps(labels, instances, classes=recipe.data.label_map_classes, ignore=recipe.data.ignore_label)


def _check(
    recipe: Recipe,
    drawer: Drawer,
    maps: list[tuple[Path, Path | None]],
    styles: dict[int, int],
    given: argparse.Namespace,
) -> None:
    """Look at all maps before the first is painted: nothing is left half done.

    They are read again then: a folder of large maps would not fit into memory.
    """
    sizes: dict[tuple[int, ...], Path] = {}
    for labels, instances in maps:
        like = _read(recipe, labels, instances)
        assert like.label_map is not None
        sizes.setdefault(tuple(like.label_map.shape), labels)
        if given.sheet and len(sizes) > 1:
            raise UserError(f"{labels}: is not of the size of {next(iter(sizes.values()))}, as on a sheet all must be.")
        try:
            drawer.check_maps(like, styles, given.tile)
        except UserError as error:
            raise UserError(f"{labels}: {error}") from None
