"""``advgen cancel RUN``: cancel a run's jobs."""

from __future__ import annotations

import argparse
from pathlib import Path

from advgen.launch.submission import cancel
from pipelines.terminal import console


def main(argv: list[str]) -> int:
    """Cancel jobs."""
    parser = argparse.ArgumentParser(
        prog="advgen cancel",
        description="Cancel the jobs of a run that wait or run. Checkpoints stay; `advgen submit RECIPE` goes on.",
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME")
    given = parser.parse_args(argv)
    cancelled = cancel(given.run)
    for stage, job in cancelled:
        console.print(f"{stage:<9} job {job} cancelled")
    if not cancelled:
        console.print("no job waits or runs")
    return 0
