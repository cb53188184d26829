"""How runs are, as far as their files tell."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from advgen.report.run_state import find_runs, state_of
from pipelines.__main__ import main
from tests.unit.report.runs import make_small_run, metric

LINE = "2026-11-28 16:46:19,528 6726 {} advgen.trainer: rank 0 {}\n"
METRICS = [metric(9.0, 500), metric(8.0), metric(7.0, protocol={"weights": "raw"}), metric(1.0, 0, moment="floor")]


def test_a_run_is_running_finished_stopped_or_failed(tmp_path: Path):
    run = make_small_run(tmp_path / "a", metrics=METRICS)
    found = state_of(run)
    assert (found.state, found.nimg, found.total_nimg) == ("finished", 1000, 1000)
    assert [each.value for each in found.metrics] == [8.0]
    (run / "run.json").write_text(json.dumps({"total_nimg": 4000}))
    assert state_of(run).state == "stopped"
    log = run / "logs" / "rank-00000.log"
    log.parent.mkdir()
    log.write_text(LINE.format("INFO", "of 1 on host a, cpu") + LINE.format("ERROR", "ends at step 3") + "Traceback\n")
    assert state_of(run).state == "failed"
    log.write_text(log.read_text() + LINE.format("INFO", "of 1 on host a, cpu"))
    assert state_of(run).state == "stopped"
    with (run / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert state_of(run).state == "running"
    assert state_of(run).state == "stopped"


def test_older_runs_tell_their_length_in_the_recipe_or_not_at_all(tmp_path: Path):
    run = make_small_run(tmp_path / "a", settings={"total_kimg": 2.0})
    (run / "run.json").write_text("{}")
    assert state_of(run).total_nimg == 2000
    (run / "config.yaml").write_text("name: a")
    assert state_of(run).total_nimg is None
    (run / "log.jsonl").write_text("torn")
    assert (state_of(run).nimg, state_of(run).state) == (0, "stopped")


def test_the_list_is_for_people_and_for_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.chdir(tmp_path)
    run = make_small_run(tmp_path / "runs" / "mine", metrics=[metric(8.25)])
    os.utime(run / "log.jsonl", (1_000_000, 1_000_000))
    assert find_runs(run) == [run]
    assert main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert "mine" in shown and "finished" in shown and "1.0 of 1.0" in shown and "fid 8.25" in shown
    assert main(["runs", "runs", "--json"]) == 0
    (value,) = json.loads(capsys.readouterr().out)
    assert value["metrics"] == {"fid": {"value": 8.25, "nimg": 1000, "resolution": 32}}
    assert (value["folder"], value["updated"]) == ("runs/mine", 1_000_000)
    assert main(["runs", "gone"]) == 2
    assert "gone: holds no run folder" in capsys.readouterr().err


def test_show_writes_the_report(tmp_path: Path, capsys: Any):
    run = make_small_run(tmp_path / "mine")
    assert main(["show", str(run), "--no-open"]) == 0
    assert capsys.readouterr().out.replace("\n", "") == str(run / "report.html")
    assert (run / "report.html").is_file()
