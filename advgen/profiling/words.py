"""A profile in words: a page (Markdown) and a line for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from advgen.profiling.record import Operation, Profile

_LONGEST = 90
"""Names of kernels are cut to so many characters; the JSON file has them whole."""


def line(profile: Profile) -> str:
    """The time of a step and its three largest shares."""
    figures = profile.figures
    shares = ", ".join(f"{part.name} {percent(part.share)}" for part in figures.parts[:3])
    steps = "1 step" if figures.steps == 1 else f"{figures.steps} steps"
    return f"{steps} recorded, {milliseconds(figures.seconds)} ms each: {shares}"


def page(profile: Profile) -> str:
    """All of it; figures are those of rank 0."""
    return "\n\n".join(["# Where the time of a step goes", *_recorded(profile), *_sections(profile)]) + "\n"


def short_of(profile: Profile) -> str:
    """That fewer steps were recorded than asked for; empty where they were not."""
    recorded, asked = profile.figures.steps, profile.recording.asked
    if recorded >= asked:
        return ""
    return f"Only {recorded} of the {asked} steps that were asked for: the phase or the job ended."


def recorded(profile: Profile) -> str:
    """What was recorded, and how much the profiler itself slowed it."""
    recording, figures = profile.recording, profile.figures
    at = "" if recording.resolution is None else f" at {recording.resolution} px"
    processes = "1 process" if len(profile.ranks) == 1 else f"{len(profile.ranks)} processes"
    before = ""
    if recording.seconds_before is not None:
        before = f"; without the profiler a median of {milliseconds(recording.seconds_before)} ms in the warm-up"
    return (
        f"{figures.steps} steps from step {recording.first_step} on, after {recording.warm_up} of warm-up: phase "
        f"{recording.phase}{at}, batch {recording.batch_size}, {recording.device}, {processes}. "
        f"{milliseconds(figures.seconds)} ms a step (median {milliseconds(figures.median_seconds)}){before}."
    )


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, with two decimals."""
    return f"{1000 * seconds:,.2f}"


def percent(share: float) -> str:
    """A share as a person reads it; small ones with a decimal."""
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _recorded(profile: Profile) -> Iterable[str]:
    yield recorded(profile)
    if short := short_of(profile):
        yield short
    yield (
        "The traces `rank-*.trace.json.gz` beside this file open in https://ui.perfetto.dev and in chrome://tracing. "
        "docs/profiling.md tells what to do about what stands here."
    )


def _sections(profile: Profile) -> Iterable[str]:
    figures, device = profile.figures, profile.figures.device
    yield "## Parts of a step"
    head = ["part", "ms a step", "share"]
    if device is None:
        yield _table(head, ([p.name, milliseconds(p.seconds), percent(p.share)] for p in figures.parts))
    else:
        yield (
            f"The device was busy {percent(device.busy)} of the time, with {device.launches:,.0f} kernels, copies and "
            f"fills a step of {1e6 * device.seconds_each:,.1f} µs on average; the longest gap was "
            f"{milliseconds(device.longest_gap_seconds)} ms. Device: what it computed of a part, whenever. Idle: it "
            "computed nothing while the host was in the part."
        )
        rows = (
            [
                *(part.name, milliseconds(part.seconds), percent(part.share)),
                *(milliseconds(part.device_seconds), milliseconds(part.idle_seconds)),
            ]
            for part in figures.parts
        )
        yield _table([*head, "device ms", "idle ms"], rows)
    yield "## Operations of the host, by their own time"
    yield _operations(figures.operations)
    if figures.kernels:
        yield "## Kernels and copies of the device"
        yield _operations(figures.kernels)
    if figures.waits:
        yield "## Calls at which the host waits for the device"
        if device is None:
            yield "On a CPU there is nothing to wait for; on a GPU each of these stops the host."
        rows = ([_code(w.name), f"{w.calls:,.1f}", milliseconds(w.seconds), w.part] for w in figures.waits)
        yield _table(["call", "calls a step", "ms a step", "most of them in"], rows)
    if len(profile.ranks) > 1:
        yield "## Processes"
        ranks = ([str(r.rank), _known(r.seconds), _known(r.data_wait_seconds)] for r in profile.ranks)
        yield _table(["rank", "ms a step", "of them waiting for data"], ranks)


def _known(seconds: float | None) -> str:
    return "–" if seconds is None else milliseconds(seconds)


def _operations(operations: Sequence[Operation]) -> str:
    rows = ([_code(o.name), f"{o.calls:,.1f}", milliseconds(o.seconds), percent(o.share)] for o in operations)
    return _table(["name", "calls a step", "ms a step", "share"], rows)


def _code(name: str) -> str:
    """A name within a table: a bar would end the cell."""
    short = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    return f"`{short.replace('|', '¦').replace('`', '')}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
