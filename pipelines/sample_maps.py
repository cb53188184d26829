"""``advgen sample RUN --label-map MAP``: pictures of label maps."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from advgen.config import Recipe
from advgen.errors import UserError
from pipelines.terminal import console

if TYPE_CHECKING:
    import torch

    from advgen.drawing import Drawer
    from advgen.game import Batch


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


def paint(recipe: Recipe, drawer: Drawer, given: argparse.Namespace) -> int:
    """Paint the maps into a file, a folder or a sheet."""
    import torch

    from advgen.images import grid, save_png
    from advgen.tools.maps import coloured, maps_of

    styles = _styles_of(given.style_of)
    maps = maps_of(given.label_map, given.instances)
    single = given.sheet or len(maps) * given.styles == 1
    if single and given.out.is_dir():
        raise UserError(f"{given.out}: is a folder. Name a PNG file for one picture.")
    if not single and given.out.is_file():
        raise UserError(f"{given.out}: is a file. Name a folder for several pictures.")
    _check(recipe, drawer, [(labels, instances) for _, labels, instances in maps], styles, given)
    if not single:
        given.out.mkdir(parents=True, exist_ok=True)
    about = {**drawer.about, **({"style_of": " ".join(given.style_of)} if given.style_of else {})}
    rows: list[torch.Tensor] = []
    for name, labels, instances in maps:
        like = _read(recipe, labels, instances)
        pictures = (drawer.paint(like, given.seed + style, styles, given.tile) for style in range(given.styles))
        if given.sheet:
            rows += [coloured(like, recipe.data.label_map_classes), *(each.expand(-1, 3, -1, -1) for each in pictures)]
            continue
        for style, picture in enumerate(pictures):
            path = given.out if single else given.out / (f"{name}-{style}.png" if given.styles > 1 else f"{name}.png")
            told = {**about, "seed": str(given.seed + style), "label_map": name}
            save_png(path, grid(picture, 1, given.magnify), told)
    if given.sheet:
        told = {**about, "seed": str(given.seed), "label_map": ", ".join(name for name, *_ in maps)}
        save_png(given.out, grid(torch.cat(rows), 1 + given.styles, given.magnify), told)
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
