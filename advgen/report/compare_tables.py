"""A comparison as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from advgen.clock import duration
from advgen.report.compare_data import Compared, Comparison
from advgen.report.compare_words import GROUPING, both, finite, kimg_range, sentences
from advgen.report.figures import number
from advgen.report.settings import first_columns, shown

_COLUMNS = 8  # settings in the Markdown table
Cell = str | float | int | None


def header_of(comparison: Comparison) -> list[str]:
    """The columns of :func:`row_of`."""
    columns = ["run", "group", "state", "kimg", *comparison.differing]
    for contest in comparison.contests:
        columns += [contest.title + part for part in ("", " standard error", " at kimg", " best", " best at kimg")]
    return [*columns, "hours", "device-hours", "device-hours are", "s/kimg", "warnings", "commit", "started"]


def row_of(comparison: Comparison, run: Compared) -> list[Cell]:
    """One run; None where nothing is known."""
    row: list[Cell] = [run.name, run.group, run.state.state if run.state else None, run.run.nimg / 1000]
    row += [_setting(run.settings[name]) if name in run.settings else None for name in comparison.differing]
    for contest in comparison.contests:
        final, best = run.final(contest.figure), run.best(contest.figure)
        row += [final.value, finite(final.standard_error), final.nimg / 1000] if final else [None] * 3
        row += [best.value, best.nimg / 1000] if best else [None] * 2
    cost = run.cost
    row += [finite(cost.seconds / 3600), finite(cost.device_hours), cost.unit or None, finite(cost.seconds_per_kimg)]
    about = run.run.provenance
    return [*row, len(run.symptoms), *(_text(about.get(key)) for key in ("commit", "started"))]


def as_csv(comparison: Comparison) -> str:
    """A line a run; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(_harmless, header_of(comparison)))
    writer.writerows([_harmless(cell) for cell in row_of(comparison, run)] for run in comparison.runs)
    return file.getvalue()


def as_json(comparison: Comparison) -> str:
    """Runs, groups and judgements."""
    header = header_of(comparison)
    contests = [
        {
            "metric": contest.figure.name,
            "title": contest.title,
            "better": contest.figure.better,
            "resolution": contest.figure.resolution,
            "protocol": json.loads(contest.figure.protocol),
            "verdict": sentences(contest),
            "groups": [
                {
                    "group": sample.group,
                    "runs": len(sample.values),
                    "mean": sample.mean,
                    "within_95": finite(sample.within),
                    "values": sample.numbers,
                }
                for sample in contest.samples
            ],
            "against_best": [
                {
                    "group": each.group,
                    "difference": each.difference,
                    "low": finite(each.low),
                    "high": finite(each.high),
                    "noise": each.noise,
                    "beyond_noise": each.beyond,
                }
                for each in contest.judgements
            ],
        }
        for contest in comparison.contests
    ]
    runs = [
        {
            **dict(zip(header, row_of(comparison, run), strict=True)),
            "warnings": [{"kind": each.kind, "text": each.text, "advice": each.advice} for each in run.symptoms],
        }
        for run in comparison.runs
    ]
    value = {"metrics": contests, "differing": list(comparison.differing), "runs": runs, "notes": comparison.notes}
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_markdown(comparison: Comparison) -> str:
    """The verdict, a table of groups and one of runs."""
    lines = [f"# {len(comparison.runs)} runs compared", ""]
    for contest in comparison.contests:
        lines += [f"- **{_cell(contest.title)}**: {_cell(' '.join(sentences(contest)))}"]
    lines += ["", GROUPING, ""] if comparison.contests else ["No run has metrics.", ""]
    if comparison.contests:
        lines += _table(
            ["metric", "measured", "group", "runs", "kimg", "mean ± 95 %"],
            [
                [c.title, c.differs or "alike", s.group, str(len(s.values)), kimg_range(s), both(s.mean, s.within)]
                for c in comparison.contests
                for s in c.samples
            ],
        )
    settings = first_columns(comparison.differing, [run.settings for run in comparison.runs], _COLUMNS)
    columns = ["run", "group", *settings]
    for contest in comparison.contests:
        columns += [contest.title, f"{contest.title} best"]
    rows = []
    for run in comparison.runs:
        row = [run.name, run.group, *(shown(run.settings.get(name)) for name in settings)]
        for contest in comparison.contests:
            final, best = run.final(contest.figure), run.best(contest.figure)
            row += [both(final.value, final.standard_error) if final else "–", number(best.value) if best else "–"]
        cost = run.cost
        hours = f"{number(cost.device_hours)} {cost.unit}" if math.isfinite(cost.device_hours) else "–"
        row += [duration(cost.seconds) if math.isfinite(cost.seconds) else "–", hours]
        rows.append([*row, str(run.run.provenance.get("commit") or "–")[:12]])
    lines += _table([*columns, "time", "cost", "commit"], rows)
    found = [f"- {_cell(run.name)}: {_cell(f'{s.text} {s.advice}')}" for run in comparison.runs for s in run.symptoms]
    lines += ["## Warnings", "", *found, ""] if found else []
    lines += ["## Notes", "", *(f"- {_cell(note)}" for note in comparison.notes), ""] if comparison.notes else []
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [*(f"| {' | '.join(map(_cell, line))} |" for line in lines), ""]


def _cell(text: str) -> str:
    """Text that Markdown neither takes for markup nor for the end of a cell."""
    for special in "\\`*_[]<>|#":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def _setting(value: Any) -> Cell:
    """A number as one, so that -0.1 is none of the texts that :func:`_harmless` marks."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if number else shown(value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _harmless(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t\r" and cell[:1] else cell
