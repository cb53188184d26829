"""``advgen run RECIPE``: every stage of a recipe on this machine, skipping what is done."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from rich.text import Text

from advgen.clock import duration
from advgen.config import Recipe, method_of
from advgen.data.config import DataSet, EarthTiles, FolderImages, PairedImages
from advgen.data.manifest import MANIFEST, parse_manifest
from advgen.data.places import Place, remote_of
from advgen.data.shards import write_shards
from advgen.data.sources import open_source
from advgen.errors import UserError
from advgen.files import sha256, write_text
from advgen.launch.plan import chosen_stages
from advgen.runtime.run_folder import RunFolder
from advgen.runtime.slurm import adopt_task
from advgen.stages import StageLog
from advgen.strict_config import digest, dump_yaml, plain
from pipelines.dry_run import describe
from pipelines.evaluate import How, evaluate
from pipelines.terminal import console, counting
from pipelines.train import recipe_from, train

DESCRIPTION = """Run every stage of a recipe: images, shards, training, evaluation, report.
A stage whose inputs are unchanged and whose outputs are there is skipped; after an interruption the same command
goes on. --only shard,train and --from evaluate leave stages out; with --only evaluate --share 2/8 the second
of eight processes takes its share of the checkpoints. Every key of the recipe is a flag;
`advgen run RECIPE --help` lists them."""


class Stopped(Exception):
    """A stage was asked to stop."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main(argv: list[str]) -> int:
    """Run a recipe."""
    adopt_task(os.environ)
    which, share, argv = split_stages(argv)
    recipe, dry_run = recipe_from(argv, "run", DESCRIPTION)
    if dry_run:
        return describe(recipe)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("`advgen run` is one process. Launch `advgen train` on many, and the other stages on one.")
    began = time.monotonic()
    folder = RunFolder(recipe.folder)
    folder.claim(dump_yaml(recipe))
    stages = StageLog(folder.path / "stages")
    try:
        sets = [
            _data(recipe, stages if "shard" in which else None, name, data_set)
            for name, data_set in (
                ("train", recipe.data.train),
                ("held_out", recipe.data.held_out),
                *((f"mix{number}", each) for number, each in enumerate(recipe.data.mix)),
            )
        ]
        if "train" in which:
            _stage(
                stages,
                "train",
                {"method": method_of(recipe), "game": plain(recipe.game), "data": sets},
                lambda: _train(recipe, folder),
            )
        if which != ("shard",) and share is None:
            write_text(folder.config, dump_yaml(recipe))  # what later stages read, where training itself was skipped
        if "evaluate" in which and recipe.evaluation.metrics:
            if share is not None:
                return evaluate(recipe, folder, How(share=share))  # no stage is done before all shares are
            trained = {path.name: sha256(path / "complete.json") for path in _checkpoints(folder)}
            _stage(
                stages,
                "evaluate",
                {"checkpoints": trained, "evaluation": plain(recipe.evaluation), "data": sets[:2]},
                lambda: _evaluate(recipe, folder),
            )
        if "report" in which:
            _stage(stages, "report", _read_of(folder), lambda: _report(folder))
            if recipe.compare_with:
                compared = [folder, *_others(recipe)]
                read = {str(each.path): _read_of(each) for each in compared}
                _stage(stages, "compare", read, lambda: _compare(compared))
    except Stopped as stopped:
        return stopped.code
    console.print(f"done in {duration(time.monotonic() - began)}")
    if "report" in which:
        console.print(f"report: {(folder.path / 'report.html').resolve()}")
    return 0


