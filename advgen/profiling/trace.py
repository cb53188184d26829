"""What the events of a trace say: time by part of a step, costly operations, an idle device, a waiting host.

The events are those of torch.profiler's export (Chrome's Trace Event Format, complete events "X"). A step is what an
annotation ``step`` spans; its parts are the outermost annotations within it, on the same thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from advgen.profiling.record import Device, Figures, Operation, Part, Wait

STEP = "step"
"""The annotation around each step."""
OTHER = "other"
"""What is left of a step beside its parts."""
_TOP = 15
_MICROSECOND = 1e-6
_CALLS = ("cuda_runtime", "cuda_driver")
_ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_WAITS = (
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "cudaStreamSynchronize",
    "cudaEventSynchronize",
    "cudaDeviceSynchronize",
)
_TO_HOST = "Memcpy DtoH"

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Event:
    """One span of a trace.

    Attributes:
        kind: its category, such as cpu_op, user_annotation, cuda_runtime, kernel, gpu_memcpy.
        thread: process and thread (of the device: device and stream).
        start, end: in microseconds.
        correlation: joins a call of the host and what it started on the device; None without.
    """

    name: str
    kind: str
    thread: tuple[Any, Any]
    start: float
    end: float
    correlation: int | None = None


def read_events(raw: Iterable[Mapping[str, Any]]) -> list[Event]:
    """The spans among a trace's ``traceEvents``."""
    return [
        Event(
            str(each["name"]),
            str(each.get("cat", "")),
            (each.get("pid"), each.get("tid")),
            float(each["ts"]),
            float(each["ts"]) + float(each["dur"]),
            each.get("args", {}).get("correlation"),
        )
        for each in raw
        if each.get("ph") == "X" and "dur" in each
    ]


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The union of intervals as disjoint ones, in order."""
    union: list[Interval] = []
    for start, end in sorted(intervals):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], end))
        else:
            union.append((start, end))
    return union


def gaps(busy: Sequence[Interval], start: float, end: float) -> list[Interval]:
    """What of [start, end] disjoint ordered intervals leave free."""
    edges = [start, *(edge for interval in busy for edge in interval), end]
    edges = [min(max(edge, start), end) for edge in edges]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


def self_times(events: Iterable[Event]) -> dict[str, tuple[int, float]]:
    """Calls and self time in microseconds, by name: each event without those that lie in it on its thread."""
    calls: Counter[str] = Counter()
    own: defaultdict[str, float] = defaultdict(float)
    around: defaultdict[tuple[Any, Any], list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda event: (event.start, -event.end)):
        stack = around[event.thread]
        while stack and stack[-1].end <= event.start:
            stack.pop()
        if stack:  # ends are rounded: one may lie a little beyond its parent's
            own[stack[-1].name] -= min(event.end, stack[-1].end) - event.start
        calls[event.name] += 1
        own[event.name] += event.end - event.start
        stack.append(event)
    return {name: (count, own[name]) for name, count in calls.items()}


def overlap(intervals: Sequence[Interval], start: float, end: float) -> float:
    """How much of [start, end] disjoint ordered intervals cover."""
    covered = 0.0
    for a, b in intervals[max(0, bisect_right(intervals, (start, start)) - 1) :]:
        if a >= end:
            break
        covered += max(0.0, min(b, end) - max(a, start))
    return covered


class _Steps:
    """The steps of a trace, their parts, and the device's work for them."""

    def __init__(self, events: Sequence[Event]) -> None:
        marks = sorted((e for e in events if e.kind == "user_annotation"), key=lambda e: (e.start, -e.end))
        steps = [mark for mark in marks if mark.name == STEP]
        if not steps:
            raise ValueError("the trace holds no step")
        self.count, self.start = len(steps), steps[0].start
        self.median = median(step.end - step.start for step in steps)
        self.on_device = [e for e in events if e.kind in _ON_DEVICE and e.start >= self.start]
        self.end = max(e.end for e in (steps[-1], *self.on_device))
        self.within = [e for e in events if self.start <= e.start < self.end]
        self.parts: list[Event] = []
        for mark in marks:
            inside = mark.thread == steps[0].thread and self.start <= mark.start < steps[-1].end and mark.name != STEP
            if inside and (not self.parts or mark.start >= self.parts[-1].end):
                self.parts.append(mark)
        self._starts = [part.start for part in self.parts]
        self._asked = {e.correlation: e.start for e in events if e.kind in _CALLS and e.correlation is not None}

    def part_of(self, event: Event) -> str:
        """The part that the host was in at an event; of the device: when the host asked for it."""
        time = event.start
        if event.kind in _ON_DEVICE and event.correlation is not None:
            time = self._asked.get(event.correlation, time)
        index = bisect_right(self._starts, time) - 1
        return self.parts[index].name if index >= 0 and time < self.parts[index].end else OTHER

    def each(self, microseconds: float) -> float:
        """Seconds a step."""
        return microseconds * _MICROSECOND / self.count


