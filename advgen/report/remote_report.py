"""A comparison as a W&B report: its Markdown, and panels of the runs' curves against images seen."""

from __future__ import annotations

import hashlib
import re

from advgen.report.compare_data import Compared, Comparison
from advgen.report.compare_tables import as_markdown
from advgen.runtime.history import metric_name
from advgen.runtime.wandb_reports import ReportText, WrittenReport, write_report

_LONGEST_TITLE = 128
_PANELS = 30  # a browser draws them all at once
_RATE = "speed/images_per_second"


def report_comparison(comparison: Comparison, path: str) -> WrittenReport:
    """Write the report of a comparison, or write it anew: the same runs have one report in a project.

    Args:
        comparison: of :func:`advgen.report.compare_data.compare`.
        path: ``entity/project`` of W&B, which holds the runs.

    Raises:
        UserError: as :func:`advgen.runtime.wandb_reports.write_report`.
    """
    runs = [identity for run in comparison.runs for identity in run.run.wandb_ids]
    text, values = as_markdown(comparison), values_of(comparison)
    return write_report(path, ReportText(title_of(comparison), key_of(comparison), text, runs, values))


def title_of(comparison: Comparison) -> str:
    """The runs by name, as far as W&B's titles and addresses hold them."""
    names = [re.sub(r"[^\w.,=+-]+", "-", run.name) for run in comparison.runs]
    whole = "Comparison of " + ", ".join(names)
    if len(whole) <= _LONGEST_TITLE:
        return whole
    end = f"... ({len(names)} runs)"
    return whole[: _LONGEST_TITLE - len(end)] + end


def key_of(comparison: Comparison) -> str:
    """By which a report of the same runs is known again; what evaluations add later changes nothing."""
    names = sorted(_identity(run) for run in comparison.runs)
    return f"runs {hashlib.sha256(chr(10).join(names).encode()).hexdigest()[:16]}"


def values_of(comparison: Comparison) -> list[str]:
    """What is shown, by the names that trackers use: what was measured, then what was logged."""
    figures = [contest.figure for contest in comparison.contests]
    measured = [metric_name(each.name, each.resolution, raw=not each.averaged) for each in figures]
    logged = sorted({name for run in comparison.runs for name in run.run.curves})
    return list(dict.fromkeys([*measured, *logged, _RATE]))[:_PANELS]


def _identity(run: Compared) -> str:
    return run.run.wandb_ids[0] if run.run.wandb_ids else run.name
