"""Figures of made-up traces, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from advgen.profiling.trace import Event, gaps, merged, overlap, read_events, self_times, summarise

MAIN, BESIDE, STREAM = (1, 1), (1, 2), (0, 7)


def mark(name: str, start: float, end: float) -> Event:
    return Event(name, "user_annotation", MAIN, start, end)


def op(name: str, start: float, end: float, thread: tuple[int, int] = MAIN) -> Event:
    return Event(name, "cpu_op", thread, start, end)


def launch(start: float, correlation: int, name: str = "cudaLaunchKernel", end: float | None = None) -> Event:
    return Event(name, "cuda_runtime", MAIN, start, start + 1 if end is None else end, correlation)


def kernel(name: str, start: float, end: float, correlation: int, kind: str = "kernel") -> Event:
    return Event(name, kind, STREAM, start, end, correlation)


def test_intervals_that_touch_overlap_or_contain_one_another_become_one() -> None:
    assert merged([(5, 6), (0, 2), (1, 3), (3, 4), (0.5, 1)]) == [(0, 4), (5, 6)]
    assert merged([]) == []


def test_gaps_are_what_busy_intervals_leave_of_a_window() -> None:
    assert gaps([(2, 3), (5, 9)], 0, 10) == [(0, 2), (3, 5), (9, 10)]
    assert gaps([(-1, 3), (5, 12)], 0, 10) == [(3, 5)]
    assert gaps([], 0, 10) == [(0, 10)]


@pytest.mark.parametrize(
    ("start", "end", "covered"), [(0, 10, 4), (1, 2, 0), (2.5, 6, 1.5), (4, 5, 0), (7, 7.5, 0.5), (20, 30, 0)]
)
def test_overlap_with_a_window(start: float, end: float, covered: float) -> None:
    assert overlap([(2, 3), (5, 8)], start, end) == covered


def test_self_time_leaves_out_what_lies_within_on_the_same_thread() -> None:
    events = [
        *(op("outer", 0, 10), op("inner", 1, 4), op("leaf", 2, 3), op("inner", 5, 6), op("next", 10, 12)),
        op("outer", 0, 7, BESIDE),
    ]
    assert self_times(events) == {"outer": (2, 6 + 7), "inner": (2, 2 + 1), "leaf": (1, 1), "next": (1, 2)}


def test_an_end_rounded_beyond_its_parents_takes_no_more_than_there_is() -> None:
    assert self_times([op("outer", 0, 10), op("inner", 9, 10.5)]) == {"outer": (1, 9), "inner": (1, 1.5)}


def test_steps_on_a_cpu() -> None:
    """Two steps of 100 and 60 microseconds; what comes before the first, or lies within a part, is no part."""
    events = [
        *(mark("a/loss", -50, -1), op("aten::item", -20, -10)),
        *(mark("step", 0, 100), mark("a/loss", 10, 40), mark("Optimizer.step", 20, 30), mark("a/backward", 40, 90)),
        *(mark("step", 100, 160), mark("a/loss", 110, 150)),
        *(op("aten::item", 12, 16), op("aten::_local_scalar_dense", 13, 15), op("aten::item", 115, 116)),
        op("aten::item", 52, 53),
    ]
    figures = summarise(events)
    assert (figures.steps, figures.device, figures.kernels) == (2, None, ())
    assert figures.seconds == figures.median_seconds == pytest.approx(80e-6)
    assert [(part.name, round(part.seconds * 1e6, 6), round(part.share, 6)) for part in figures.parts] == [
        ("a/loss", 35, 0.4375),
        ("a/backward", 25, 0.3125),
        ("other", 20, 0.25),
    ]
    assert [(o.name, o.calls, round(o.seconds * 1e6, 6)) for o in figures.operations] == [
        ("aten::item", 1.5, 2),
        ("aten::_local_scalar_dense", 0.5, 1),
    ]
    (item, scalar) = figures.waits
    assert (item.name, item.calls, item.part) == ("aten::item", 1.5, "a/loss")
    assert item.seconds == pytest.approx(3e-6)
    assert scalar.name == "aten::_local_scalar_dense"


def test_a_device_works_later_than_it_was_asked_and_idles_while_the_host_prepares() -> None:
    events = [
        *(mark("step", 0, 100), mark("loss", 0, 40), mark("update", 50, 90)),
        kernel("of the step before", -5, 2, 9),
        *(launch(10, 1), launch(20, 2), launch(55, 3, "cudaMemcpyAsync"), launch(60, 4, "cudaStreamSynchronize", 80)),
        *(kernel("gemm", 30, 50, 1), kernel("gemm", 45, 60, 2), kernel("Memcpy DtoH (x)", 70, 110, 3, "gpu_memcpy")),
    ]
    figures = summarise(events)
    assert figures.seconds == pytest.approx(110e-6), "to the end of what the device was asked for"
    parts = {part.name: part for part in figures.parts}
    # Idle 0-30 (in loss), 60-70 (in update); busy 30-60 and 70-110.
    assert parts["loss"].idle_seconds == pytest.approx(30e-6)
    assert parts["update"].idle_seconds == pytest.approx(10e-6)
    assert parts["other"].idle_seconds == pytest.approx(0)
    # Both products were asked for in loss, though they ran on beyond it.
    assert parts["loss"].device_seconds == pytest.approx(35e-6)
    assert parts["update"].device_seconds == pytest.approx(40e-6)
    assert sum(part.share for part in figures.parts) == pytest.approx(1)
    device = figures.device
    assert device is not None
    assert device.busy == pytest.approx(70 / 110)
    assert (device.launches, device.seconds_each) == (3, pytest.approx(25e-6))
    assert device.longest_gap_seconds == pytest.approx(30e-6)
    assert [(k.name, k.calls) for k in figures.kernels] == [("Memcpy DtoH (x)", 1), ("gemm", 2)]
    waits = {wait.name: wait for wait in figures.waits}
    assert waits.keys() == {"Memcpy DtoH (x)", "cudaStreamSynchronize"}
    assert waits["cudaStreamSynchronize"].seconds == pytest.approx(20e-6)
    assert {wait.part for wait in waits.values()} == {"update"}


def test_only_spans_are_read() -> None:
    raw: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "ts": 0, "args": {"name": "python"}},
        {"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "ts": 1.5, "dur": 2, "args": {"correlation": 3}},
        {"ph": "X", "cat": "cpu_op", "name": "o", "pid": 1, "tid": 1, "ts": 0, "dur": 1},
    ]
    assert read_events(raw) == [Event("k", "kernel", (0, 7), 1.5, 3.5, 3), Event("o", "cpu_op", (1, 1), 0, 1)]


def test_a_trace_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="no step"):
        summarise([op("aten::add", 0, 1)])
