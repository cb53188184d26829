"""``advgen verify SHARDS``: is a folder of shards whole, and what is in it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from advgen.tools.sheet import verify, write_sheet
from pipelines.shard import summary
from pipelines.terminal import console, counting


def main(argv: list[str]) -> int:
    """Verify a folder of shards; 2 if anything is wrong."""
    parser = argparse.ArgumentParser(
        prog="advgen verify",
        description="Check a folder of shards: checksums, counts, keys and images that stand twice, and that every "
        "image of every level decodes. Shows how large images are and how many each class has, and writes a contact "
        "sheet.",
    )
    parser.add_argument("shards", help="folder that `advgen shard` wrote, or its address (s3://, https:// ...)")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet (PNG) to this file")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="decode on so many")
    given = parser.parse_args(argv)
    with counting("images") as progress:
        verdict = verify(given.shards, threads=max(1, given.threads), progress=progress)
    console.print(f"{given.shards}: {summary(verdict.manifest)}")
    _histogram("bytes of an image", [(f"{low:,} to {high:,}", count) for low, high, count in verdict.bytes])
    _histogram("classes", verdict.classes)
    if given.sheet is not None:
        write_sheet(given.shards, given.sheet)
        console.print(f"contact sheet: {given.sheet}")
    for line in verdict.remarks:
        console.print(line)
    for line in verdict.wrong[:50]:
        print(f"advgen verify: {line}", file=sys.stderr)
    if len(verdict.wrong) > 50:
        print(f"advgen verify: ... and {len(verdict.wrong) - 50:,} more", file=sys.stderr)
    console.print("whole" if not verdict.wrong else f"{len(verdict.wrong):,} things are wrong")
    return 2 if verdict.wrong else 0


def _histogram(title: str, rows: list[tuple[str, int]]) -> None:
    if not rows:
        return
    console.print(f"{title}:")
    longest, most = max(len(name) for name, _ in rows[:40]), max(max(count for _, count in rows), 1)
    for name, count in rows[:40]:
        console.print(f"  {name:>{longest}}  {count:>9,}  {'#' * round(40 * count / most)}")
    if len(rows) > 40:
        console.print(f"  ... and {len(rows) - 40:,} more")
