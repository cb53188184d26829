"""Reading a run folder: thinning, phases, and files that are not as they should be."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from advgen.errors import UserError
from advgen.report.data import Curve, Grid, last_grids, read_run
from tests.unit.report.conftest import CONFIG, phases, write_lines


def test_a_short_curve_keeps_every_value():
    curve = Curve()
    for nimg in range(0, 500, 10):
        curve.add(nimg, nimg / 3)
    assert [point[:2] for point in curve.points()] == [(nimg, nimg / 3) for nimg in range(0, 500, 10)]


def test_a_long_curve_is_thinned_and_keeps_mean_and_extremes():
    curve = Curve(limit=100)
    values = [math.sin(i / 50) for i in range(10_007)]
    values[5000] = 99.0
    for i, value in enumerate(values):
        curve.add(i, value)
    points = curve.points()
    assert 50 <= len(points) <= 101
    assert curve.count == 10_007
    assert max(point[3] for point in points) == 99.0
    assert min(point[2] for point in points) == min(values)
    whole = points[: 10_007 // curve.stride]
    first = sum(values[: len(whole) * curve.stride])
    assert sum(point[1] for point in whole) * curve.stride == pytest.approx(first)
    assert points == sorted(points)


def test_values_that_are_not_finite_are_counted_and_left_out():
    curve = Curve()
    for nimg, value in enumerate((1.0, math.nan, math.inf, -math.inf, 1e300, 2.0)):
        curve.add(nimg, value)
    assert [point[1] for point in curve.points()] == [1.0, 2.0]
    assert (curve.bad_count, curve.bad) == (4, [1, 2, 3, 4])


def test_a_resumed_job_that_goes_back_takes_the_place_of_what_it_repeats():
    curve = Curve()
    for nimg in (10, 20, 30, 40):
        curve.add(nimg, 1.0)
    for nimg in (30, 40, 50):
        curve.add(nimg, 2.0)
    assert [point[:2] for point in curve.points()] == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0), (50, 2.0)]


def test_phases_are_those_of_the_log(finished_run: Path):
    run = read_run(finished_run)
    assert [(span.phase, span.resolution, span.start, span.end) for span in run.spans] == phases()
    assert [span.fading for span in run.spans] == ["fade" in name for name, *_ in phases()]
    assert all(span.ended for span in run.spans)
    assert run.nimg == 540_000
    assert len(run.metrics) == 5 + 4 * 2 + 2 * 5
    assert set(run.curves) >= {"discriminator/loss", "generator/loss"}


def test_phases_without_events_follow_from_the_values(tmp_path: Path):
    steps = [(10, "a"), (20, "a"), (30, "b"), (40, "b"), (25, "a"), (30, "b"), (40, "b")]
    scalars = {"kind": "scalars", "step": 1, "resolution": None, "values": {"loss": 1}}
    run = read_run(_folder(tmp_path, [{**scalars, "nimg": nimg, "phase": phase} for nimg, phase in steps]))
    assert [(span.phase, span.start, span.end) for span in run.spans] == [("a", 0, 30), ("b", 30, 40)]


def test_torn_lines_unknown_kinds_and_odd_values_do_no_harm(tmp_path: Path):
    folder = _folder(tmp_path, [])
    good = {"kind": "scalars", "step": 3, "nimg": 64, "phase": "a", "resolution": 8}
    lines = [
        json.dumps({**good, "values": {"loss": 1.5, "none": None, "text": "x", "flag": True, "inf": "Infinity"}}),
        json.dumps({**good, "values": {"loss": float("nan"), "huge": 10**400}}),
        '{"kind": "novel", "nimg": "?"}',
        "not json",
        "[1, 2]",
        '{"kind": "scalars", "values": {"loss": 1}}',
        '{"kind": "scalars", "nimg": 96, "val',
    ]
    (folder / "log.jsonl").write_text("\n".join(lines))
    run = read_run(folder)
    assert run.curves["loss"].points() == [(64, 1.5, 1.5, 1.5)]
    assert sorted(run.curves) == ["huge", "inf", "loss", "none"]
    notes = " ".join(run.notes)
    assert "loss: 1 of 2 values are NaN or infinite" in notes
    assert "2 lines could not be read" in notes
    assert "1 records say no nimg" in notes


def test_elapsed_time_adds_up_over_jobs_that_count_from_zero(tmp_path: Path):
    rate = {"kind": "rate", "phase": "a", "resolution": 8, "images_per_second": 5.0}
    times = [(10, 100.0), (20, 200.0), (30, 50.0), (40, 90.0)]
    run = read_run(_folder(tmp_path, [{**rate, "nimg": nimg, "elapsed_seconds": s} for nimg, s in times]))
    assert run.seconds == 290.0


def test_a_resumed_job_that_is_soon_further_than_the_one_before_counts_from_zero_too(tmp_path: Path):
    where = {"phase": "a", "resolution": 8}
    rates = [
        {"kind": "rate", **where, "nimg": n, "images_per_second": 5.0, "elapsed_seconds": s}
        for n, s in ((10, 3.0), (20, 60.0))
    ]
    resumed = {"kind": "phase", **where, "nimg": 10, "event": "resume"}
    run = read_run(_folder(tmp_path, [rates[0], resumed, rates[1]]))
    assert run.seconds == 63.0 and [point[1] for point in run.elapsed.points()] == [3.0, 63.0]


def test_a_metric_measured_again_counts_once(tmp_path: Path):
    folder = _folder(tmp_path, [])
    metric = {"name": "fd", "nimg": 10, "phase": "a", "moment": "end", "resolution": 8, "protocol": {"samples": 5}}
    write_lines(folder / "metrics.jsonl", [{**metric, "value": 3.0}, {**metric, "value": 2.0}, {"value": 1}])
    run = read_run(folder)
    assert [metric.value for metric in run.metrics] == [2.0]
    assert "1 records have no name or value" in " ".join(run.notes)


def test_each_phase_is_shown_by_its_end_else_by_its_latest_grid():
    grids = [
        Grid(Path("1"), 10, "a", 4, "start"),
        Grid(Path("2"), 20, "a", 4, "end"),
        Grid(Path("3"), 20, "b", 8, "start"),
        Grid(Path("4"), 30, "b", 8, "interval"),
    ]
    assert [grid.path.name for grid in last_grids(grids)] == ["2", "4"]


def test_an_image_outside_the_run_folder_is_not_taken(tmp_path: Path):
    folder = _folder(tmp_path, [{"kind": "rate", "nimg": 1, "phase": "a", "images_per_second": 1.0}])
    (tmp_path / "secret.png").write_bytes(b"x")
    record = {"nimg": 1, "phase": "a", "resolution": 4, "event": "end"}
    files = ("../../secret.png", str(tmp_path / "secret.png"), "gone.png")
    write_lines(folder / "samples" / "index.jsonl", [{**record, "file": file} for file in files])
    run = read_run(folder)
    assert run.grids == []
    assert "3 of its images are not in the run folder" in " ".join(run.notes)


def test_what_is_no_run_folder_is_refused_with_a_way_out(tmp_path: Path):
    with pytest.raises(UserError, match=r"not a run folder \(it holds no config.yaml\). Name a folder"):
        read_run(tmp_path / "nothing")


@pytest.mark.parametrize("lines", [[], [{"kind": "phase", "nimg": 0, "phase": "a", "event": "start"}]])
def test_a_run_without_values_is_refused_with_a_way_out(tmp_path: Path, lines: list[dict]):
    with pytest.raises(UserError, match=r"nothing was logged yet .* Wait until"):
        read_run(_folder(tmp_path, lines))


def _folder(tmp_path: Path, log: list[dict]) -> Path:
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    write_lines(folder / "log.jsonl", log)
    return folder
