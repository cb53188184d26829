"""Points as a picture: real ones in grey, generated ones on top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advgen.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from torch import Tensor

POINTS = 2000
"""How many points of each kind a picture shows."""
_GREY, _BLUE = "0.72", "#1f5fbf"


def save_scatter(path: Path, real: Tensor, made: Tensor | None = None, about: Mapping[str, str] | None = None) -> None:
    """Write a PNG of 480 x 480 pixels, atomically; a function of the points and the text alone.

    Points of one dimension are shown as histograms, others by their first two dimensions, with equal axes. The axes
    are those of the real points, with a margin: what lies beyond is not shown but counted in the title.

    Args:
        path: of the file.
        real: float [n, d, 1, 1].
        made: generated ones, drawn on top; None for none.
        about: text that is stored with it, by keyword.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.8), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    given, shown = (
        real.flatten(1).double().cpu().numpy(),
        None if made is None else made.flatten(1).double().cpu().numpy(),
    )
    low, high = given.min(axis=0), given.max(axis=0)
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    (_histograms if given.shape[1] == 1 else _scatters)(axes, given, shown, low, high)
    if shown is not None and (beyond := ((shown < low) | (shown > high))[:, :2].any(axis=1).sum()):
        axes.set_title(f"{beyond:,} of {len(shown):,} points lie beyond", fontsize=9)
    text = {"Software": None, **(about or {})}  # else matplotlib's version, which would change the bytes
    with atomic(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary, metadata=text)


def _histograms(
    axes: Axes, real: NDArray[Any], made: NDArray[Any] | None, low: NDArray[Any], high: NDArray[Any]
) -> None:
    settings: dict[str, Any] = {"bins": 60, "range": (low[0], high[0])}
    axes.hist(real[:, 0], color=_GREY, **settings)
    if made is not None:
        axes.hist(made[:, 0], color=_BLUE, histtype="step", linewidth=1.5, **settings)
    axes.set_ylabel("points")


def _scatters(axes: Axes, real: NDArray[Any], made: NDArray[Any] | None, low: NDArray[Any], high: NDArray[Any]) -> None:
    axes.scatter(real[:, 0], real[:, 1], s=6, color=_GREY, linewidths=0)
    if made is not None:
        axes.scatter(made[:, 0], made[:, 1], s=3, color=_BLUE, alpha=0.6, linewidths=0)
    axes.set_aspect("equal")
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