def summarise(events: Sequence[Event]) -> Figures:
    """The figures of a trace that holds at least one step.

    Raises:
        ValueError: there is none.
    """
    steps = _Steps(events)
    span = steps.end - steps.start
    idle = gaps(merged((e.start, e.end) for e in steps.on_device), steps.start, steps.end) if steps.on_device else []
    kernels: defaultdict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for event in steps.on_device:
        calls, time = kernels[event.name]
        kernels[event.name] = calls + 1, time + event.end - event.start
    return Figures(
        steps.count,
        steps.each(span),
        steps.median * _MICROSECOND,
        _parts(steps, idle),
        _ranked(self_times(e for e in steps.within if e.kind in ("cpu_op", *_CALLS)), steps),
        _ranked(kernels, steps),
        _waits(steps),
        _device(steps, idle),
    )


def _parts(steps: _Steps, idle: Sequence[Interval]) -> tuple[Part, ...]:
    host: defaultdict[str, float] = defaultdict(float)
    ran: defaultdict[str, float] = defaultdict(float)
    stood: defaultdict[str, float] = defaultdict(float)
    for part in steps.parts:
        host[part.name] += part.end - part.start
        stood[part.name] += overlap(idle, part.start, part.end)
    for event in steps.on_device:
        ran[steps.part_of(event)] += event.end - event.start
    span = steps.end - steps.start
    host[OTHER] = span - sum(host.values())
    stood[OTHER] = sum(b - a for a, b in idle) - sum(stood.values())
    return tuple(
        Part(name, steps.each(time), time / span, steps.each(ran[name]), steps.each(stood[name]))
        for name, time in sorted(host.items(), key=lambda item: -item[1])
    )


def _ranked(times: Mapping[str, tuple[int, float]], steps: _Steps) -> tuple[Operation, ...]:
    found = sorted(times.items(), key=lambda item: -item[1][1])[:_TOP]
    return tuple(
        Operation(name, calls / steps.count, steps.each(time), time / (steps.end - steps.start))
        for name, (calls, time) in found
    )


def _waits(steps: _Steps) -> tuple[Wait, ...]:
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for event in steps.within:
        if event.name in _WAITS or event.name.startswith(_TO_HOST):
            found[event.name].append(event)
    return tuple(
        Wait(
            name,
            len(calls) / steps.count,
            steps.each(sum(call.end - call.start for call in calls)),
            Counter(map(steps.part_of, calls)).most_common(1)[0][0],
        )
        for name, calls in sorted(found.items(), key=lambda item: -len(item[1]))
    )


def _device(steps: _Steps, idle: Sequence[Interval]) -> Device | None:
    if not steps.on_device:
        return None
    lengths = [e.end - e.start for e in steps.on_device]
    return Device(
        1 - sum(b - a for a, b in idle) / (steps.end - steps.start),
        len(lengths) / steps.count,
        _MICROSECOND * sum(lengths) / len(lengths),
        _MICROSECOND * max((b - a for a, b in idle), default=0.0),
    )
