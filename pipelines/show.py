"""``advgen show RUN``: write a run's report, and open it."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from advgen.report import write_report
from pipelines.terminal import console


def main(argv: list[str]) -> int:
    """Write and open a report."""
    parser = argparse.ArgumentParser(
        prog="advgen show", description="Write a run's report (as `advgen report` does) and open it in the browser."
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME")
    parser.add_argument("--no-open", action="store_true", help="only print where it is")
    given = parser.parse_args(argv)
    path = write_report(given.run)
    console.print(str(path))
    if not given.no_open and not webbrowser.open(path.resolve().as_uri()):
        console.print("No browser could be started here: open the file yourself.")
    return 0
