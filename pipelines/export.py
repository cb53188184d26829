"""``advgen export RUN``: a run's networks as files that stand alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.filesize import decimal

from advgen.config import Recipe
from advgen.errors import UserError
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import parse, read_yaml
from pipelines.terminal import console

_DESCRIPTION = """Write a checkpoint's networks (moving averages) as safetensors with recipe and model card, and what
draws the images as TorchScript or ONNX. What is written is read back, run and compared. ONNX needs advgen[export]."""


def main(argv: list[str]) -> int:
    """Export a run."""
    parser = argparse.ArgumentParser(prog="advgen export", description=_DESCRIPTION)
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME")
    parser.add_argument("--checkpoint", type=int, metavar="NIMG", help="images seen at it; the newest by default")
    parser.add_argument("--to", type=Path, help="folder to write; RUN/export/NIMG by default")
    parser.add_argument(
        "--formats", default="safetensors,torchscript", help="of safetensors, torchscript, onnx; separated by commas"
    )
    given = parser.parse_args(argv)
    folder = RunFolder(given.run).require()
    recipe = parse(Recipe, read_yaml(folder.config), str(folder.config))

    from advgen.exporting import FORMATS, export_run

    formats = [name.strip() for name in given.formats.split(",")]
    if unknown := set(formats) - set(FORMATS):
        raise UserError(f"--formats: unknown {sorted(unknown)}. Known: {', '.join(FORMATS)}.")
    target = export_run(recipe, folder, given.checkpoint, given.to, formats)
    for path in sorted(target.iterdir()):
        console.print(f"{path}: {decimal(path.stat().st_size)}")
    return 0
