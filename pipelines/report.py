"""``advgen report RUN``: a run as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from advgen.report import write_report
from pipelines.terminal import console


def main(argv: list[str]) -> int:
    """Write a report."""
    parser = argparse.ArgumentParser(
        prog="advgen report",
        description="Write samples, curves, metrics and configuration of a run as one self-contained HTML file.",
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME")
    parser.add_argument("--out", type=Path, help="where to write it; RUN/report.html by default")
    given = parser.parse_args(argv)
    console.print(f"report: {write_report(given.run, given.out)}")
    return 0
