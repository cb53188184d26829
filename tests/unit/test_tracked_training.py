"""Trainings with trackers that note what they are told, or fail; and a training that begins with another's weights."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from advgen.build import build_trainer
from advgen.config import load_recipe
from advgen.errors import UserError
from advgen.files import sha256
from advgen.game import Batch, Context, Outcome
from advgen.games.progan.game import Progan
from advgen.runtime.checkpoint import COMPLETE, read_checkpoint
from advgen.runtime.history import rows
from advgen.runtime.preemption import StopRequest
from advgen.runtime.run_folder import RunFolder
from advgen.runtime.tracking import Mirrors
from advgen.strict_config import dump_yaml
from advgen.trainer import Diverged
from pipelines.__main__ import main
from pipelines.terminal import TrainingBar
from tests.helpers import tiny_recipe

SHORT = {"stabilize_kimg": 0.016, "fade_kimg": 0.008}


class Notes:
    """Notes what it is told; fails at what stands in ``fails``."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.values: dict[int, dict[str, float]] = {}
        self.pictures: list[tuple[int, str]] = []
        self.alerts: list[str] = []
        self.named: list[int] = []

    def scalars(self, values: Mapping[str, float], nimg: int) -> None:
        if self.fails == "scalars":
            raise ConnectionResetError("gone")
        self.values.setdefault(nimg, {}).update(values)

    def picture(self, name: str, path: Path, nimg: int) -> None:
        assert path.is_file()
        self.pictures.append((nimg, name))

    def catch_up(self) -> None:
        raise AssertionError("a run that begins has nothing to catch up with")

    def checkpoints(self, paths: Sequence[Path]) -> None:
        self.named = [int(path.name) for path in paths]

    def alert(self, title: str, text: str) -> None:
        self.alerts.append(title)

    def preempting(self) -> None: ...

    def close(self, exit_code: int = 0) -> None: ...


def train(folder: Path, mirrors: Mapping[str, Callable[[], Notes]], on_nonfinite: str = "stop", **game: float) -> bool:
    training = {"on_nonfinite": on_nonfinite}
    recipe = load_recipe(tiny_recipe(folder, game={**SHORT, **game}, training=training))
    trainer, world = build_trainer(recipe)
    trainer.journal.mirror = Mirrors(mirrors)
    with StopRequest() as stop, TrainingBar(quiet=True) as bar:
        finished = trainer.run(bar, stop)
    world.close()
    return finished


def test_a_tracker_that_fails_does_not_stop_a_training_and_another_sees_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    with caplog.at_level(logging.WARNING):
        assert train(tmp_path, {"one": lambda: Notes("scalars"), "two": lambda: notes})
    assert [r.getMessage()[:10] for r in caplog.records if r.name == "advgen.runtime.tracking"] == ["one failed"]
    assert notes.alerts == ["finished"]
    run = tmp_path / "runs" / "tiny"
    assert notes.named == [0, 16, 24, 40, 48, 64]
    # What a tracker is told live is what `advgen sync` would read from the logs.
    known = list(rows(run, "training"))
    assert {row.nimg: row.values for row in known if row.values} == notes.values
    assert sorted((row.nimg, name) for row in known for name in row.pictures) == sorted(set(notes.pictures))
    norms = [values["generator/weight_norm"] for values in notes.values.values()]
    assert all(norm > 0 for norm in norms) and len(set(norms)) > 1


def test_a_loss_that_is_not_finite_alerts(tmp_path: Path) -> None:
    notes = Notes()
    with pytest.raises(Diverged):
        train(tmp_path, {"notes": lambda: notes}, learning_rate=1e30)
    assert notes.alerts == ["not finite"]


@pytest.mark.parametrize(("step", "images"), [(3, 32), (7, 64)], ids=["before a checkpoint", "the run's last"])
def test_an_update_that_none_follows_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, images: int
) -> None:
    """Before a checkpoint is written behind it, inside a phase and at the end of all."""
    right = Progan.generator_loss

    def spoilt(game: Progan, context: Context, batch: Batch) -> Outcome:
        outcome = right(game, context, batch)
        return replace(outcome, loss=outcome.loss * (math.nan if context.progress.step == step else 1.0))

    monkeypatch.setattr(Progan, "generator_loss", spoilt)
    notes, checkpoints = Notes(), tmp_path / "runs" / "tiny" / "checkpoints"
    with pytest.raises(Diverged, match=f"'generator'.*not finite at step {step} "):
        train(tmp_path, {"notes": lambda: notes})
    assert notes.alerts == ["not finite"]
    assert max(int(path.name) for path in checkpoints.glob("0*")) < images
    shutil.rmtree(tmp_path / "runs")
    notes = Notes()
    assert train(tmp_path, {"notes": lambda: notes}, on_nonfinite="skip:1")
    assert notes.alerts == ["not finite", "finished"]
    assert (checkpoints / f"{images:012d}").is_dir()


def test_a_training_that_is_refused_touches_no_tracker(tmp_path: Path) -> None:
    """Another process trains here, and shows it: W&B would take the end of this one for the end of that one."""
    recipe = load_recipe(tiny_recipe(tmp_path, game=SHORT))
    opened: list[Notes] = []

    def opening() -> Notes:
        opened.append(Notes())
        return opened[-1]

    folder = RunFolder(recipe.folder)
    folder.claim(dump_yaml(recipe))
    with folder.locked(), pytest.raises(UserError, match="another process is training here"):
        train(tmp_path, {"notes": opening})
    assert not opened


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny_recipe(tmp_path, game=SHORT)
    assert main(["train", str(recipe)]) == 0
    parent = tmp_path / "runs" / "tiny"
    flags = ["--name", "child", "--from", f"{parent}@64", "--game.learning-rate", "0.0001"]
    assert main(["train", str(recipe), *flags]) == 0
    child = tmp_path / "runs" / "child"
    old = read_checkpoint(parent / "checkpoints" / f"{64:012d}").networks
    new = read_checkpoint(child / "checkpoints" / f"{0:012d}").networks
    assert all(torch.equal(old[name], new[name]) for name in old) and old.keys() == new.keys()
    told = json.loads((child / "run.json").read_text())["parent"]
    whole = parent / "checkpoints" / f"{64:012d}" / COMPLETE
    assert (told["run"], told["nimg"], told["checkpoint_sha256"]) == ("tiny", 64, sha256(whole))
    # Given again it goes on, and still knows where it comes from, also without its parent.
    parent.rename(parent.with_name("away"))
    assert main(["train", str(recipe), *flags]) == 0
    assert json.loads((child / "run.json").read_text())["parent"] == told
    capsys.readouterr()
    parent.with_name("away").rename(parent)
    assert main(["train", str(recipe), "--name", "other", "--from", f"{parent}@63"]) == 2
    assert "has no checkpoint of 63 images" in capsys.readouterr().err
    assert main(["train", str(recipe), "--name", "wide", "--from", f"{parent}@64", "--game.latent-size", "4"]) == 2
    message = capsys.readouterr().err
    assert "init_from" in message and "Give the recipe the networks of that run" in message
    assert main(["train", str(recipe), "--name", "wide", "--game.latent-size", "4"]) == 0
    about = json.loads((tmp_path / "runs" / "wide" / "run.json").read_text())
    assert about["parent"] is None, "it has begun without one in the end"


def test_init_from_is_a_run_and_a_place_in_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be RUN@NIMG"):
        load_recipe(tiny_recipe(tmp_path, init_from="runs/tiny"))
