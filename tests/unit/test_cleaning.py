"""What `advgen clean` would remove, removes and leaves alone."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from advgen.clock import Clock
from advgen.runtime.checkpoint import Checkpoint, latest_checkpoint, verify_checkpoint, write_checkpoint
from pipelines.__main__ import main

NAMES = {0: -1, 100: None, 200: 0, 300: None, 400: None, 500: None}
"""Images seen at each checkpoint, and the phase that ended there."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.yaml").write_text(f"evaluation: {{cache: {tmp_path / 'cache'}}}\n")
    for nimg, ended in NAMES.items():
        tensors = {"network.weight": torch.zeros(100)}
        write_checkpoint(folder / "checkpoints", Checkpoint(Clock(nimg=nimg), tensors, {}, {}, ended), {})
    (folder / "metrics.jsonl").write_text(json.dumps({"name": "fid", "nimg": 300}) + "\n")
    (folder / "checkpoints" / ".000000000600.tmp").mkdir()
    (folder / "profile").mkdir()
    for name in ("profile.json", ".rank-0.trace.json.gz.7.tmp"):
        (folder / "profile" / name).write_text("{}")
    (tmp_path / "cache").mkdir()
    for name in ("ab" * 32 + ".safetensors", "ab" * 32 + ".json", "mine.txt"):
        (tmp_path / "cache" / name).write_text("12345")
    return folder


def left(run: Path) -> list[str]:
    return sorted(path.name.lstrip("0") for path in (run / "checkpoints").iterdir() if path.is_dir())


def test_nothing_goes_without_yes(run: Path, capsys: Any) -> None:
    before = left(run)
    for flags in ([], ["--dry-run"], ["--caches"]):
        assert main(["clean", str(run), *flags]) == 0
        out = capsys.readouterr().out
        assert "may go" in out and "Remove them with --yes." in out
    assert left(run) == before


def test_the_newest_phase_ends_and_measured_checkpoints_stay(run: Path, capsys: Any) -> None:
    size = sum(
        file.stat().st_size for name in ("100", "400") for file in (run / "checkpoints" / name.zfill(12)).iterdir()
    )
    size += len("{}")
    assert main(["clean", str(run), "--yes"]) == 0
    assert f"{size:,} bytes removed." in capsys.readouterr().out.replace("\n", "")
    assert left(run) == ["", "200", "300", "500"]
    newest = latest_checkpoint(run / "checkpoints")
    assert newest is not None and newest.name.endswith("500")
    verify_checkpoint(newest)
    assert [path.name for path in (run / "profile").iterdir()] == ["profile.json"], "its half-written file went"
    assert main(["clean", str(run), "--yes"]) == 0
    assert "0 bytes removed." in capsys.readouterr().out
    assert len(list((run.parent / "cache").iterdir())) == 3


def test_more_may_stay_and_likelihoods_count(run: Path) -> None:
    (run / "likelihood.jsonl").write_text(json.dumps({"nimg": 100}) + "\n")
    assert main(["clean", str(run), "--keep", "2", "--yes"]) == 0
    assert left(run) == ["", "100", "200", "300", "400", "500"]


def test_what_the_recipe_keeps_stays(run: Path) -> None:
    (run / "config.yaml").write_text("training: {keep_every_kimg: 0.2}\n")
    assert main(["clean", str(run), "--yes"]) == 0
    assert left(run) == ["", "200", "300", "400", "500"]


def test_a_newest_checkpoint_that_is_damaged_does_not_count(run: Path) -> None:
    (run / "checkpoints" / "000000000500" / "networks.safetensors").write_bytes(b"torn")
    assert main(["clean", str(run), "--yes"]) == 0
    assert left(run) == ["", "200", "300", "400", "500"]
    for nimg in (0, 200, 300, 400):
        (run / "checkpoints" / str(nimg).zfill(12) / "networks.safetensors").write_bytes(b"torn")
    assert main(["clean", str(run), "--yes"]) == 0
    assert left(run) == ["", "200", "300", "400", "500"]


def test_caches_go_when_asked_for_and_other_files_there_stay(run: Path) -> None:
    assert main(["clean", str(run), "--caches", "--yes"]) == 0
    assert [path.name for path in (run.parent / "cache").iterdir()] == ["mine.txt"]


def test_a_run_in_training_is_left_alone(run: Path, capsys: Any) -> None:
    before = left(run)
    with (run / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(["clean", str(run), "--caches", "--yes"]) == 0
    assert "is being trained, left alone" in capsys.readouterr().out.replace("\n", " ")
    assert left(run) == before and len(list((run.parent / "cache").iterdir())) == 3


def test_what_cannot_be_read_stops_it(run: Path, capsys: Any) -> None:
    before = left(run)
    (run / "checkpoints" / "000000000400" / "state.json").write_text("{")
    assert main(["clean", str(run)]) == 0
    assert "000000000400" not in capsys.readouterr().out
    (run / "metrics.jsonl").write_text("{torn")
    assert main(["clean", str(run), "--yes"]) == 2
    assert "metrics.jsonl: line 1 cannot be read" in " ".join(capsys.readouterr().err.split())
    assert left(run) == before
    for arguments, words in (([str(run.parent)], "is not a run folder"), ([str(run), "--keep", "0"], "--keep 0")):
        assert main(["clean", *arguments, "--yes"]) == 2
        assert words in capsys.readouterr().err
