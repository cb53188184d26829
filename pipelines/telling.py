"""Records of metrics, printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.terminal import console

if TYPE_CHECKING:
    from advgen.metrics.records import Record


def tell(record: Record, before: bool) -> None:
    """Print a record."""
    known = " (known)" if before else ""
    error = record.get("standard_error")
    within = "" if error is None else f" ± {figure(error)}"
    console.print(
        f"{record['name']} {record['moment']:<10} {record['phase']:<14} {record['nimg'] / 1000:8.1f} kimg "
        f"{figure(record['value']):>10}{within}{known}"
    )
    if by_class := record.get("per_class"):
        figures = (f"{label}: {'-' if value is None else figure(value)}" for label, value in enumerate(by_class))
        console.print(f"  by class  {', '.join(figures)}")
    if parts := record.get("parts"):
        console.print(f"  mean of  {', '.join(f'{part}: {figure(value)}' for part, value in parts.items())}")


def figure(value: float) -> str:
    """Shares with four digits, distances of hundreds with two."""
    return f"{value:.{2 if abs(value) >= 10 else 4}f}"
