"""``advgen sample RUN``: images from a run's newest checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from advgen.config import Recipe
from advgen.errors import UserError
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import parse, read_yaml
from pipelines.terminal import console


def main(argv: list[str]) -> int:
    """Draw a grid of samples."""
    parser = argparse.ArgumentParser(
        prog="advgen sample", description="Draw a grid of images from a run's newest checkpoint (moving averages)."
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME")
    parser.add_argument("out", type=Path, help="PNG file to write")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--magnify", type=int, default=1, help="each pixel becomes a square of so many")
    given = parser.parse_args(argv)
    if min(given.rows, given.columns, given.magnify) < 1:
        raise UserError("--rows, --columns and --magnify must be at least 1.")
    folder = RunFolder(given.run).require()
    recipe = parse(Recipe, read_yaml(folder.config), str(folder.config))

    from advgen.build import draw_samples
    from advgen.images import grid, save_png

    images = draw_samples(recipe, folder, given.rows * given.columns, given.seed)
    save_png(given.out, grid(images, given.columns, given.magnify))
    console.print(f"{given.out}: {given.rows * given.columns} samples")
    return 0
