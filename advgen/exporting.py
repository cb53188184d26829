"""A run's networks as files that stand alone: weights, recipe, model card, and forms that need no code of ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from advgen.build import build_game, restored
from advgen.capabilities import Exports
from advgen.config import Recipe
from advgen.errors import UserError
from advgen.files import sync_file, sync_folder, write_json, write_text
from advgen.game import Game, Progress
from advgen.metrics.records import read_records
from advgen.runtime.checkpoint import Checkpoint, latest_checkpoint, name_of, read_checkpoint
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import dump_yaml
from advgen.tools.card import Card, render
from advgen.tools.formats import write_onnx, write_torchscript
from advgen.tools.inspection import read_json

WRITERS = {"torchscript": ("TorchScript", "model.pt", write_torchscript), "onnx": ("ONNX", "model.onnx", write_onnx)}
FORMATS = ("safetensors", *WRITERS)


def export_run(
    recipe: Recipe, folder: RunFolder, nimg: int | None, target: Path | None, formats: Sequence[str]
) -> Path:
    """Write a checkpoint's networks, averaged where the game averages, with all that belongs to them.

    Args:
        recipe: the run's.
        folder: the run's.
        nimg: images seen at the checkpoint; None for the newest.
        target: the folder to write, which must not be there; None: ``export/<nimg>`` in the run.
        formats: besides safetensors, which are always written: of :data:`FORMATS`.

    Returns:
        The folder.

    Raises:
        UserError: no such checkpoint or a damaged one, a folder that is there, a game that cannot do it.
    """
    path = latest_checkpoint(folder.checkpoints) if nimg is None else folder.checkpoints / name_of(nimg)
    if path is None:
        raise UserError(f"{folder.path}: has no checkpoint to export. Train it first: `advgen train RECIPE`.")
    checkpoint = read_checkpoint(path)
    target = target or folder.path / "export" / path.name
    if target.exists():
        raise UserError(f"{target}: is there already. Remove it, or name another folder by --to.")
    game = build_game(recipe)
    networks, progress = restored(game, checkpoint)
    for network in networks.values():
        network.float().eval().requires_grad_(False)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        card = _write(temporary, recipe, folder, game, checkpoint, networks, progress, formats)
        write_text(temporary / "README.md", render(card))
        write_json(temporary / "export.json", asdict(card))
        for file in temporary.iterdir():
            file.chmod(0o644)  # to be handed on; safetensors keeps its files to their owner
            sync_file(file)
        os.replace(temporary, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _write(
    folder: Path,
    recipe: Recipe,
    run: RunFolder,
    game: Game,
    checkpoint: Checkpoint,
    networks: Mapping[str, nn.Module],
    progress: Progress,
    formats: Sequence[str],
) -> Card:
    averaged = {average.of: average.name for average in game.averages}
    rows: list[tuple[str, str, int]] = []
    for name in averaged or networks:  # what is not averaged beside something that is, is no use for drawing
        about = f"moving average of '{name}'" if name in averaged else f"'{name}'"
        tensors = {key: value.contiguous().clone() for key, value in networks[name].state_dict().items()}
        metadata = {"run": recipe.name, "network": name, "weights": averaged.get(name, name)}
        save_file(tensors, folder / f"{name}.safetensors", {**metadata, "nimg": str(checkpoint.clock.nimg)})
        rows.append((f"{name}.safetensors", about, sum(p.numel() for p in networks[name].parameters())))
    inputs, written = _draw_formats(folder, game, networks, progress, formats)
    write_text(folder / "config.yaml", dump_yaml(recipe))
    known = read_json(run.provenance)
    picture = run.samples / f"{name_of(checkpoint.clock.nimg)}.png"
    if picture.is_file():
        shutil.copyfile(picture, folder / "samples.png")
    return Card(
        name=recipe.name,
        game=recipe.game.kind,
        resolution=progress.phase.resolution,
        channels=recipe.data.channels,
        classes=recipe.data.classes,
        phase=progress.phase.name,
        fade=progress.fade,
        nimg=checkpoint.clock.nimg,
        seed=recipe.seed,
        manifest=str(checkpoint.about.get("data.manifest", "not known")),
        versions=known.get("versions", {}),
        commit=known.get("commit"),
        networks=rows,
        inputs=[
            (name, str(value.dtype).removeprefix("torch."), list(value.shape[1:])) for name, value in inputs.items()
        ],
        formats=written,
        metrics=_metrics(run, checkpoint.clock.nimg),
        picture="samples.png" if picture.is_file() else None,
    )


def _draw_formats(
    folder: Path, game: Game, networks: Mapping[str, nn.Module], progress: Progress, formats: Sequence[str]
) -> tuple[Mapping[str, Tensor], dict[str, tuple[str, float]]]:
    if not isinstance(game, Exports):
        if others := set(formats) & WRITERS.keys():
            raise UserError(
                f"This game's networks are exported as safetensors only, not as {sorted(others)}. Give --formats "
                "safetensors."
            )
        return {}, {}
    module, inputs = game.drawer(networks, progress)
    written: dict[str, tuple[str, float]] = {}
    for format in formats:
        if format in WRITERS:
            title, file, write = WRITERS[format]
            written[title] = (file, write(module.eval(), inputs, folder / file))
    return inputs, written


def _metrics(run: RunFolder, nimg: int) -> list[Mapping[str, Any]]:
    return [record for record in read_records(run.metrics) if record["nimg"] == nimg and record["checkpoint"]]
