"""The charts of the page, as inline SVG whose colours are the page's CSS variables.

Drawn with matplotlib's objects (no pyplot, no backend choice). One unit of a chart is one CSS pixel at full width.
Equal runs give equal bytes: no dates, and ids that depend on the chart alone.
"""

from __future__ import annotations

import functools
import hashlib
import html
import io
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from advgen.report.data import Curve, Metric, Run, Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

# Colours that stand for CSS variables: matplotlib must be given some colour, and light or dark is the reader's choice.
INK, MUTED, LINE, BAND, HATCH = "#010203", "#010204", "#010205", "#010206", "#010207"
BAD, FLOOR = "#010208", "#010209"
SERIES = ("#010210", "#010211", "#010212", "#010213")
_VARIABLES = {
    **{INK: "ink", MUTED: "muted", LINE: "line", BAND: "band", HATCH: "hatch"},
    **{BAD: "bad", FLOOR: "floor"},
    **{colour: f"series-{index}" for index, colour in enumerate(SERIES)},
}
_STYLE: Any = {
    **{"svg.fonttype": "none", "path.simplify": True, "hatch.linewidth": 1.0, "font.size": 11.0},
    **{"text.parse_math": False, "axes.unicode_minus": True, "font.family": ["sans-serif"]},
}
WIDE, SMALL = 1060.0, 336.0
"""Widths of charts in pixels."""


def _styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draw with the page's style; matplotlib's own settings are as before afterwards."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> str:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
def value_chart(run: Run, name: str, curve: Curve, colour: int = 0, width: float = WIDE, height: float = 220.0) -> str:
    """One logged value over kimg: faint what was logged, bold its running mean.

    Args:
        name: what the chart is called for readers who do not see it.
        colour: index into the page's series of colours.
        width, height: in pixels.
    """
    figure, axes = _chart(run, width, height)
    points = thinned(np.array(curve.points(), dtype=np.float64).reshape(-1, 4), round(width))
    x, mean, low, high = points[:, 0] / 1000, points[:, 1], points[:, 2], points[:, 3]
    bottom, top = _robust_range(low, high)
    smooth = running_mean(np.clip(mean, bottom, top))  # one spike out of the chart must not pull it along
    shade = SERIES[colour % len(SERIES)]
    if np.any(low < high):
        axes.fill_between(x, low, high, color=shade, alpha=0.22, linewidth=0)
    elif len(x) > 30:
        axes.plot(x, mean, color=shade, alpha=0.35, linewidth=0.8)
    axes.plot(x, smooth, color=shade, linewidth=1.7, marker="o" if len(x) <= 30 else None, markersize=3)
    margin = 0.06 * (top - bottom) or max(abs(top) * 0.05, 1e-3)
    axes.set_ylim(bottom - margin, top + margin)
    beyond = [number(far) for far in (high.max(initial=top), low.min(initial=bottom)) if not bottom <= far <= top]
    if beyond:
        corner: dict[str, Any] = {"ha": "right", "va": "bottom", "color": MUTED, "fontsize": 10}
        axes.text(0.995, 0.03, f"spikes reach {' and '.join(beyond)}", transform=axes.transAxes, **corner)
    if curve.bad:
        at = np.unique(np.linspace(0, len(curve.bad) - 1, min(len(curve.bad), 60)).round().astype(int))
        where = np.array(curve.bad)[at] / 1000
        style: dict[str, Any] = {"color": BAD, "marker": "x", "markersize": 6, "linestyle": "", "clip_on": False}
        axes.plot(where, np.full(len(where), 0.05), transform=axes.get_xaxis_transform(), **style)
    return _svg(figure, f"{name} over kimg")


@_styled
def metric_chart(run: Run, name: str, metrics: list[Metric], colour: int = 0) -> str:
    """A metric over kimg; at each resolution the floor (dashed) and the untrained networks (dotted).

    Figures at different resolutions are measured on different images, so no line joins them.
    """
    figure, axes = _chart(run, WIDE, 320.0)
    shade = SERIES[colour % len(SERIES)]
    mine = [metric for metric in metrics if metric.name == name and math.isfinite(metric.value)]
    for moment, pattern, tint in (("floor", (0, (6, 3)), FLOOR), ("untrained", (0, (1, 2)), MUTED)):
        for metric in mine:
            if metric.moment == moment:
                start, end = _reach(run, metric.resolution)
                axes.plot([start, end], [metric.value] * 2, color=tint, linestyle=pattern, linewidth=1.5)
    measured = [metric for metric in mine if metric.moment not in ("floor", "untrained")]
    positive = all(metric.value > 0 for metric in mine)
    if positive and mine and max(m.value for m in mine) > 12 * min(m.value for m in mine):
        _logarithmic(axes, [metric.value for metric in mine])
    groups: dict[tuple[int | None, str], list[Metric]] = {}
    for metric in measured:
        groups.setdefault((metric.resolution, metric.weights), []).append(metric)
    for (_, weights), group in groups.items():
        group.sort(key=lambda metric: metric.nimg)
        x, y = [metric.nimg / 1000 for metric in group], [metric.value for metric in group]
        axes.plot(x, y, color=shade, linewidth=1.8, marker="o", markersize=6, alpha=0.5 if weights == "raw" else 1.0)
        if weights != "raw":
            place: dict[str, Any] = {"xytext": (-7, 7), "textcoords": "offset points", "ha": "right", "va": "bottom"}
            axes.annotate(number(y[-1]), (x[-1], y[-1]), color=INK, **place)
    axes.margins(y=0.12)
    return _svg(figure, f"{name} over kimg, with the floor of real images")


