"""The page: what was read and drawn, in words and tables, written as one file."""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advgen.clock import duration
from advgen.errors import UserError
from advgen.files import write_text
from advgen.metrics.protocols import metric_of
from advgen.profiling.words import milliseconds
from advgen.report.data import Grid, Metric, Run, last_grids, read_run
from advgen.report.figures import SMALL, WIDE, metric_chart, number, value_chart
from advgen.report.profile import profile_of
from advgen.report.settings import shown
from advgen.report.symptoms import symptoms_of
from advgen.strict_config import flatten

WIDEST = 2048
"""Grids with more pixels in a row are embedded at this width."""
COMPARED = ("samples", "reference_samples", "extractor", "reference", "resize")
"""What two protocols must have in common for their figures to be set against each other."""


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the page of a run folder, atomically.

    Args:
        run: the run folder. It may be one in which training still goes on.
        out: the HTML file, or an existing folder for it; ``report.html`` in the run folder if not given.

    Returns:
        The file written. It needs no other file and no network.

    Raises:
        UserError: ``run`` is no run folder, or nothing was logged in it yet; or ``out`` cannot be written.
    """
    path = run / "report.html" if out is None else out
    if path.is_dir():
        path = path / "report.html"
    text = render(read_run(run))
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}). Name another file with out.") from None
    return path


def render(run: Run) -> str:
    """The page as HTML text; a function of the run folder's content alone."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "measured": measured, "kimg": kimg, "percent": percent, "times": times}
    environment.filters["milliseconds"] = milliseconds
    here = Path(__file__).parent
    template = environment.from_string((here / "template.html.j2").read_text(encoding="utf-8"))
    rows = compare(run.metrics)
    return template.render(
        style=(here / "style.css").read_text(encoding="utf-8"),
        name=run.folder.resolve().name,
        facts=_facts(run, rows),
        pictures=_pictures(run),
        metrics=_metric_sections(run, rows),
        protocols=_protocols(run.metrics),
        **_charts(run),
        phases=run.spans,
        profile=profile_of(run.folder, run.notes),
        provenance=[(name, shown(item)) for name, item in flatten(run.provenance).items() if item is not None],
        config=run.config,
        symptoms=symptoms_of(run),
        notes=run.notes,
    )


@dataclass(frozen=True)
class Row:
    """A measured figure beside what it must be read against."""

    metric: Metric
    floor: Metric | None
    untrained: Metric | None
    differs: tuple[str, ...]

    @property
    def ratio(self) -> float | None:
        """How many times the floor the figure is."""
        return self.metric.value / self.floor.value if self.floor and self.floor.value > 0 else None

    @property
    def left(self) -> float | None:
        """The share of the way from untrained networks to the floor that is still ahead: 1 untrained, 0 the floor."""
        if not self.floor or not self.untrained or self.untrained.value == self.floor.value:
            return None
        return (self.metric.value - self.floor.value) / (self.untrained.value - self.floor.value)


def compare(metrics: list[Metric]) -> list[Row]:
    """Set each figure beside the floor and the untrained networks at its resolution.

    A counterpart with the same protocol is preferred; where there is none, the row says in what they differ.
    """
    rows = []
    names = list(dict.fromkeys(metric.name for metric in metrics))  # the metric that was logged first comes first
    for metric in sorted(metrics, key=lambda metric: (names.index(metric.name), *_order(metric))):
        if metric.moment == "floor":
            continue
        floor, untrained = _counterpart(metric, metrics, "floor"), _counterpart(metric, metrics, "untrained")
        differs = {key for other in (floor, untrained) if other for key in _differences(metric, other)}
        rows.append(Row(metric, floor, untrained, tuple(sorted(differs))))
    return rows


def _order(metric: Metric) -> tuple[Any, ...]:
    moments = ("untrained", "start")
    place = moments.index(metric.moment) if metric.moment in moments else len(moments)
    return metric.resolution or 0, place > 0, metric.nimg, place, metric.weights


def _counterpart(metric: Metric, metrics: list[Metric], moment: str) -> Metric | None:
    found = [
        other
        for other in metrics
        if (other.name, other.resolution, other.moment) == (metric.name, metric.resolution, moment)
        and math.isfinite(other.value)
    ]
    return min(reversed(found), key=lambda other: len(_differences(metric, other)), default=None)


def _differences(a: Metric, b: Metric) -> list[str]:
    both = [key for key in COMPARED if key in a.protocol and key in b.protocol]
    return [key for key in both if a.protocol[key] != b.protocol[key]]


def _final(rows: list[Row]) -> Row | None:
    """The latest figure of the metric that was logged first, of the averaged weights where there are both."""
    trained = [row for row in rows if row.metric.moment != "untrained" and math.isfinite(row.metric.value)]
    first = [row for row in trained if row.metric.name == trained[0].metric.name]
    return max(first, key=lambda r: (r.metric.nimg, r.metric.resolution or 0, r.metric.weights != "raw"), default=None)


def _facts(run: Run, rows: list[Row]) -> list[tuple[str, str, str]]:
    """The head's few figures: (what, figure, remark)."""
    facts = []
    final = _final(rows)
    if final:
        remark = f"{times(final.ratio)} the floor of {number(final.floor.value)}" if final.ratio and final.floor else ""
        facts.append((final.metric.name, measured(final.metric), remark))
        if final.left is not None:
            facts.append(("distance left", percent(final.left), "untrained 100 %, real images 0 %"))
    resolution = run.spans[-1].resolution if run.spans else None
    facts.append(("images seen", f"{kimg(run.nimg)} kimg", f"{run.step:,} steps" if run.step else ""))
    if run.seconds:
        facts.append(("time", duration(run.seconds), ""))
    since = run.spans[-1].start if run.spans else 0
    rates = sorted(point[1] for point in run.rate.points() if point[0] >= since)
    if rates:
        where = f"median at {resolution} px" if resolution else "median of the last phase"
        facts.append(("images/s", f"{float(f'{rates[len(rates) // 2]:.3g}'):,g}", where))
    return facts


