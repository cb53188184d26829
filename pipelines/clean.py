"""``advgen clean RUN...``: remove what runs no longer need."""

from __future__ import annotations

import argparse
from pathlib import Path

from advgen.errors import UserError
from pipelines.terminal import console

_DESCRIPTION = """Tell which checkpoints and leftovers of runs may go, and remove them with --yes. The newest checkpoint
stays, those at phase ends, those that training.keep_every_kimg keeps, and those that a metric or a likelihood was taken
of. A run that is being trained is left alone."""


def main(argv: list[str]) -> int:
    """Tell, or remove."""
    parser = argparse.ArgumentParser(prog="advgen clean", description=_DESCRIPTION)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, such as runs/NAME")
    parser.add_argument("--keep", type=int, default=1, metavar="N", help="so many of the newest checkpoints stay; 1")
    parser.add_argument(
        "--caches",
        action="store_true",
        help="also what the runs' evaluations keep of real images; other runs may share it, and it is computed anew",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="only tell, as without --yes")
    what.add_argument("--yes", action="store_true", help="remove it")
    given = parser.parse_args(argv)
    if given.keep < 1:
        raise UserError(f"--keep {given.keep}: at least one checkpoint stays, from which the run goes on.")

    from advgen.runtime.cleaning import Removable, cached, removable, remove
    from advgen.runtime.run_folder import RunFolder

    folders = [RunFolder(run).require() for run in given.runs]
    total, done = 0, "removed" if given.yes else "may go"
    seen: set[Path] = set()

    def told(found: list[Removable]) -> int:
        for item in found:
            console.print(f"{done}: {item.path} ({item.why}, {item.size / 1e6:,.1f} MB)")
        return sum(item.size for item in found)

    for folder in folders:
        if folder.busy():
            console.print(f"{folder.path}: is being trained, left alone.")
            continue
        cache, every = _settings_of(folder.config)
        if given.yes:
            with folder.locked():
                found = removable(folder, given.keep, every)
                remove(found)
        else:
            found = removable(folder, given.keep, every)
        total += told(found)
        if given.caches and cache is not None and cache not in seen:
            seen.add(cache)
            entries = cached(cache)
            if given.yes:
                remove(entries)
            total += told(entries)
    console.print(f"{total:,} bytes {done}." + ("" if given.yes or not total else " Remove them with --yes."))
    return 0


def _settings_of(config: Path) -> tuple[Path | None, int | None]:
    """The cache that a run's evaluation keeps, and in how many images one checkpoint stays."""
    from advgen.report.settings import settings_of

    settings = settings_of(config.read_text(encoding="utf-8", errors="replace"))
    cache, kimg = settings.get("evaluation.cache"), settings.get("training.keep_every_kimg")
    every = max(1, round(1000 * kimg)) if isinstance(kimg, (int, float)) else None
    return Path(cache) if isinstance(cache, str) else None, every
