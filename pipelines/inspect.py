"""``advgen inspect PLACE``: what stands in a run, a checkpoint or a file of tensors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.table import Table

from pipelines.terminal import console

_DESCRIPTION = """Tell what stands in a run folder, a checkpoint or a .safetensors file; checksums are compared, and
values that are not finite are counted. Exit code 1 if something is damaged."""


def main(argv: list[str]) -> int:
    """Inspect a place."""
    parser = argparse.ArgumentParser(prog="advgen inspect", description=_DESCRIPTION)
    parser.add_argument("place", type=Path, help="run folder, checkpoint folder or .safetensors file")
    parser.add_argument("--json", action="store_true", help="for machines")
    given = parser.parse_args(argv)

    from advgen.tools.inspection import inspect

    facts = inspect(given.place)
    if given.json:
        console.print(json.dumps(facts, indent=1))
    else:
        {"run": _run, "checkpoint": _checkpoint, "file": _file}[facts["kind"]](facts)
    return 1 if facts["damaged"] else 0


def _run(facts: dict[str, Any]) -> None:
    console.print(
        f"{facts['name']}: {facts['game']}, seed {facts['seed']}, {facts['nimg'] / 1000:.1f} kimg, "
        f"phase '{facts['phase']}'"
    )
    rate = facts["images_per_second"]
    speed = f", {rate:.0f} img/s" if rate else ""
    console.print(
        f"last trained on {facts['device']}, {facts['world_size']} processes{speed}; commit {facts['commit']}"
    )
    console.print(f"data: manifest {facts['data']}")
    table = Table("checkpoint", "size", "ranks", "at", "state")
    for brief in facts["checkpoints"]:
        table.add_row(
            Path(brief["path"]).name,
            decimal(brief["bytes"]),
            str(brief["ranks"]),
            _moment(brief["ended"]),
            brief["problem"] or "whole",
        )
    console.print(table)
    for record in facts["metrics"]:
        console.print(f"{record['name']}: {record['value']:.4g} ({record['phase']}, {record['nimg'] / 1000:.1f} kimg)")


def _moment(ended: int | None) -> str:
    if ended is None:
        return "within a phase"
    return "the beginning" if ended < 0 else f"end of phase {ended + 1}"


def _checkpoint(facts: dict[str, Any]) -> None:
    console.print(
        f"{facts['path']}: {decimal(facts['bytes'])}, {_moment(facts['ended'])}, written by {facts['ranks']} ranks"
    )
    if facts["problem"]:
        console.print(facts["problem"])
        return
    clock = facts["clock"]
    console.print(f"{clock['nimg']:,} images seen, {clock['step']:,} steps, phase {clock['phase'] + 1}")
    table = Table("network", "tensors", "values", "largest", "not finite")
    for name, row in facts["networks"].items():
        table.add_row(
            name, str(row["tensors"]), f"{row['values']:,}", f"{row['largest']:.4g}", f"{row['not_finite']:,}"
        )
    console.print(table)
    for player, row in facts["moments"].items():
        steps = ", ".join(map(str, row["steps"]))
        console.print(f"moments of {player}: {row['tensors']} tensors, {row['values']:,} values, after steps {steps}")


def _file(facts: dict[str, Any]) -> None:
    console.print(f"{facts['path']}: {decimal(facts['bytes'])}")
    for key, value in facts["metadata"].items():
        console.print(f"{key}: {value}")
    table = Table("tensor", "type", "shape", "mean", "deviation", "largest", "not finite")
    for row in facts["tensors"]:
        numbers = [f"{row[key]:.4g}" if row[key] is not None else "" for key in ("mean", "deviation", "largest")]
        table.add_row(row["name"], row["dtype"], str(row["shape"]), *numbers, f"{row['not_finite']:,}")
    console.print(table)
