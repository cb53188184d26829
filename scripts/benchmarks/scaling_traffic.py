"""Every collective of a training, as torch's profiler sees it: kind, bytes, time, and what the trainer was doing."""

from __future__ import annotations

import functools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from torch.profiler import ProfilerActivity, profile, record_function

STATISTICS = "batch statistics"
WRITER = "checkpoint writer"
_ELEMENT = {"float": 4, "double": 8, "long int": 8, "int": 4, "unsigned char": 1, "c10::BFloat16": 2, "bool": 1}
_AUTOGRAD = ("Gather", "Scatter", "GatherBackward", "ScatterBackward")  # of advgen.runtime.collectives
_MARK = "at:"


@dataclass(frozen=True)
class Sent:
    """One collective that a rank took part in.

    Attributes:
        at: what the trainer was doing, as ``discriminator backward``.
        kind: as gloo carries it out; it makes an all-reduce of a reduce-scatter.
        size: bytes, of an all-gather those of all ranks.
        asked, start, end: seconds; when it was called for, begun by a thread of gloo, and done.
    """

    at: str
    kind: str
    size: int
    asked: float
    start: float
    end: float


def collectives(prof: profile, ranks: int) -> tuple[list[Sent], dict[str, list[tuple[float, float]]]]:
    """Every collective of gloo that a profile of all threads saw, and the (start, end) of every marked place.

    Raises:
        RuntimeError: a collective was carried out that no call belongs to, or the other way round.
    """
    assert prof.profiler is not None and prof.profiler.kineto_results is not None
    calls, carried, spans = [], [], defaultdict(list)
    for event in prof.profiler.kineto_results.events():
        name, start = event.name(), event.start_ns() / 1e9
        place = name.removeprefix(_MARK) if name.startswith(_MARK) else STATISTICS if name in _AUTOGRAD else ""
        if place:
            spans[event.start_thread_id()].append((start, event.end_ns() / 1e9, place))
        elif name.startswith("c10d::"):
            calls.append((start, event.start_thread_id(), event.structured_input_shapes()))
        elif name.startswith("gloo:"):
            carried.append((start, event.end_ns() / 1e9, name, event.structured_input_shapes(), event.dtypes()))
    carried.sort()
    sent = []
    for asked, thread, arguments in sorted(calls):
        # The backend's event has the dtype and the time, and a thread of its own; the call's thread says who called.
        found = next((each for each in carried if each[0] >= asked and _same(each[3], arguments)), None)
        if found is None:
            raise RuntimeError(f"a collective of {arguments} was called for and never begun")
        carried.remove(found)
        start, end, name, shapes, kinds = found
        size = sum(_ELEMENT[kind] * math.prod(shape) for shape, kind in zip(shapes, kinds, strict=True))
        around = [(b - a, place) for a, b, place in spans.get(thread, ()) if a <= asked <= b]
        at = min(around)[1] if around else (WRITER if thread not in spans else "else")
        kind = name.removeprefix("gloo:")
        sent.append(Sent(at, kind, size * ranks if kind == "all_gather" else size, asked, start, end))
    if carried:
        raise RuntimeError(f"{len(carried)} collectives were carried out that nobody called for: {carried[0]}")
    places = defaultdict(list)
    for start, end, place in (span for of_thread in spans.values() for span in of_thread):
        places[place].append((start, end))
    return sent, dict(places)


def _same(shapes: list[Any], arguments: list[Any]) -> bool:
    """Whether the tensors of the backend are one of the arguments of a call: a list of tensors, or one tensor."""
    return any(shapes in (argument, [argument]) for argument in arguments)


def new_profile() -> profile:
    """One that sees all threads, with shapes."""
    from torch._C._profiler import _ExperimentalConfig

    everything = _ExperimentalConfig(profile_all_threads=True)
    return profile(activities=[ProfilerActivity.CPU], record_shapes=True, experimental_config=everything)


@contextmanager
def marked() -> Iterator[None]:
    """The trainer's doings, marked in profiles taken meanwhile."""
    from advgen.trainer import Trainer
    from advgen.turns import Step

    def mark(owner: type, method: str, name: str, by_player: bool) -> Any:
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def outer(self: Any, *arguments: Any) -> Any:
            with record_function(f"{_MARK}{arguments[0].name + ' ' if by_player else ''}{name}"):
                return inner(self, *arguments)

        return patch.object(owner, method, outer)

    with ExitStack() as stack:
        for owner, method, name, by_player in (
            (Step, "_backward", "backward", True),
            (Step, "_update", "update", True),
            (Trainer, "_report", "scalars", False),
            (Trainer, "_agree", "votes", False),
            (Trainer, "_maintain", "checkpoint", False),
        ):
            stack.enter_context(mark(owner, method, name, by_player))
        yield


def overlap(sent: Sequence[Sent], passes: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """How gradients are reduced within a player's passes forward and backward; medians over passes.

    Returns:
        Share of the time of the all-reduces that lies before the last of them is called for, and so beside
        computation; shares of the pass after which the first and the last are called for.
    """
    found = []
    for start, end in passes:
        inside = [each for each in sent if start <= each.asked <= end and each.kind == "all_reduce"]
        if inside:
            first, last = inside[0].asked, inside[-1].asked
            whole = sum(each.end - each.start for each in inside)
            hidden = sum(max(0.0, min(each.end, last) - each.start) for each in inside)
            found.append((hidden / whole, (first - start) / (end - start), (last - start) / (end - start)))
    hidden, first, last = (statistics.median(values) for values in zip(*found, strict=True))
    return hidden, first, last


def readiness(each: Sent, passes: Sequence[tuple[float, float]]) -> float:
    """Share of the pass after which it was called for; 1 where it belongs to none, so that nothing hides it."""
    return next(((each.asked - a) / (b - a) for a, b in passes if a <= each.asked <= b), 1.0)
