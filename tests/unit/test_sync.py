"""``advgen sync`` with the real client of W&B against a server on loopback, and with TensorBoard's own reader."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from advgen.config import load_recipe
from advgen.files import write_json
from advgen.images import save_png
from advgen.runtime.history import rows
from advgen.runtime.run_folder import RunFolder
from advgen.runtime.tracking import JsonLines, Subject
from advgen.strict_config import dump_yaml
from pipelines.__main__ import main
from tests.helpers import tiny_recipe
from tests.wandb_server import WandbServer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with logs of three logged steps and two figures, and a picture."""
    recipe = load_recipe(tiny_recipe(tmp_path, tracking={"wandb": "offline", "tags": ["a"]}))
    folder = RunFolder(recipe.folder)
    folder.describe(dump_yaml(recipe), {"commit": "c", "parent": None})
    log(folder.path, 8, 16, 24)
    save_png(folder.samples / "8.png", torch.zeros(8, 8, 3, dtype=torch.uint8))
    append(folder.path / "samples" / "index.jsonl", {"nimg": 8, "file": "8.png"})
    for nimg in (24, 8):
        figure(folder.path, nimg)
    return folder.path


def append(path: Path, *records: dict[str, Any]) -> None:
    lines = JsonLines(path)
    for record in records:
        lines.write(record)
    lines.close()


def log(folder: Path, *nimgs: int) -> None:
    for nimg in nimgs:
        values = {"d/loss": nimg / 64, "g/loss": None}
        rate = {"images_per_second": 100.0, "seconds_per_kimg": 10.0, "elapsed_seconds": 1.0}
        append(folder / "log.jsonl", {"kind": "scalars", "nimg": nimg, "values": values})
        append(folder / "log.jsonl", {"kind": "rate", "nimg": nimg, **rate})


def figure(folder: Path, nimg: int) -> None:
    about = {"nimg": nimg, "moment": "end", "resolution": 16, "protocol": {"weights": "average"}}
    append(folder / "metrics.jsonl", {"name": "fid", "value": float(nimg), **about})


def identities(run: Path) -> tuple[str, str]:
    return (run / "wandb-id").read_text().strip(), (run / "wandb-id-evaluation").read_text().strip()


# ----------------------------------------------------------------------------------------------------------------- rows
def test_a_row_is_all_that_was_logged_at_one_nimg(run: Path) -> None:
    with (run / "log.jsonl").open("a") as file:
        file.write('{"kind": "scalars", "nimg": 3')  # torn
    found = list(rows(run, "training"))
    speed = {"speed/images_per_second": 100.0, "speed/seconds_per_kimg": 10.0}
    assert [(row.step, row.nimg) for row in found] == [(8, 8), (16, 16), (24, 24)]
    assert found[0].values == {"d/loss": 0.125, **speed}
    assert found[0].pictures == {"samples": run / "samples" / "8.png"}
    assert [row.pictures for row in found[1:]] == [{}, {}]
    assert [row.step for row in rows(run, "training", after=8)] == [16, 24]
    assert [(row.step, row.nimg, row.values) for row in rows(run, "evaluation")] == [
        (0, 24, {"fid/16": 24.0}),
        (1, 8, {"fid/16": 8.0}),
    ]


# ------------------------------------------------------------------------------------------------------------------ W&B
def test_given_twice_it_sends_nothing_twice(server: WandbServer, run: Path) -> None:
    for _ in range(2):
        assert main(["sync", str(run), "--timeout", "30"]) == 0
    training, evaluation = identities(run)
    assert set(server.runs) == {training, evaluation}
    stored = server.runs[training]
    assert [row["_step"] for row in stored.rows()] == [row["nimg"] for row in stored.rows()] == [8, 16, 24]
    assert stored.rows()[0]["d/loss"] == 0.125 and stored.rows()[0]["samples"]["_type"] == "image-file"
    assert stored.rows()[0]["samples"]["path"] in server.uploads
    assert stored.exit_codes == [0], "the second time nothing is opened"
    assert (stored.about["jobType"], stored.about["groupName"], stored.about["tags"]) == ("train", "tiny", ["a"])
    assert stored.config["run"]["value"]["commit"] == "c"
    figures = server.runs[evaluation]
    assert [(row["_step"], row["nimg"], row["fid/16"]) for row in figures.rows()] == [(0, 24, 24.0), (1, 8, 8.0)]
    assert figures.config["training_run"]["value"] == training

    # What has come meanwhile, and only that; also where it was not written down what was sent.
    log(run, 32)
    (run / "tracking.json").unlink()
    assert main(["sync", str(run), "--timeout", "30"]) == 0
    assert [row["_step"] for row in stored.rows()] == [8, 16, 24, 32]
    assert len(figures.rows()) == 2


