"""``advgen sample RUN OUT``: images from one of a run's checkpoints."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from advgen.config import Recipe
from advgen.errors import UserError
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import parse, read_yaml

# What is drawn, by the flag that asks for it; a grid where there is none.
_GRID, _COUNT, _VIDEO, _MAPS = "a grid", "--count", "--video", "--label-map"
_RECONSTRUCT, _INTERPOLATE = "--reconstruct", "--interpolate"
# What each of the other flags goes with.
_GOES_WITH: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("rows", "columns"), (_GRID, _VIDEO, _RECONSTRUCT, _INTERPOLATE)),
    "magnify": (_GRID, _VIDEO, _RECONSTRUCT, _INTERPOLATE, _MAPS),
    **dict.fromkeys(("classes", "first", "truncation"), (_GRID, _COUNT, _VIDEO)),
    **dict.fromkeys(("by_class", "shards"), (_COUNT,)),
    **dict.fromkeys(("seconds", "fps", "keys"), (_VIDEO,)),
    "images": (_RECONSTRUCT, _INTERPOLATE),
    **dict.fromkeys(("instances", "styles", "sheet", "style_of", "tile"), (_MAPS,)),
}
_LEAST = {**dict.fromkeys(("rows", "columns", "magnify", "styles", "count", "fps"), 1), "keys": 2, "first": 0}
_DEFAULTS = {"rows": 6, "columns": 10, "magnify": 1, "styles": 1, "first": 0, "style_of": []}
_OF_VIDEO = {"rows": 2, "columns": 4, "seconds": 10.0, "fps": 30, "keys": 8}


def main(argv: list[str]) -> int:
    """Draw a grid, a folder, shards or a video of samples, what becomes of real images, or paint label maps."""
    given = _parser().parse_args(argv)
    what = _what(given)
    folder = RunFolder(given.run).require()
    recipe = parse(Recipe, read_yaml(folder.config), str(folder.config))
    _check_run(recipe, folder, given, what)

    import torch

    from advgen.drawing import Choice, Drawer
    from advgen.runtime.kernels import one_device
    from pipelines import sample_many, sample_maps, sample_sheets

    dtype = {"float32": torch.float32, "bf16": torch.bfloat16}[given.precision]
    drawer = Drawer(recipe, folder, Choice(given.checkpoint, given.weights, dtype, one_device(recipe.training)))
    if recipe.data.points is not None:
        return sample_sheets.points(recipe, drawer, given)
    if what in (_RECONSTRUCT, _INTERPOLATE):
        return sample_sheets.of_reals(recipe, drawer, given)
    draw = {
        _GRID: sample_sheets.grid_of_samples,
        _COUNT: sample_many.shards if given.shards else sample_many.numbered,
        _VIDEO: sample_many.video,
        _MAPS: sample_maps.paint,
    }
    return draw[what](recipe, drawer, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="advgen sample",
        description="Draw images from a run's checkpoint: a grid, or numbered PNG files, shards or a video; by class "
        "where the run has classes; pictures painted from label maps; what the networks make of real images. Picture i "
        "of a seed is the same wherever it is drawn. PNG files store what they were drawn with.",
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME")
    parser.add_argument("out", type=Path, help="file to write; a folder for --count and for several maps or styles")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--count", type=int, metavar="N", help="write N pictures into a folder, a file each")
    what.add_argument("--video", action="store_true", help="a closed way through latents, as an .mp4 or a .gif")
    what.add_argument("--reconstruct", action="store_true", help="held-out images, each beside its reconstruction")
    what.add_argument(
        "--interpolate",
        action="store_true",
        help="each row: a held-out image, a way to another one in the space of latents, that other one",
    )
    what.add_argument("--label-map", type=Path, help="paint this map (ids in grey or palette), or all of a folder")
    _add_networks(parser.add_argument_group("what it is drawn with"))
    _add_samples(parser.add_argument_group("samples"))
    _add_maps(parser.add_argument_group("with --label-map"))
    parser.add_argument("--images", metavar="SHARDS", help="to begin from these real images instead of data.held_out")
    return parser


def _add_networks(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--checkpoint", type=int, metavar="NIMG", help="that of so many images seen; else the newest")
    group.add_argument(
        "--weights", choices=("average", "raw"), default="average", help="moving averages, or the networks themselves"
    )
    group.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of the networks")
    group.add_argument("--seed", type=int, default=0)


def _add_samples(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--rows", type=int, help="6 by default, 2 of a video")
    group.add_argument("--columns", type=int, help="10 by default, 4 of a video")
    group.add_argument("--magnify", type=int, help="each pixel becomes a square of so many")
    group.add_argument("--classes", type=int, nargs="+", help="only these, one a picture in turn; else all, in turn")
    group.add_argument("--first", type=int, metavar="I", help="number of the first picture; 0 by default")
    group.add_argument(
        "--truncation",
        type=float,
        metavar="T",
        help="latents of the normal distribution truncated at magnitude T: less variety, more typical pictures",
    )
    group.add_argument("--by-class", action="store_true", default=None, help="--count: a sub-folder for each class")
    group.add_argument("--shards", action="store_true", default=None, help="--count: shards, as `advgen shard` writes")
    group.add_argument("--seconds", type=float, help="--video: length of the loop; 10 by default")
    group.add_argument("--fps", type=int, help="--video: frames a second; 30 by default")
    group.add_argument("--keys", type=int, help="--video: random latents that each way passes; 8 by default")


def _add_maps(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--instances", type=Path, help="its instance map, or the folder of theirs")
    group.add_argument("--styles", type=int, help="so many pictures of each map; 1 by default")
    group.add_argument(
        "--sheet",
        action="store_true",
        default=None,
        help="one PNG file: a row a map, which stands first in the colours of its classes",
    )
    group.add_argument(
        "--style-of",
        nargs="+",
        metavar="ID=K",
        help="instance ID of the map gets style K of its class, and all others keep theirs",
    )
    group.add_argument(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="where memory is short: paint maps in tiles of so many pixels a side that overlap by a quarter; a network "
        "with instance or layer norm paints a tile otherwise than it would paint that part of the whole",
    )


def _what(given: argparse.Namespace) -> str:
    """What is asked for; flags that do not go with it are refused, and those that are not given get their defaults."""
    flags = (_COUNT, _VIDEO, _RECONSTRUCT, _INTERPOLATE, _MAPS)
    asked = {flag: getattr(given, flag.removeprefix("--").replace("-", "_")) for flag in flags}
    what = next((flag for flag, value in asked.items() if value is not None and value is not False), _GRID)
    for name, least in _LEAST.items():
        value = getattr(given, name)
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: must be at least {least}.")
    for name, places in _GOES_WITH.items():
        if getattr(given, name) is not None and what not in places:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag}: goes with {' or '.join(places)}. Name one, too, or leave {flag} out.")
    for name in ("truncation", "seconds"):
        value = getattr(given, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"--{name} {value}: must be a number above 0.")
    if given.by_class and given.shards:
        raise UserError("--by-class: shards have labels, and no sub-folders. Leave it out, or --shards.")
    for name, value in {**_DEFAULTS, **(_OF_VIDEO if what == _VIDEO else {})}.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return what


def _check_run(recipe: Recipe, folder: RunFolder, given: argparse.Namespace, what: str) -> None:
    """Refuse what this run cannot draw."""
    data = recipe.data
    if data.points is not None and what not in (_GRID, _RECONSTRUCT):
        raise UserError(f"{folder.path}: was trained on points, which are drawn as one picture. Leave {what} out.")
    if data.points is not None and given.images:
        raise UserError(f"{folder.path}: was trained on points. Leave --images out.")
    if what == _MAPS and not data.label_map_classes:
        raise UserError(f"{folder.path}: this run was not trained on label maps, so it paints none.")
    if what in (_GRID, _COUNT, _VIDEO) and data.label_map_classes:
        raise UserError(f"{folder.path}: paints label maps. Name one: --label-map FILE, or a folder of them.")
    if (given.classes or given.by_class) and not data.classes:
        raise UserError(f"{'--classes' if given.classes else '--by-class'}: this run has no classes.")
    wrong = [number for number in given.classes or [] if not 0 <= number < data.classes]
    if wrong:
        raise UserError(f"--classes {wrong[0]}: this run has the classes 0 to {data.classes - 1}.")
