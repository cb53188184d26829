"""The page of a comparison: one HTML file with tables, a chart and pictures that works without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advgen.clock import duration
from advgen.report.compare_curves import curves_of
from advgen.report.compare_data import Compared, Comparison, Contest
from advgen.report.compare_words import GROUPING, both, finite, kimg_range, reading, sentences
from advgen.report.figures import number
from advgen.report.settings import first_columns, shown
from advgen.report.thumbnails import pictures_of

SHADES = 8
"""Colours of groups; then they begin anew with broken lines."""
COLUMNS = 12
"""Settings that differ and have a column; the tables for programs have all."""
_ORIGINS = ("commit", "started", "device", "world_size", "threads", "manifest", "versions.python", "versions.torch")


def render(comparison: Comparison) -> str:
    """The page as HTML text."""
    import jinja2

    here = Path(__file__).parent
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    template = environment.from_string((here / "compare.html.j2").read_text(encoding="utf-8"))
    script = _script(here)
    pictures, notes = pictures_of(comparison.runs)
    groups = comparison.groups
    looks = {group: {"colour": index % SHADES, "dash": index // SHADES % 3} for index, group in enumerate(groups)}
    data = {
        "runs": [
            {"name": run.name, "group": run.group, "groupIndex": groups.index(run.group), **looks[run.group]}
            for run in comparison.runs
        ],
        **curves_of(comparison),
    }
    contests = comparison.contests
    columns = first_columns(comparison.differing, [run.settings for run in comparison.runs], COLUMNS)
    return template.render(
        title=f"{len(comparison.runs)} runs compared",
        style="".join((here / name).read_text(encoding="utf-8") for name in ("style.css", "compare.css")),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        facts=_facts(comparison),
        contests=[_said(contest) for contest in contests],
        grouping=GROUPING,
        warnings=_warnings(comparison),
        notes=[*comparison.notes, *notes],
        differing=len(comparison.differing),
        columns=columns,
        runs=[_row(contests, columns, run) | looks[run.group] for run in comparison.runs],
        groups=[row for contest in contests for row in _group_rows(contest)],
        legend=[{"name": group, **looks[group]} for group in groups],
        pictured=sum(bool(mine) for mine in pictures),
        origin_keys=_ORIGINS,
        data=_embedded(data),
        pictures=_embedded(pictures),
    )


def _script(here: Path) -> str:
    """One script that leaves nothing in the page's names; its hash is what the page allows to run."""
    parts = ((here / name).read_text(encoding="utf-8") for name in ("compare_chart.js", "compare.js"))
    return f'(() => {{\n"use strict";\n{"".join(parts)}}})();'


def _embedded(value: Any) -> str:
    """JSON that cannot end the element in which it stands."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _facts(comparison: Comparison) -> list[tuple[str, str, str]]:
    runs = comparison.runs
    facts = [("runs", str(len(runs)), ""), ("groups", str(len(comparison.groups)), "that differ in more than the seed")]
    facts.append(("images seen", f"{number(sum(run.run.nimg for run in runs) / 1000)} kimg", ""))
    for unit in dict.fromkeys(run.cost.unit for run in runs if run.cost.unit):
        hours = [run.cost.device_hours for run in runs if run.cost.unit == unit]
        facts.append((unit, number(sum(hour for hour in hours if math.isfinite(hour))), "in steps, as logged"))
    ill = sum(bool(run.symptoms) for run in runs)
    if ill:
        facts.append(("runs with warnings", str(ill), ""))
    return facts


def _warnings(comparison: Comparison) -> list[dict[str, Any]]:
    """Runs by what is wrong with them."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for run in comparison.runs:
        for each in run.symptoms:
            found.setdefault((each.kind, each.advice), []).append((run.name, each.text))
    return [{"kind": kind, "advice": advice, "runs": runs} for (kind, advice), runs in found.items()]


def _said(contest: Contest) -> dict[str, Any]:
    return {
        "title": contest.title,
        "better": contest.figure.better,
        "said": " ".join(sentences(contest)),
        "differs": contest.differs,
        "beyond": bool(contest.judgements and contest.judgements[0].beyond),
        "protocol": json.dumps(
            {"resolution": contest.figure.resolution, **json.loads(contest.figure.protocol)},
            indent=2,
            ensure_ascii=False,
        ),
    }


def _row(contests: Sequence[Contest], columns: Sequence[str], run: Compared) -> dict[str, Any]:
    """What a row of the table of runs shows; numbers that are not known are None."""
    cost, about = run.cost, run.run.provenance
    versions = about.get("versions") if isinstance(about.get("versions"), dict) else {}
    flat = {**about, **{f"versions.{key}": value for key, value in (versions or {}).items()}}
    return {
        "name": run.name,
        "group": run.group,
        "state": _state(run),
        "kimg": run.run.nimg / 1000,
        "figures": [_cells(run, contest) for contest in contests],
        "settings": [shown(run.settings[name]) if name in run.settings else "–" for name in columns],
        "hours": finite(cost.seconds / 3600),
        "time": duration(cost.seconds) if math.isfinite(cost.seconds) else "",
        "device_hours": finite(cost.device_hours),
        "cost": number(cost.device_hours),
        "unit": cost.unit,
        "pace": finite(cost.seconds_per_kimg),
        "pace_text": number(cost.seconds_per_kimg),
        "warnings": len(run.symptoms),
        "origin": [str(flat[key])[:40] if flat.get(key) is not None else "–" for key in _ORIGINS],
    }


def _state(run: Compared) -> str:
    if run.state is None:
        return "–"
    total = run.state.total_nimg
    share = f", {run.state.nimg / total:.0%}" if total and run.state.state != "finished" else ""
    return f"{run.state.state}{share}"


def _cells(run: Compared, contest: Contest) -> dict[str, Any]:
    final, best = run.final(contest.figure), run.best(contest.figure)
    leads = contest.figure.better is not None and len(contest.samples) > 1 and run.group == contest.samples[0].group
    return {
        "value": final.value if final else None,
        "text": both(final.value, final.standard_error) if final else "",
        "best": bool(final) and leads,
        "best_value": best.value if best else None,
        "best_text": number(best.value) if best else "",
        "best_at": f"at {best.nimg / 1000:,.4g}" if best else "",
    }


def _group_rows(contest: Contest) -> list[dict[str, Any]]:
    rows = []
    against = {each.group: each for each in contest.judgements}
    for place, sample in enumerate(contest.samples):
        judgement = against.get(sample.group)
        known = judgement is not None and math.isfinite(judgement.low)
        rows.append(
            {
                "title": contest.title,
                "group": sample.group,
                "count": len(sample.values),
                "kimg": sample.kimg[1],
                "kimg_text": kimg_range(sample),
                "mean": sample.mean,
                "mean_text": both(sample.mean, sample.within),
                "best": not place and len(contest.samples) > 1 and contest.figure.better is not None,
                "difference": judgement.difference if judgement else None,
                "difference_text": number(judgement.difference) if judgement else "",
                "interval": f"{number(judgement.low)} to {number(judgement.high)}" if judgement and known else "–",
                "reading": reading(contest, sample.group),
                "differs": contest.differs or "–",
            }
        )
    return rows