@pytest.mark.slow
def test_a_server_that_takes_nothing_or_is_gone_is_told(
    server: WandbServer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.failing = True
    assert main(["sync", str(run), "--timeout", "2"]) == 2
    assert "did not take the training's records" in capsys.readouterr().err
    assert not (run / "tracking.json").exists()
    server.failing = False
    assert main(["sync", str(run), "--timeout", "30"]) == 0
    assert [row["_step"] for row in server.runs[identities(run)[0]].rows()] == [8, 16, 24]
    marks = (run / "tracking.json").read_text()
    log(run, 32)
    server.shutdown()
    server.server_close()
    assert main(["sync", str(run), "--timeout", "2"]) == 2
    message = capsys.readouterr().err
    assert server.url in message and "Traceback" not in message
    assert (run / "tracking.json").read_text() == marks


@pytest.mark.slow
def test_an_artifact_that_the_server_never_takes_is_not_waited_for_without_end(
    server: WandbServer, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, over = server.answer, threading.Event()

    def stuck(operation: str, values: dict[str, Any]) -> dict[str, Any] | None:
        if operation == "CreateArtifact":
            over.wait(60)
        return answer(operation, values)

    monkeypatch.setattr(server, "answer", stuck)
    began = time.monotonic()
    assert main(["sync", str(run), "--timeout", "2"]) == 2
    assert "did not take" in capsys.readouterr().err and time.monotonic() - began < 30
    over.set()


@pytest.mark.slow
def test_rebuild_begins_a_new_run_at_wandb(server: WandbServer, run: Path) -> None:
    assert main(["sync", str(run), "--timeout", "30"]) == 0
    before = identities(run)
    assert main(["sync", str(run), "--timeout", "30", "--rebuild"]) == 0
    after = identities(run)
    assert not set(before) & set(after)
    for job in (0, 1):
        old, new = ([row["_step"] for row in server.runs[each[job]].rows()] for each in (before, after))
        assert old == new
    assert server.runs[after[1]].config["training_run"]["value"] == after[0]


@pytest.mark.slow
def test_while_a_training_goes_on_its_last_row_may_grow(server: WandbServer, run: Path) -> None:
    with RunFolder(run).locked():
        assert main(["sync", str(run), "--timeout", "30"]) == 0
        stored = server.runs[identities(run)[0]]
        assert [row["_step"] for row in stored.rows()] == [8, 16]
        assert main(["sync", str(run), "--rebuild"]) == 2
        (run / "wandb" / f"run-20260101_000000-{identities(run)[0]}").mkdir(parents=True)
        assert main(["sync", str(run)]) == 2, "it sends its records itself"
    assert main(["sync", str(run), "--timeout", "30"]) == 0
    assert [row["_step"] for row in stored.rows()] == [8, 16, 24]


def test_without_a_key_it_says_so(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(run))
    assert main(["sync", str(run)]) == 2
    assert "wandb login" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- TensorBoard
@pytest.mark.slow
def test_tensorboard_shows_each_step_once_and_is_rebuilt(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from advgen.runtime.tensorboard_files import TensorBoard

    def steps(job: str, tag: str) -> list[int]:
        found = EventAccumulator(str(run / "tensorboard" / job))
        found.Reload()
        return [event.step for event in found.Scalars(tag)]

    board = TensorBoard(Subject(run, "tiny", {}))
    board.scalars({"d/loss": 0.125}, 8)
    board.scalars({"d/loss": 0.25}, 16)  # a part of the row
    board.close()
    for _ in range(2):
        assert main(["sync", str(run), "--to", "tensorboard"]) == 0
    log(run, 32)
    for flags in ([], ["--rebuild"]):
        assert main(["sync", str(run), "--to", "tensorboard", *flags]) == 0
        assert steps("training", "d/loss") == [8, 16, 24, 32]
        assert steps("evaluation", "fid/16") == [24, 8]
    assert steps("training", "speed/images_per_second") == [8, 16, 24, 32]
    found = EventAccumulator(str(run / "tensorboard" / "training"))
    found.Reload()
    assert [event.step for event in found.Images("samples")] == [8]


@pytest.mark.slow
def test_a_fork_and_its_parent_are_joined(server: WandbServer, run: Path) -> None:
    """By artifacts: what the child used is what the parent made."""
    checkpoint = run / "checkpoints" / f"{24:012d}"
    write_json(checkpoint / "complete.json", {"networks.safetensors": "0"})
    write_json(checkpoint / "state.json", {"about": {}, "ended": 0, "clock": {"nimg": 24}})
    assert main(["sync", str(run), "--timeout", "30"]) == 0
    parent = identities(run)[0]
    child = RunFolder(run.with_name("child"))
    recipe = (run / "config.yaml").read_text().replace("name: tiny", "name: child")
    about = {"run": "tiny", "nimg": 24, "checkpoint": str(checkpoint.resolve()), "wandb_id": parent}
    child.describe(recipe, {"parent": about})
    log(child.path, 8)
    assert main(["sync", str(child.path), "--timeout", "30"]) == 0
    identity = (child.path / "wandb-id").read_text().strip()
    assert server.runs[identity].config["run"]["value"]["parent"]["run"] == "tiny"
    made = {artifact for run_id, how, artifact in server.lineage if (run_id, how) == (parent, "made")}
    used = {artifact for run_id, how, artifact in server.lineage if (run_id, how) == (identity, "used")}
    assert len(made) == 1 and made < used
    assert {artifact.partition("|")[0] for artifact in used} == {"shards", f"checkpoint-{parent}"}
    assert server.artifacts[made.pop()]["nimg"] == 24
    assert json.loads((run / "tracking.json").read_text())["training"]["step"] == 24
