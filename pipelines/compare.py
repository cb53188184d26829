"""``advgen compare RUN...``: several runs set against one another in one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from advgen.errors import UserError
from pipelines.terminal import console

if TYPE_CHECKING:
    from advgen.report.compare_data import Comparison

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
    parser.add_argument(
        "--wandb-report", metavar="ENTITY/PROJECT", help="also write a W&B report, beside the runs; needs its key"
    )
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
    comparison = compare(read, notes)
    for path in write_comparison(comparison, given.out, formats):
        console.print(f"compared {len(read)} runs: {path}")
    if given.wandb_report:
        _report(comparison, given.wandb_report)
    return 0


def _report(comparison: Comparison, path: str) -> None:
    from advgen.report.remote_report import report_comparison

    written = report_comparison(comparison, path)
    console.print(f"{'updated' if written.updated else 'made'} the W&B report {written.url}")
    missing = {*written.missing}
    if names := [run.name for run in comparison.runs if missing.intersection(run.run.wandb_ids)]:
        console.print(
            f"{path} does not hold all records of {', '.join(names[:6])}{', …' if len(names) > 6 else ''}: the report "
            "shows the curves that it has. `advgen sync RUN` sends the rest; then give the command again."
        )
