"""Reports that W&B keeps: texts and panels beside the runs, written through W&B's own library for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from advgen.errors import UserError, reason_of
from advgen.runtime.wandb_run import base_url, has_key

if TYPE_CHECKING:
    from wandb_workspaces.reports import v2


@dataclass(frozen=True)
class ReportText:
    """What stands in a report.

    Attributes:
        title: at most 128 characters; of letters that an address may hold, as it becomes part of one.
        key: by which a report of the same matter is known again; it stands in the description.
        text: Markdown.
        runs: W&B ids whose curves are shown; none for a report without panels.
        values: logged under these names, a panel each, against ``nimg``.
    """

    title: str
    key: str
    text: str
    runs: Sequence[str]
    values: Sequence[str]


@dataclass(frozen=True)
class WrittenReport:
    """What came of it.

    Attributes:
        url: of the report.
        updated: whether it was there before.
        missing: ids of runs that the project does not hold, and whose curves are not shown.
    """

    url: str
    updated: bool
    missing: Sequence[str]


def write_report(path: str, wanted: ReportText) -> WrittenReport:
    """Make a report in a project, or write the one of the same key anew; its discussion threads stay.

    Args:
        path: ``entity/project``, which holds the runs.
        wanted: what stands there.

    Raises:
        UserError: the path is no such pair, the package is not installed, there is no key or no such project, or W&B
            does not take it.
    """
    entity, project = _parts(path)
    reports = _library()
    if not has_key():
        raise UserError(
            f"--wandb-report {path}: there is no key. Set WANDB_API_KEY, or log in once with `wandb login`."
        )
    import wandb

    try:
        api = wandb.Api()
        # Fails where there is no such project, which the library would make: a slip of the pen is no wish for one.
        known = [each for each in api.reports(path) if wanted.key in (each.description or "")]
        held = _held(api, path, wanted.runs)
        if known:
            # Of an address only the id after the dashes is looked at; a server's own path would be one part too many.
            report = reports.Report.from_url(f"/{entity}/{project}/reports/known--{known[0].id}")
        else:
            report = reports.Report(project=project, entity=entity)
        report.title, report.description = wanted.title, f"Written by advgen compare; {wanted.key}"
        report.blocks = [reports.MarkdownBlock(text=wanted.text), *_panels(reports, entity, project, held, wanted)]
        report.save()
        missing = [each for each in wanted.runs if each not in held]
        return WrittenReport(report.url, bool(known), missing)
    except Exception as error:  # of the network, of W&B's service, of a library that raises plain ones
        raise UserError(
            f"--wandb-report {path}: W&B at {base_url()} did not take the report ({reason_of(error)}). Check the name, "
            "the key and the network, and give the command again."
        ) from error


def _parts(path: str) -> tuple[str, str]:
    entity, _, project = path.partition("/")
    if not entity or not project or "/" in project:
        raise UserError(f"--wandb-report {path}: is not of the form ENTITY/PROJECT, such as my-team/advgen.")
    return entity, project


def _library() -> Any:
    try:
        from wandb_workspaces.reports import v2
    except ImportError:
        raise UserError(
            "--wandb-report: the package wandb-workspaces is not installed. `pip install 'advgen[wandb-report]'`."
        ) from None
    return v2


def _held(api: Any, path: str, runs: Sequence[str]) -> list[str]:
    """Those of the runs that the project holds, in their order."""
    if not runs:
        return []
    found = {run.id for run in api.runs(path, filters={"name": {"$in": list(runs)}})}
    return [each for each in runs if each in found]


def _panels(reports: Any, entity: str, project: str, held: Sequence[str], wanted: ReportText) -> list[v2.PanelGrid]:
    if not held or not wanted.values:
        return []
    from wandb_workspaces import expr

    runs = reports.Runset(entity=entity, project=project, filters=expr.And(expr.Metric("ID").isin(list(held))))
    plots = [reports.LinePlot(title=name, x="nimg", y=[name], max_runs_to_show=len(held)) for name in wanted.values]
    return [reports.PanelGrid(runsets=[runs], panels=plots)]
