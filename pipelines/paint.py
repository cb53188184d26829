"""``advgen paint RUN``: a page to draw label maps on, and to see what a run paints of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from advgen.config import Recipe
from advgen.errors import UserError
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import parse, read_yaml
from pipelines.terminal import console


def main(argv: list[str]) -> int:
    """Serve the page until asked to stop."""
    parser = argparse.ArgumentParser(
        prog="advgen paint",
        description="Serve a page, to this machine only, on which you draw a label map and see the picture that a "
        "run's newest checkpoint paints of it. Ctrl-C ends it. Needs advgen[paint].",
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME")
    parser.add_argument("--port", type=int, default=8008, help="0 takes any that is free; 8008 by default")
    parser.add_argument("--map", type=Path, help="label map to begin with (ids in grey or palette)")
    parser.add_argument("--instances", type=Path, help="its instance map")
    given = parser.parse_args(argv)
    folder = RunFolder(given.run).require()
    recipe = parse(Recipe, read_yaml(folder.config), str(folder.config))
    data = recipe.data
    if not data.label_map_classes:
        raise UserError(f"{folder.path}: this run was not trained on label maps, so it paints none.")
    if given.instances is not None and given.map is None:
        raise UserError("--instances: goes with a label map. Name it: --map FILE.")

    from advgen.drawing import Choice, Drawer
    from advgen.runtime.kernels import one_device
    from advgen.tools.maps import read_file

    try:
        from advgen.tools.paint import MOST_CLASSES, Easel, application, listen, serve
    except ImportError as error:
        raise UserError(f"advgen paint needs the package {error.name}. Install advgen[paint].") from None

    if data.label_map_classes > MOST_CLASSES:
        raise UserError(f"{folder.path}: has {data.label_map_classes} classes, the page at most {MOST_CLASSES}.")
    drawer = Drawer(recipe, folder, Choice(device=one_device(recipe.training)))
    ignore = data.ignore_label
    easel = Easel(
        run=recipe.name,
        names=tuple(f"class {number}" for number in range(data.label_map_classes)),
        ignore=None if ignore is None or ignore >= MOST_CLASSES else ignore,
        height=data.resolution,
        width=data.width or data.resolution,
        sees_instances=data.instance_maps,
        has_styles=drawer.styled,
    )
    first = None
    if given.map is not None:
        first = read_file(given.map), None if given.instances is None else read_file(given.instances)
    app = application(easel, lambda like, seed: drawer.paint(like, seed, {}), first)
    with listen(given.port) as place:
        console.print(f"http://{place.getsockname()[0]}:{place.getsockname()[1]}/: draw there; Ctrl-C ends it")
        serve(app, place)
    return 0
