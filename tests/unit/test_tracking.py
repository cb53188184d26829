from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from advgen.images import save_png
from advgen.runtime.config import TrackingConfig
from advgen.runtime.tracking import EvaluationMirror, JsonLines, Mirrors, Subject, mirrors_of
from advgen.runtime.wandb_run import about, has_key, last_offline_step
from tests.wandb_files import offline_folders, read_offline


def records(path: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ----------------------------------------------------------------------------------------------------------- log files
def test_lines_are_there_after_sync_and_close(tmp_path: Path) -> None:
    path = tmp_path / "samples" / "index.jsonl"
    log = JsonLines(path)
    log.write({"a": 1})
    assert log.sync() == path.stat().st_size == len('{"a": 1}\n')
    log.write({"a": 2, "text": "é\n"})
    log.close()
    assert records(path) == [{"a": 1}, {"a": 2, "text": "é\n"}]


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    for number in range(3):
        log.write({"n": number})
    length = log.sync()
    log.write({"n": 3})
    log.write({"n": 4})
    log.close()
    with path.open("a") as file:
        file.write('{"n": 5')  # torn by a kill

    again = JsonLines(path)
    again.cut(length)
    again.write({"n": 33})
    assert again.sync() == path.stat().st_size
    again.close()
    assert [record["n"] for record in records(path)] == [0, 1, 2, 33]


def test_cutting_also_forgets_what_is_not_on_the_disk_yet(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.write({"n": 1})
    log.cut(0)
    log.write({"n": 2})
    log.close()
    assert records(tmp_path / "log.jsonl") == [{"n": 2}]


def test_a_log_that_was_removed_is_not_filled_with_nothing(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.cut(1000)
    log.write({"n": 1})
    log.close()
    assert records(tmp_path / "log.jsonl") == [{"n": 1}]


# ----------------------------------------------------------------------------------------------------------------- W&B
def test_the_key_is_looked_for_where_wandb_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    assert not has_key()
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine example.org login me password secret\n")
    netrc.chmod(0o600)
    assert not has_key()
    for own in ("api.wandb.ai", "api.forge.coreweave.com"):
        netrc.write_text(f"machine {own} login user password secret\n")
        assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8443")  # W&B would ask for the key of this one
    assert not has_key()
    netrc.write_text("machine wandb.example.org:8443 login user password secret\n")
    assert has_key()
    monkeypatch.setenv("NETRC", str(netrc.rename(tmp_path / "elsewhere")))
    assert has_key()
    monkeypatch.delenv("NETRC")
    monkeypatch.delenv("WANDB_BASE_URL")
    netrc.write_text("machine machine machine")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert has_key()


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder where W&B finds no key."""
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    save_png(folder / "samples" / "8.png", torch.zeros(8, 8, 3, dtype=torch.uint8))
    return folder


def test_keys_of_a_store_do_not_go_to_wandb(offline: Path) -> None:
    sets = {"shards": "https://me:word@host/shards?token=abc", "weight": 1.0}
    remote = {"folder": "~/cache", "options": {"secret": "abc"}}
    told = about(Subject(offline, "name", {"seed": 3, "data": {"train": sets, "mix": [sets], "remote": remote}}))
    shown = {"shards": "https://host/shards", "weight": 1.0}
    assert told["data"] == {
        "train": shown,
        "mix": [shown],
        "remote": {"folder": "~/cache", "options": {"secret": "..."}},
    }


def test_disabled_means_no_wandb(offline: Path) -> None:
    before = list(offline.rglob("*"))
    mirror = mirrors_of(TrackingConfig(wandb="disabled"), Subject(offline, "name", {}))
    mirror.open()
    mirror.scalars({"a": 1.0}, 0)
    mirror.picture("a", offline / "nowhere.png", 0)
    mirror.close()
    assert list(offline.rglob("*")) == before


def test_sessions_of_a_run_are_one_history_in_the_offline_files(offline: Path) -> None:
    """By W&B's own reader; what W&B lost of the first session comes from the logs."""
    config = TrackingConfig(project="p", group="g", tags=("a", "b"), notes="why")
    (offline / "run.json").write_text(json.dumps({"commit": "c", "parent": None}))
    log = JsonLines(offline / "log.jsonl")
    for session, nimgs in enumerate([(8, 16, 24), (32,)]):
        mirror = mirrors_of(config, Subject(offline, "name", {"seed": 3}))
        mirror.open()
        if session:
            mirror.catch_up()
        for nimg in nimgs:
            log.write({"kind": "scalars", "nimg": nimg, "values": {"d/loss": nimg / 64}})
            if nimg == 24 and not session:
                continue  # lost on the way, as by a kill
            mirror.scalars({"d/loss": nimg / 64}, nimg)
            if nimg == 8:
                mirror.picture("samples", offline / "samples" / "8.png", nimg)
        if session:
            mirror.alert("not finite", "look")
            mirror.preempting()
        mirror.close(85 if session else 0)
    log.close()
    identity = (offline / "wandb-id").read_text().strip()
    assert re.fullmatch(r"[0-9a-f]{12}", identity)
    first, second = offline_folders(offline)
    records = [record for folder in (first, second) for record in read_offline(folder)]
    runs = [record["run"] for record in records if record["type"] == "run"]
    assert {run["run_id"] for run in runs} == {identity}
    shown = {key: runs[0][key] for key in ("project", "run_group", "job_type", "tags", "notes", "display_name")}
    assert shown == {
        "project": "p",
        "run_group": "g",
        "job_type": "train",
        "tags": ["a", "b"],
        "notes": "why",
        "display_name": "name",
    }
    told = runs[0]["config"]["update"]
    assert (told["seed"], told["run"]["commit"]) == (3, "c")
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [row["_step"] for row in history] == [row["nimg"] for row in history] == [8, 16, 24, 32]
    assert [row["d/loss"] for row in history] == [8 / 64, 16 / 64, 24 / 64, 32 / 64]
    assert (first / "files" / history[0]["samples.path"]).read_bytes() == (offline / "samples/8.png").read_bytes()
    assert [record["alert"]["title"] for record in records if record["type"] == "alert"] == ["not finite"]
    assert [record["type"] for record in records].count("preempting") == 1
    assert [record["exit"].get("exit_code", 0) for record in records if record["type"] == "exit"] == [0, 85]


def test_an_offline_file_that_was_torn_counts_up_to_there(offline: Path) -> None:
    mirror = mirrors_of(TrackingConfig(), Subject(offline, "name", {}))
    mirror.open()
    for nimg in (8, 16, 24):
        mirror.scalars({"a": 1.0}, nimg)
    mirror.close()
    identity = (offline / "wandb-id").read_text().strip()
    (file,) = offline.glob("wandb/offline-run-*/*.wandb")
    assert last_offline_step(offline, identity) == 24
    whole = file.read_bytes()
    found = []
    for length in (len(whole) * share // 8 for share in range(8, 0, -1)):
        file.write_bytes(whole[:length])
        found.append(last_offline_step(offline, identity))
    assert found == sorted(found, reverse=True)
    assert set(found) <= {24, 16, 8, -1} and len(set(found)) > 1


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The run id that one of W&B's agents gives."""
    import wandb

    wandb.teardown()  # it keeps the environment that it was first used in
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r7")
    yield "r7"
    wandb.teardown()


def test_under_an_agent_the_training_has_its_id_and_the_evaluation_another(offline: Path, agent: str) -> None:
    (offline / "wandb-id").write_text("of an agent before\n")
    test_an_evaluation_beside_a_training_in_one_process_has_its_own_run(offline)
    assert (offline / "wandb-id").read_text().strip() == agent


def test_an_evaluation_beside_a_training_in_one_process_has_its_own_run(offline: Path) -> None:
    """W&B's client gives out the run that is open, if it is not told otherwise."""
    config = TrackingConfig(wandb="offline")
    training = mirrors_of(config, Subject(offline, "name", {}))
    training.open()
    training.scalars({"a": 1.0}, 8)
    about = {"name": "fid", "value": 3.0, "nimg": 8, "moment": "end", "resolution": 64}
    (offline / "metrics.jsonl").write_text(json.dumps(about) + "\n")
    evaluation = EvaluationMirror(config, Subject(offline, "name", {}, "evaluation"))
    evaluation.catch_up()
    training.scalars({"a": 2.0}, 16)
    evaluation.close()
    training.close()
    steps = {
        record["run"]["run_id"]: [r["history"]["item"]["_step"] for r in records if r["type"] == "history"]
        for records in map(read_offline, offline_folders(offline))
        for record in records
        if record["type"] == "run"
    }
    identities = [(offline / name).read_text().strip() for name in ("wandb-id", "wandb-id-evaluation")]
    assert steps == {identities[0]: [8, 16], identities[1]: [0]}


def test_evaluations_are_a_run_of_their_own_that_names_the_training(offline: Path) -> None:
    metrics = JsonLines(offline / "metrics.jsonl")
    config = TrackingConfig(wandb="offline")
    for nimg, moment in ((640, "end"), (320, "floor")):  # the later checkpoint first
        metrics.write({"name": "fid", "value": 3.0, "nimg": nimg, "moment": moment, "resolution": 64, "protocol": {}})
        mirror = EvaluationMirror(config, Subject(offline, "name", {}, "evaluation"))
        other = EvaluationMirror(config, Subject(offline, "name", {}, "evaluation"))  # two at a time: one shows
        for each in (other, mirror, mirror):
            each.catch_up()
        for each in (other, mirror):
            each.close()
    metrics.close()
    identities = [(offline / name).read_text().strip() for name in ("wandb-id", "wandb-id-evaluation")]
    assert len(set(identities)) == 2
    records = [record for folder in offline_folders(offline) for record in read_offline(folder)]
    runs = [record["run"] for record in records if record["type"] == "run"]
    assert {(run["run_id"], run["run_group"], run["job_type"]) for run in runs} == {(identities[1], "name", "evaluate")}
    assert {run["config"]["update"]["training_run"] for run in runs} == {identities[0]}
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [(row["_step"], row["nimg"]) for row in history] == [(0, 640), (1, 320)]
    assert [row.get("fid/64", row.get("fid/64 floor")) for row in history] == [3.0, 3.0]


# ----------------------------------------------------------------------------------------------------- what goes wrong
class Broken:
    """A mirror that fails at everything."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        raise ConnectionError("no route\nto anywhere")


def test_a_tracker_that_fails_is_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    def refuses() -> Any:
        raise RuntimeError("cannot be opened")

    with caplog.at_level(logging.WARNING, logger="advgen"):
        broken = Broken()
        mirror = Mirrors({"one": refuses, "two": lambda: cast(Any, broken)})
        mirror.open()
        for nimg in range(3):
            mirror.scalars({"a": 1.0}, nimg)
        mirror.alert("a", "b")
        mirror.close()
    assert [record.getMessage().split(".")[0] for record in caplog.records] == [
        "one failed and is left out from here on: cannot be opened",
        "two failed and is left out from here on: no route",
    ]
    assert broken.asked == ["scalars", "close"], "or W&B's client would wait for its server when the process ends"
