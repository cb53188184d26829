"""``advgen evaluate folder``, ``shards`` and ``reference``: metrics of images that belong to no run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from advgen.errors import UserError
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.protocols import asked
from advgen.runtime.config import TrainingConfig
from pipelines.ranks import among_ranks
from pipelines.terminal import console

KINDS = {
    "folder": "metrics of a folder of image files of one size",
    "shards": "metrics of shards",
    "reference": "compute what metrics keep of real images, ahead of time, and tell the file",
}
_SETTINGS = "further flags are the settings of evaluation, as --inception-weights FILE or --samples 5000"


def main(argv: list[str]) -> int:
    """Evaluate images, or prepare a reference."""
    kind, *rest = argv
    parser = argparse.ArgumentParser(prog=f"advgen evaluate {kind}", description=f"{KINDS[kind]}; {_SETTINGS}.")
    parser.add_argument("images", help="folder or shards (a folder, or an address)")
    if kind != "reference":
        parser.add_argument("--reference", required=True, metavar="SHARDS", help="the real images")
        parser.add_argument("--out", type=Path, help="file of records, added to; JSON lines are printed without it")
    parser.add_argument("--metrics", default="fd_lite0", help="names of metrics and protocols, separated by commas")
    parser.add_argument("--resolution", type=int, help="height at which images are looked at; theirs by default")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto takes a GPU where there is one")
    given, settings = parser.parse_known_args(rest)
    metrics = tuple(name.strip() for name in given.metrics.split(","))
    asked(metrics)
    config = _settings(kind, settings, EvaluationConfig(metrics=metrics))
    training = TrainingConfig(device=given.device)
    with among_ranks(training.collective_timeout_seconds):
        if kind == "reference":
            _reference(given.images, given.resolution, config, training)
        else:
            counted = any(flag.split("=")[0] == "--samples" for flag in settings)
            _compare(kind, given, config, training, all_of_them=not counted)
    return 0


def _settings(kind: str, flags: Sequence[str], default: EvaluationConfig) -> EvaluationConfig:
    """Settings of the evaluation from flags.

    Raises:
        SystemExit: a wrong flag (code 2), or ``--help`` (code 0).
        UserError: a wrong value.
    """
    if not flags:
        return default
    import tyro

    try:
        return tyro.cli(EvaluationConfig, prog=f"advgen evaluate {kind}", default=default, args=list(flags))
    except ValueError as error:
        raise UserError(f"flags: {error}.") from None


def _compare(
    kind: str, given: argparse.Namespace, config: EvaluationConfig, training: TrainingConfig, all_of_them: bool
) -> None:
    from advgen.build import build_comparison, evaluation_world, open_shards
    from advgen.data.image_folder import ImageFolder
    from pipelines.telling import tell

    reference = open_shards(given.reference)
    if kind == "folder":
        images = ImageFolder(Path(given.images), reference.manifest.channels)
        height = images.height
    else:
        images = open_shards(given.images)
        height = images.manifest.height
    if all_of_them:
        config = replace(config, samples=max(2, len(images)))
    world = evaluation_world(training, config)

    def told(record: dict[str, object], before: bool) -> None:
        if given.out is None:
            print(json.dumps(record), flush=True)
        else:
            tell(record, before)

    build_comparison(config, reference, world).run(images, given.resolution or height, given.out, told)
    world.close()


def _reference(location: str, resolution: int | None, config: EvaluationConfig, training: TrainingConfig) -> None:
    from advgen.build import build_comparison, evaluation_world, open_shards

    reference = open_shards(location)
    world = evaluation_world(training, config)
    config = replace(config, reference_statistics=None)  # it is what is to be written
    files = build_comparison(config, reference, world).prepare(resolution or reference.manifest.height)
    if world.main:
        for name, file in files.items():
            if file is None:
                console.print(f"{name}: keeps nothing of the reference; it is looked at with the images")
            else:
                key = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["key"]
                console.print(f"{name}: {file}\n  {json.dumps(key, sort_keys=True)}")
    world.close()
