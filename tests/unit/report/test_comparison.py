"""Runs set against one another: what is read, grouped and written, and files that are not as they should be."""

from __future__ import annotations

import csv
import fcntl
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from advgen.errors import UserError
from advgen.report.compare_curves import curves_of
from advgen.report.compare_data import Comparison, compare, places, read_runs
from advgen.report.comparison import write_comparison
from advgen.report.data import read_run
from advgen.report.remote_data import joined, read_remote, run_of
from advgen.report.settings import group_names
from advgen.report.thumbnails import MOST_BYTES, pictures_of
from tests.unit.report.runs import make_small_run, metric


def comparison_of(*folders: Path) -> Comparison:
    return compare(*read_runs(places([str(folder) for folder in folders])))


@pytest.fixture
def two(tmp_path: Path) -> Comparison:
    make_small_run(tmp_path / "a", seed=1, settings={"rate": 0.1}, metrics=[metric(10.0, standard_error=0.5)])
    about = {"device": "cpu", "world_size": 1, "commit": None}
    make_small_run(tmp_path / "b", settings={"rate": -0.2}, metrics=[metric(12.0)], about=about)
    return comparison_of(tmp_path)


def test_groups_are_named_by_what_differs_or_by_their_runs():
    assert group_names([{"game.a": 1}, {"game.a": 1}], ["x", "y"]) == ["all runs", "all runs"]
    assert group_names([{"game.a": 1}, {"game.a": None}], ["x", "y"]) == ["a 1", "a none"]
    assert group_names([{"g.a": 1, "h.a": 1}, {"g.a": 2, "h.a": 2}], ["x", "y"]) == ["g.a 1, h.a 1", "g.a 2, h.a 2"]
    assert group_names([{"g.a": None}, {"g.a": "none"}], ["x", "y"]) == ["x", "y"]
    one, other = ({f"game.{key}": value for key in "abcd"} for value in (1, 2))
    assert group_names([one, one, other], ["x-seed1", "x-seed2", "y"]) == ["x", "x", "y"]
    assert group_names([one, one, other, other], ["x1", "x2", "x3", "x4"]) == ["x1 …", "x1 …", "x3 …", "x3 …"]


def test_seed_hardware_and_reporting_make_no_group(tmp_path: Path):
    for number, extra in enumerate(({"training": {"threads": 2}}, {"evaluation": {"samples": 9}}, {})):
        path = make_small_run(tmp_path / f"r{number}", seed=number) / "config.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **extra}))
    comparison = comparison_of(tmp_path)
    assert comparison.groups == ["all runs"]
    assert comparison.differing == ["seed", "training.threads", "evaluation.samples"]


def test_cost_is_hours_times_devices(two: Comparison):
    a, b = (run.cost for run in two.runs)
    assert (a.seconds, a.device_hours, a.unit, a.seconds_per_kimg) == (100.0, 200 / 3600, "GPU-hours", 100.0)
    assert (b.device_hours, b.unit) == (pytest.approx(400 / 3600), "core-hours")


def test_curves_lie_on_shared_axes_of_images_and_hours(two: Comparison):
    found = curves_of(two)
    names = [each["name"] for each in found["names"]]
    assert names == ["fid", "player/loss", "images per second"]
    axis, values = found["curves"][0][1]
    assert values == [2, 1.5, 1.25, 1, 0.5]
    assert found["axes"][axis][0] == [0.2, 0.4, 0.6, 0.8, 1]
    assert found["axes"][axis][1] == pytest.approx([seconds / 3600 for seconds in (20, 40, 60, 80, 100)], rel=1e-3)


def test_many_points_are_thinned_to_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_small_run(tmp_path / "a", curves={"x/y": [float(value) for value in range(1000)]})
    monkeypatch.setattr("advgen.report.compare_curves.MOST_POINTS", 300)
    found = curves_of(comparison_of(tmp_path))
    (_, values) = found["curves"][0][[each["name"] for each in found["names"]].index("x/y")]
    assert 50 <= len(values) <= 100 and values[0] < values[-1]


