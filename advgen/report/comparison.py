"""A comparison of runs as files: HTML, Markdown, CSV, JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from advgen.errors import UserError
from advgen.files import write_text
from advgen.report.compare_data import Comparison
from advgen.report.compare_page import render
from advgen.report.compare_tables import as_csv, as_json, as_markdown

WRITERS: dict[str, Callable[[Comparison], str]] = {
    "html": render,
    "md": as_markdown,
    "csv": as_csv,
    "json": as_json,
}
"""By ending of the file."""


def write_comparison(comparison: Comparison, out: Path, formats: Sequence[str] = ()) -> list[Path]:
    """Write a comparison, each file atomically.

    Args:
        comparison: of :func:`advgen.report.compare_data.compare`.
        out: a file whose ending is one of the formats, or a folder, made if it is missing, for ``compare.<format>``.
        formats: of :data:`WRITERS`; empty for that of the file, and HTML in a folder.

    Raises:
        UserError: a format that is not known, or not the file's; or nothing can be written there.
    """
    if unknown := [each for each in formats if each not in WRITERS]:
        raise UserError(f"--format {unknown[0]}: is not known. Known formats: {', '.join(WRITERS)}.")
    ending = out.suffix.removeprefix(".")
    if ending in WRITERS and not out.is_dir():
        if formats and list(formats) != [ending]:
            raise UserError(f"{out}: is one file of format {ending}. Name a folder to write {', '.join(formats)}.")
        targets = {ending: out}
    else:
        targets = {each: out / f"compare.{each}" for each in dict.fromkeys(formats or ("html",))}
    for each, path in targets.items():
        try:
            write_text(path, WRITERS[each](comparison))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}). Name another place with --out.") from None
    return list(targets.values())
