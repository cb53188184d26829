from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from advgen.stages import StageLog


@pytest.fixture
def log(tmp_path: Path) -> StageLog:
    return StageLog(tmp_path / "stages")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.txt"


def writer(out: Path, text: str = "done") -> Callable[[], list[Path]]:
    def action() -> list[Path]:
        out.write_text(text)
        return [out]

    return action


def not_again() -> list[Path]:
    raise AssertionError("the stage is done")


def test_a_stage_runs_once(log: StageLog, out: Path, tmp_path: Path) -> None:
    inputs = {"a": 1, "b": [1.5, None]}
    assert not log.done("shards", inputs)
    assert log.run("shards", inputs, writer(out))
    assert log.done("shards", {"b": (1.5, None), "a": 1})  # the same values
    assert not log.run("shards", inputs, not_again)
    assert not StageLog(tmp_path / "stages").run("shards", inputs, not_again)  # another process


def test_other_inputs_or_another_stage_run_again(log: StageLog, out: Path) -> None:
    log.run("shards", {"a": 1}, writer(out))
    assert not log.done("shards", {"a": 2})
    assert not log.done("train", {"a": 1})
    assert log.run("shards", {"a": 2}, writer(out))
    assert not log.done("shards", {"a": 1})  # one record a stage: what is there was made from the newer inputs


@pytest.mark.parametrize("harm", [lambda out: out.unlink(), lambda out: out.write_text("Done")])
def test_outputs_that_are_gone_or_changed_are_made_again(
    log: StageLog, out: Path, harm: Callable[[Path], None]
) -> None:
    log.run("shards", {}, writer(out))
    harm(out)
    assert not log.done("shards", {})
    assert log.run("shards", {}, writer(out))
    assert out.read_text() == "done"


def test_a_stage_that_fails_leaves_no_record(log: StageLog, out: Path) -> None:
    def fails() -> list[Path]:
        out.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.run("train", {}, fails)
    assert not log.done("train", {})


def test_a_stage_that_names_a_file_that_it_did_not_write_is_not_recorded(log: StageLog, out: Path) -> None:
    with pytest.raises(FileNotFoundError):
        log.run("train", {}, lambda: [out])
    assert not log.done("train", {})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"inputs": 1}', '{"inputs": 1, "outputs": []}'])
def test_a_damaged_record_counts_as_none(log: StageLog, out: Path, tmp_path: Path, text: str) -> None:
    log.run("train", {}, writer(out))
    record = tmp_path / "stages" / "train.json"
    assert record.is_file()
    record.write_text(text)
    assert not log.done("train", {})
    assert log.run("train", {}, writer(out))