def test_pictures_stay_within_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    comparison = comparison_of(make_small_run(tmp_path / "a", grids=5))
    (whole,), notes = pictures_of(comparison.runs)
    assert [picture["kimg"] for picture in whole] == [0.0, 0.25, 0.5, 0.75, 1.0] and notes == []
    assert all(picture["source"].startswith("data:image/png") and picture["of"] is None for picture in whole)
    assert sum(len(picture["source"]) for picture in whole) < MOST_BYTES
    monkeypatch.setattr("advgen.report.thumbnails.MOST_BYTES", 4000)
    monkeypatch.setattr("advgen.report.thumbnails.MOST_PICTURES", 3)
    (few,), _ = pictures_of(comparison.runs)
    assert [picture["kimg"] for picture in few] == [0.0, 0.5, 1.0]
    assert all(picture["source"].startswith("data:image/jpeg") and picture["of"] == "64 × 32" for picture in few)


def test_tables_are_written_by_their_ending(two: Comparison, tmp_path: Path):
    out = tmp_path / "out"
    paths = write_comparison(two, out, ["md", "csv", "json"])
    assert [path.name for path in paths] == ["compare.md", "compare.csv", "compare.json"]
    rows = list(csv.DictReader(io.StringIO(paths[1].read_text())))
    assert [(row["run"], row["game.rate"], row["fid"], row["fid standard error"]) for row in rows] == [
        ("a", "0.1", "10.0", "0.5"),
        ("b", "-0.2", "12.0", ""),
    ]
    value = json.loads(paths[2].read_text())
    assert value["metrics"][0]["against_best"] == [
        {"group": "rate -0.2", "difference": 2.0, "low": None, "high": None, "noise": "unknown", "beyond_noise": None}
    ]
    assert (value["runs"][0]["device-hours are"], value["runs"][0]["game.rate"]) == ("GPU-hours", 0.1)
    markdown = paths[0].read_text()
    assert "with Bonferroni's correction" in markdown
    assert "| a | rate 0.1 | 0.1 | 1 | 10.00 ± 0.5000 | 10.00 | 1m 40s | 0.0556 GPU-hours | 0b844c3d9f |" in markdown
    assert write_comparison(two, tmp_path / "one.json") == [tmp_path / "one.json"]
    for given, formats, words in (
        (tmp_path / "x.csv", ["md"], "is one file of format csv"),
        (out, ["pdf"], "--format pdf: is not known"),
        (tmp_path / "one.json" / "x.csv", [], "cannot be written"),
    ):
        with pytest.raises(UserError, match=words):
            write_comparison(two, given, formats)


def test_markup_and_formulas_in_names_are_only_text(tmp_path: Path):
    name = "=<img src=x onerror=alert(1)>|`*"
    make_small_run(tmp_path / name, settings={"note": "</script><b>"}, metrics=[metric(1.0, name="<i>fid")])
    make_small_run(tmp_path / "plain", settings={"note": "-2"}, metrics=[metric(1.0, name="<i>fid")])
    paths = write_comparison(comparison_of(tmp_path), tmp_path / "out", ["html", "md", "csv"])
    html, markdown, table = (path.read_text() for path in paths)
    assert "<img src=x" not in html and "<i>" not in html and "</script><b>" not in html
    assert html.count("</script>") == 3
    assert "\\|\\`\\*" in markdown and "<img" not in markdown.replace("\\<", "")
    assert [row["run"] for row in csv.DictReader(io.StringIO(table))] == ["'" + name, "plain"]
    assert "'-2" in table


def test_words_name_runs_folders_of_runs_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a1", "a2", "b"):
        make_small_run(tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    assert [path.name for path in places(["runs"])] == ["a1", "a2", "b"]
    assert [path.name for path in places(["runs/a*", "runs/b", "runs/a1"])] == ["a1", "a2", "b"]
    (tmp_path / "link").symlink_to("runs/b")
    assert places(["runs/a1", str(tmp_path / "runs" / "a1"), "runs/b", "link"]) == [Path("runs/a1"), Path("runs/b")]
    for nothing in ("gone", "runs/c*", "runs/a1/samples"):
        with pytest.raises(UserError, match=r"names no run folder"):
            places([nothing])


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path):
    for place in ("x", "y"):
        make_small_run(tmp_path / place / "mine")
    assert [run.name for run in comparison_of(tmp_path / "x", tmp_path / "y").runs] == ["x/mine", "y/mine"]