def thinned(points: np.ndarray, limit: int) -> np.ndarray:
    """Merge neighbours of (nimg, mean, least, greatest) until there are at most ``limit``, about one a pixel."""
    while len(points) > limit:
        even = points[: len(points) // 2 * 2].reshape(-1, 2, 4)
        pairs = np.column_stack((even[:, :, :2].mean(1), even[:, :, 2].min(1), even[:, :, 3].max(1)))
        points = np.concatenate((pairs, points[len(even) * 2 :]))
    return points


def running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over 3 % of the points, those far off weighing less; the window is cut at the ends."""
    n = len(values)
    half = max(2, n // 65)
    if n < 10:
        return values
    weights = 1.0 - np.abs(np.arange(-half, half + 1)) / (half + 1)
    # "full" and a cut, as "same" would give the longer of both where there are few values.
    total = np.convolve(values, weights)[half : half + n]
    return total / np.convolve(np.ones(n), weights)[half : half + n]


def number(value: float) -> str:
    """A figure for people: four digits that count, thousands told apart."""
    if not math.isfinite(value):
        return "not finite"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e7):
        return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
    digits = 0 if abs(value) >= 1000 else max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(digits, 4)}f}".replace("-", "\N{MINUS SIGN}")


def _chart(run: Run, width: float, height: float) -> tuple[Figure, Axes]:
    """An empty chart with the phases behind it and kimg below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(width / 72, height / 72))
    left, right, top, bottom = 58.0, 10.0, 20.0, 24.0
    place = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = figure.add_axes(place)
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    end = max([run.nimg, 1, *(metric.nimg for metric in run.metrics)]) / 1000
    axes.set_xlim(0, end * 1.005)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(colors=MUTED, length=0, pad=5)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(4 if width < 500 else 10, min_n_ticks=2))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.yaxis.set_major_locator(MaxNLocator(4 if height < 250 else 5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}".replace("-", "\N{MINUS SIGN}"))
    note: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "color": MUTED}
    axes.annotate("kimg", (0, 0), xytext=(-8, -8), ha="right", va="top", fontsize=10, **note)
    _phases(axes, run.spans, (width - left - right) / (end * 1.005))
    return figure, axes


def _phases(axes: Axes, spans: list[Span], pixels_per_kimg: float) -> None:
    """Every other resolution shaded, its name on top; hatched while a new resolution fades in."""
    from itertools import groupby

    across = axes.get_xaxis_transform()
    for index, (label, members) in enumerate(groupby(spans, key=lambda s: s.resolution or s.phase)):
        group = list(members)
        start, end = group[0].start / 1000, group[-1].end / 1000
        if index % 2:
            axes.axvspan(start, end, color=BAND, linewidth=0, zorder=0)
        if index:
            axes.axvline(start, color=LINE, linewidth=1, zorder=0.5)
        for span in group:
            if span.fading:
                style: dict[str, Any] = {"facecolor": "none", "edgecolor": HATCH, "hatch": "///", "linewidth": 0}
                axes.axvspan(span.start / 1000, span.end / 1000, zorder=0.4, **style)
        if (end - start) * pixels_per_kimg > 7 * len(str(label)) + 4:
            style = {"ha": "center", "va": "bottom", "color": MUTED, "fontsize": 11}
            axes.text((start + end) / 2, 1.02, str(label), transform=across, **style)


def _robust_range(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """What a chart should reach over: all values, but for rare spikes so far off that they would flatten the rest."""
    if not len(low):
        return 0.0, 1.0
    bottom, top = float(np.quantile(low, 0.005)), float(np.quantile(high, 0.995))
    least, greatest = float(low.min()), float(high.max())
    far = top - bottom
    if not far:
        return least, greatest
    return (bottom if least < bottom - far else least), (top if greatest > top + far else greatest)


def _logarithmic(axes: Axes, values: list[float]) -> None:
    """A logarithmic axis with 1, 2 and 5 of each decade written out."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    wide = math.log10(max(values) / min(values)) > 3
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")


def _reach(run: Run, resolution: int | None) -> tuple[float, float]:
    """The kimg during which the run worked at a resolution; all of it where the log does not say."""
    spans = [span for span in run.spans if span.resolution == resolution]
    if not spans:
        return 0.0, max(run.nimg, 1) / 1000
    return spans[0].start / 1000, spans[-1].end / 1000


def _svg(figure: Figure, label: str) -> str:
    """The figure as an SVG element to stand within HTML."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    prefix = f"chart-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": prefix}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="([^"]+)"', rf' id="{prefix}-\1"', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"#0102[0-9a-f]{2}", lambda match: f"var(--{_VARIABLES[match[0]]})", text)
    box = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg {box[0] if box else ""} role="img" aria-label="{html.escape(label)}">'
    return re.sub(r"\n\s*", "\n", re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)).strip()
