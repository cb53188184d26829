"""``advgen compare RUN...``: several runs set against one another in one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from advgen.errors import UserError
from pipelines.terminal import console

_DESCRIPTION = """Set runs against one another: a verdict with its noise, tables of metrics, settings and cost, curves
and samples, in one HTML file that needs no network. Runs that differ in nothing but the seed are one group."""


def main(argv: list[str]) -> int:
    """Write a comparison."""
    parser = argparse.ArgumentParser(prog="advgen compare", description=_DESCRIPTION)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folder, folder of some, or pattern ('runs/ali-*')")
    parser.add_argument(
        "--out", type=Path, default=Path("compare.html"), help="file or folder; compare.html by default"
    )
    parser.add_argument("--format", default="", metavar="html,md,csv,json", help="what is written into a folder")
    parser.add_argument("--wandb", metavar="ENTITY/PROJECT", help="take runs from W&B as well; needs its key")
    parser.add_argument("--filter", default="{}", metavar="JSON", help="which of W&B's runs, in its own form")
    given = parser.parse_args(argv)
    if not given.runs and not given.wandb:
        raise UserError("Nothing to compare. Name run folders, such as runs/NAME, or all of them: runs.")

    from advgen.report.compare_data import compare, places, read_runs
    from advgen.report.comparison import write_comparison
    from advgen.report.remote_data import read_remote

    read, notes = read_runs(places(given.runs)) if given.runs else ([], [])
    if given.wandb:
        read = [*read, *read_remote(given.wandb, given.filter)]
    formats = [each for each in given.format.split(",") if each]
    for path in write_comparison(compare(read, notes), given.out, formats):
        console.print(f"compared {len(read)} runs: {path}")
    return 0
