"""``advgen runs [FOLDER]``: which runs there are, and how they are."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advgen.clock import duration
from advgen.errors import UserError
from pipelines.terminal import console

if TYPE_CHECKING:
    from advgen.report.run_state import RunState


def main(argv: list[str]) -> int:
    """List runs."""
    parser = argparse.ArgumentParser(
        prog="advgen runs",
        description="List the runs in a folder: state, progress, newest metrics, time since the last log.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="that holds run folders; runs")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    given = parser.parse_args(argv)

    from advgen.report.run_state import find_runs, state_of

    folders = find_runs(given.folder)
    if not folders:
        raise UserError(f"{given.folder}: holds no run folder. Name the folder that `runs` of the recipes names.")
    states = [state_of(folder) for folder in folders]
    if given.json:
        print(json.dumps([_plain(state) for state in states], indent=1))
        return 0

    from rich.table import Table

    table = Table("run", "state", "kimg", "metrics", "last log")
    for state in states:
        seen = f"{state.nimg / 1000:,.1f}"
        of = f"{seen} of {state.total_nimg / 1000:,.1f}" if state.total_nimg else seen
        figures = ", ".join(f"{metric.name} {_short(metric.value)}" for metric in state.metrics)
        age = "–" if state.updated is None else f"{duration(time.time() - state.updated)} ago"
        table.add_row(state.folder.name, state.state, of, figures, age)
    console.print(table)
    return 0


def _short(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def _plain(state: RunState) -> dict[str, Any]:
    return {
        "folder": str(state.folder),
        "state": state.state,
        "nimg": state.nimg,
        "total_nimg": state.total_nimg,
        "updated": state.updated,
        "metrics": {
            metric.name: {
                "value": metric.value if math.isfinite(metric.value) else None,
                "nimg": metric.nimg,
                "resolution": metric.resolution,
            }
            for metric in state.metrics
        },
    }
