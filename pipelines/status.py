"""``advgen status RUN``: how a run's jobs are, or those of a sweep."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from advgen.launch.array import members_of
from advgen.launch.status import run_status, tail
from pipelines.terminal import console

_DESCRIPTION = """Tell how each submitted stage of a run is, with the end of its log where it runs or failed; of a
sweep, how those of its members are. Exit code 1 if a stage failed, was cancelled or cannot begin."""


def main(argv: list[str]) -> int:
    """Tell how jobs are."""
    parser = argparse.ArgumentParser(prog="advgen status", description=_DESCRIPTION)
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME, or a sweep's, such as runs/NAME-sweep")
    parser.add_argument("--lines", type=int, default=10, help="of each log")
    given = parser.parse_args(argv)
    if members := members_of(given.run):
        return _sweep(members)
    found = run_status(given.run)
    for job in found:
        detail = f"  {job.detail}" if job.detail else ""
        console.print(f"{job.stage:<9} job {job.job:<8} {job.state}{detail}")
    for job in found:
        if job.log is not None and job.state in ("running", "failed"):
            console.print(f"\n{job.log}:")
            for line in tail(job.log, given.lines):
                console.print(f"  {line}")
    return 1 if any(job.bad for job in found) else 0


def _sweep(members: list[Path]) -> int:
    states: dict[str, Counter[str]] = {}
    bad = False
    for member in members:
        found = run_status(member)
        bad = bad or any(job.bad for job in found)
        console.print(f"{member}: {', '.join(f'{job.stage} {job.state}' for job in found)}")
        for job in found:
            states.setdefault(job.stage, Counter())[job.state] += 1
    for stage, counts in states.items():
        console.print(f"{stage:<9} {', '.join(f'{count} {state}' for state, count in counts.items())}")
    return 1 if bad else 0