def test_damage_is_told_and_the_rest_is_shown(tmp_path: Path):
    torn = make_small_run(tmp_path / "torn", metrics=[metric(1.0)])
    with (torn / "log.jsonl").open("a") as file:
        file.write('{"kind": "scalars", "nimg": 1')  # killed, or still being written
    gone = make_small_run(tmp_path / "gone", metrics=[metric(2.0)])
    (gone / "samples" / "000500.png").unlink()
    (gone / "samples" / "001000.png").write_text("no picture")
    (gone / "run.json").write_text("{")
    for name in ("odd", "odder"):
        (make_small_run(tmp_path / name) / "config.yaml").write_text("a: [")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text("name: empty")
    with (torn / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        comparison = comparison_of(tmp_path)
        (path,) = write_comparison(comparison, tmp_path / "out.html")
    text = path.read_text()
    assert [run.name for run in comparison.runs] == ["gone", "odd", "odder", "torn"]
    assert comparison.runs[1].group != comparison.runs[2].group
    assert comparison.runs[3].run.curves["player/loss"].count == 5
    for words in (
        "torn: is still being written",
        "gone: samples/index.jsonl: 1 of its images are not in the run folder",
        "gone: samples/001000.png is no PNG image that could be read",
        "gone: run.json: is not a JSON object",
        "empty: nothing was logged yet",
        "Some runs have a config.yaml that cannot be read",
    ):
        assert words in text, words
    with pytest.raises(UserError, match=r"Nothing to compare. Left out: .*empty"):
        comparison_of(empty)


def test_groups_of_mixed_origin_are_told(tmp_path: Path):
    make_small_run(tmp_path / "a", seed=1)
    make_small_run(tmp_path / "b", seed=1, about={"commit": "ffff", "manifest": "eeee"})
    notes = " ".join(comparison_of(tmp_path).notes)
    assert "different commits: 0b844c3d9f, ffff" in notes and "data (manifests): 9a3f, eeee" in notes
    assert "share a seed" in notes


class Remote:
    """A run as W&B's API gives it, with the configuration that `advgen` sends."""

    def __init__(self, identity: str, **config: Any) -> None:
        session = {"device": "cuda:0", "world_size": 2, "started": identity}
        self.id, self.name = identity, "mine"
        self.config = {"game": {"kind": "gan"}, "run": session, "_wandb": {}, **config}

    def scan_history(self) -> Iterator[dict[str, Any]]:
        raise AssertionError


TRAINED: list[dict[str, Any]] = [
    {"nimg": 500, "_runtime": 1.0, "player/loss": 2.0, "speed/images_per_second": 100.0, "fid/32": None},
    {"nimg": 1000, "_runtime": 1.1, "player/loss": "NaN", "speed/images_per_second": 50.0, "samples": {"_type": "x"}},
]
MEASURED: list[dict[str, Any]] = [
    {"nimg": 1000, "_runtime": 900.0, "fid/32": 9.0},
    {"nimg": 500, "_runtime": 990.0, "fid/32": 11.0},
]


def test_a_run_of_wandb_is_one_with_its_evaluation_and_seeds_are_grouped(tmp_path: Path):
    evaluation = Remote("1a-e", seed=3, training_run="1a")
    remotes = [(evaluation, MEASURED), (Remote("1a", seed=3), TRAINED), (Remote("2b", seed=4), TRAINED)]
    run, other = joined(remotes)
    assert (run.nimg, run.seconds, run.curves["player/loss"].count) == (1000, 15.0, 1)
    assert [metric.value for metric in run.metrics] == [9.0, 11.0] and not other.metrics
    comparison = compare([(run, None), (other, None)])
    assert comparison.groups == ["all runs"] and comparison.differing == ["seed"]
    assert comparison.runs[0].cost.device_hours == pytest.approx(30 / 3600)
    assert [each.folder.name for each in joined(remotes[:1])] == ["mine-1a-e"]


def test_a_run_of_wandb_has_metrics_without_protocol(tmp_path: Path):
    run = run_of(Remote("1a", seed=3), [*TRAINED, *MEASURED])
    local = make_small_run(tmp_path / "a", metrics=[metric(10.0)])
    comparison = compare([(run, None), (read_run(local), None)])
    assert [contest.title for contest in comparison.contests] == ["fid [1]", "fid [2]"]
    assert write_comparison(comparison, tmp_path / "out.html")[0].is_file()


def test_a_network_that_fails_while_the_history_is_read_is_told(monkeypatch: pytest.MonkeyPatch):
    class Lost(Remote):
        def scan_history(self) -> Iterator[dict[str, Any]]:
            yield {"nimg": 1}
            raise requests.ConnectionError("no route")

    class Api:
        def runs(self, path: str, filters: dict[str, Any]) -> list[Remote]:
            return [Lost("1a")]

    monkeypatch.setattr("wandb.Api", Api)
    with pytest.raises(UserError, match=r"--wandb e/p: cannot be read \(no route\)"):
        read_remote("e/p", "{}")