def _charts(run: Run) -> dict[str, Any]:
    """Charts by section: losses, one to a player; other values in small; the image rate."""
    losses, others = [], {}
    for name, curve in run.curves.items():
        player, _, value = name.rpartition("/")
        if value == "loss":
            losses.append((player or name, value_chart(run, name, curve, len(losses))))
        else:
            others.setdefault(player, []).append((value, name, curve))
    players = [player for player, _ in losses]
    small = []
    for player, members in others.items():
        colour = players.index(player) if player in players else len(players)
        charts = [(value, value_chart(run, name, curve, colour, SMALL, 150)) for value, name, curve in members]
        small.append((player, charts))
    rate = value_chart(run, "images per second", run.rate, 2, WIDE, 180) if run.rate.count or run.rate.bad_count else ""
    return {"losses": losses, "others": small, "rate": rate}


def _metric_sections(run: Run, rows: list[Row]) -> list[dict[str, Any]]:
    names = dict.fromkeys(metric.name for metric in run.metrics)
    return [
        {
            "name": name,
            "better": known.better if (known := metric_of(name)) else None,
            "not_fid": name.lower().startswith("fd"),
            "chart": metric_chart(run, name, run.metrics, index),
            "rows": (mine := [row for row in rows if row.metric.name == name]),
            "classes": _by_class(mine),
            "floors": [metric for metric in run.metrics if (metric.name, metric.moment) == (name, "floor")],
            "weights": len({row.metric.weights for row in mine}) > 1,
        }
        for index, name in enumerate(names)
    ]


def _by_class(rows: list[Row]) -> list[tuple[str, tuple[float, ...]]]:
    """The latest figures by class, and their floor's: (which, figures). None for a metric without classes."""
    final = _final([row for row in rows if row.metric.per_class])
    if final is None:
        return []
    shown = [(f"{kimg(final.metric.nimg)} kimg", final.metric.per_class)]
    if final.floor and len(final.floor.per_class) == len(final.metric.per_class):
        shown.append(("floor", final.floor.per_class))
    return shown


def _protocols(metrics: list[Metric]) -> list[tuple[str, str]]:
    """Each protocol once: (which figures were measured by it, the protocol as text)."""
    uses: dict[str, dict[str, list[int]]] = {}
    for metric in metrics:
        text = json.dumps(metric.protocol, indent=2, sort_keys=True, ensure_ascii=False)
        moment = metric.moment if metric.moment in ("floor", "untrained") else "trained"
        uses.setdefault(text, {}).setdefault(f"{metric.name}, {moment}", []).append(metric.resolution or 0)
    result = []
    for text, names in uses.items():
        at = {name: ", ".join(str(r) for r in sorted(set(sizes)) if r) for name, sizes in names.items()}
        result.append(("; ".join(f"{name}{f' ({sizes} px)' if sizes else ''}" for name, sizes in at.items()), text))
    return result


def _pictures(run: Run) -> dict[str, Any]:
    """The sample grids: the last one large, the real images beside it, then those of the phases before."""
    shown: list[dict[str, Any]] = []
    for grid in reversed(last_grids(run.grids)):
        picture = _picture(run, grid.path, 512 if shown else WIDE)
        if picture:
            shown.append({"title": _title(grid), **picture})
    reals = _picture(run, run.reals, 512) if run.reals else None
    return {"final": shown[0] if shown else None, "reals": reals, "phases": shown[:0:-1]}


def _title(grid: Grid) -> str:
    unfinished = "" if grid.event == "end" else ", phase unfinished"
    return f"{grid.phase or 'samples'} · {kimg(grid.nimg)} kimg{unfinished}"


def _picture(run: Run, path: Path, width: float, height: float = 640) -> dict[str, Any] | None:
    """An image as a data URI, and the width in CSS pixels to show it at.

    That is the greatest whole multiple of its own that fits into ``width`` and ``height``, so that every pixel of a
    small image becomes a square; a large one is made to fit.
    """
    from PIL import Image

    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            size = image.size
            if image.width > WIDEST:
                smaller = WIDEST, max(1, round(image.height * WIDEST / image.width))
                file = io.BytesIO()
                image.convert("RGB").resize(smaller, Image.Resampling.BOX).save(file, format="PNG")
                data = file.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        run.notes.append(f"{path.relative_to(run.folder)}: is no PNG image that could be read ({error}).")
        return None
    times = min(width / size[0], height / size[1])
    return {
        "source": f"data:image/png;base64,{base64.b64encode(data).decode()}",
        "width": round(size[0] * (math.floor(times) if times >= 1 else times)),
        "size": f"{size[0]} × {size[1]}",
        "reduced": times < 1,
    }


def kimg(nimg: float) -> str:
    """Thousands of images, with a decimal only where it says something."""
    return f"{nimg / 1000:,.1f}".removesuffix(".0")


def times(ratio: float) -> str:
    """How many times another figure; near 1 with the digits that tell."""
    return f"{ratio:.{1 if ratio >= 2 else 2}f} ×"


def measured(metric: Metric) -> str:
    """The figure, with its standard error where it has one."""
    known = math.isfinite(metric.standard_error)
    return f"{number(metric.value)} ± {number(metric.standard_error)}" if known else number(metric.value)


def percent(share: float) -> str:
    """A share as a person reads it."""
    return f"{100 * share:.1f} %" if abs(share) < 0.1 else f"{100 * share:.0f} %"
