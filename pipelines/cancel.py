"""``advgen cancel RUN``: cancel the jobs of a run or a sweep."""

from __future__ import annotations

import argparse
from pathlib import Path

from advgen.launch.array import members_of
from advgen.launch.submission import cancel
from pipelines.terminal import console


def main(argv: list[str]) -> int:
    """Cancel jobs."""
    parser = argparse.ArgumentParser(
        prog="advgen cancel",
        description="Cancel the jobs of a run, or of all members of a sweep, that wait or run. Checkpoints stay, and "
        "`advgen submit RECIPE` goes on.",
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME, or a sweep's, such as runs/NAME-sweep")
    given = parser.parse_args(argv)
    cancelled = False
    for run in members_of(given.run) or [given.run]:
        for stage, job in cancel(run):
            console.print(f"{stage:<9} job {job} cancelled")
            cancelled = True
    if not cancelled:
        console.print("no job waits or runs")
    return 0