def split_stages(argv: list[str]) -> tuple[tuple[str, ...], tuple[int, int] | None, list[str]]:
    """The stages that ``--only`` and ``--from`` leave, the ``--share``, and the other arguments.

    Raises:
        UserError: an unknown stage, or a share that is none or not of the evaluation alone.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog="advgen run")
    parser.add_argument("--only")
    parser.add_argument("--from", dest="first")
    parser.add_argument("--share")
    given, rest = parser.parse_known_args(argv)
    stages, share = chosen_stages(given.only, given.first), None
    if given.share is not None:
        parts = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", given.share)
        share = (int(parts[1]), int(parts[2])) if parts else (1, 0)
        if share[0] > share[1] or stages != ("evaluate",):
            raise UserError(f"--share {given.share}: write it as 2/8, beside --only evaluate.")
    return stages, share, rest


def _stage(stages: StageLog, name: str, inputs: object, action) -> None:  # type: ignore[no-untyped-def]
    console.rule(Text(name, style="bold"), align="left")
    began = time.monotonic()
    ran = stages.run(name, inputs, action)
    console.print(f"{name}: {duration(time.monotonic() - began)}" if ran else f"{name}: done before, skipped")


def _data(recipe: Recipe, stages: StageLog | None, name: str, data_set: DataSet | None) -> str | None:
    """Tiles and shards of one set, where there are ``stages`` to make them; returns the manifest's digest."""
    if data_set is None:
        return None
    shards, images = data_set.shards, data_set.images
    remote = "://" in shards
    if images is not None and remote and stages is not None:
        raise UserError(
            f"{shards}: shards are only written to folders of this machine. Leave out the images of this set, or name "
            "a folder, and copy it there."
        )
    if images is not None and stages is not None:
        if isinstance(images, EarthTiles):
            _stage(stages, f"images-{name}", plain(images), lambda: _images(images))
        inputs = {"images": plain(images), "content": _content(images)}
        inputs |= {"data": [*_size(recipe), recipe.data.channels]}
        inputs |= {"sharding": plain(recipe.data.sharding)}
        _stage(stages, f"shards-{name}", inputs, lambda: _shards(recipe, data_set))
    place = Place(shards, remote_of(recipe.data.remote) if remote else None)
    return parse_manifest(place.read(MANIFEST), place.show(MANIFEST)).digest


def _images(images: EarthTiles) -> Iterable[Path]:
    with counting("tiles") as progress:
        open_source(images, progress)
    return [Path(images.path) / "tiles.json"]


def _content(images: EarthTiles | FolderImages | PairedImages) -> str:
    """Changes when files are added, removed or replaced; the tiles' own settings say it all for them."""
    if isinstance(images, EarthTiles):
        return digest([])
    named: list[str | None] = [images.path]
    if isinstance(images, PairedImages):
        named += [images.label_maps, images.instance_maps, images.line_art]
    elif images.labels.lower().endswith((".json", ".csv")):
        named.append(images.labels)  # one in the images' own folder or .zip is known with it
    known = []
    for place in (Path(name) for name in named if name):
        paths = sorted(place.rglob("*")) if place.is_dir() else [place]
        known += [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()]
    return digest(known)


def _size(recipe: Recipe) -> tuple[int, int]:
    """Height and width of the stored images."""
    return recipe.data.resolution, recipe.data.width or recipe.data.resolution


def _shards(recipe: Recipe, data_set: DataSet) -> Iterable[Path]:
    assert data_set.images is not None
    with counting("images") as progress:
        source = open_source(data_set.images, progress)
        write_shards(
            source,
            Path(data_set.shards),
            resolution=_size(recipe),
            channels=recipe.data.channels,
            config=recipe.data.sharding,
            progress=progress,
        )
    return sorted(path for path in Path(data_set.shards).rglob("*") if path.is_file())


def _checkpoints(folder: RunFolder) -> list[Path]:
    return sorted(path.parent for path in folder.checkpoints.glob("[0-9]*/complete.json"))


def _train(recipe: Recipe, folder: RunFolder) -> Iterable[Path]:
    code = train(recipe)
    if code:
        raise Stopped(code)
    return [path / "complete.json" for path in _checkpoints(folder)]


def _evaluate(recipe: Recipe, folder: RunFolder) -> Iterable[Path]:
    code = evaluate(recipe, folder)
    if code:
        raise Stopped(code)
    return [folder.metrics]


def _others(recipe: Recipe) -> list[RunFolder]:
    """The runs that the recipe's own is set against."""
    from advgen.report.compare_data import places

    found = [path for path in places(recipe.compare_with) if path.resolve() != recipe.folder.resolve()]
    return [RunFolder(path) for path in found]


def _read_of(folder: RunFolder) -> dict[str, str | None]:
    """Hashes of what a report reads of a run."""
    files = {"log": folder.log, "metrics": folder.metrics, "config": folder.config}
    return {name: sha256(path) if path.is_file() else None for name, path in files.items()}


def _report(folder: RunFolder) -> Iterable[Path]:
    from advgen.report import write_report

    return [write_report(folder.path)]


def _compare(runs: list[RunFolder]) -> Iterable[Path]:
    """Set runs against one another, in the folder of the first."""
    from advgen.report.compare_data import compare, read_runs
    from advgen.report.comparison import write_comparison

    read, notes = read_runs([run.path for run in runs])
    return write_comparison(compare(read, notes), runs[0].path / "compare.html")
