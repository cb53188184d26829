"""ADA inside a game: the trainer saves, restores and resumes its state, and R1 goes through it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from advgen.runtime.checkpoint import latest_checkpoint, read_checkpoint
from tests.distributed.runs import logged, make_shards, write_recipe
from tests.games.test_resume import GAME_SETTINGS, play

# p rises whatever the scores are.
ADA = {"kind": "ada", "target": -0.9, "kimg": 0.5, "interval": 3}


def test_a_run_stopped_within_an_interval_ends_as_the_one_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_shards(tmp_path)
    for name, stops in (("whole", []), ("cut", [4, 3])):
        recipe = write_recipe(tmp_path / f"{name}.yaml", name=name, game={**GAME_SETTINGS["gan"], "augment": ADA})
        for steps in stops:
            assert not play(recipe, steps)
            newest = latest_checkpoint(tmp_path / "runs" / name / "checkpoints")
            assert newest is not None
            assert read_checkpoint(newest).networks["augment.count"].item() == 16
        assert play(recipe, None)
    ends = []
    for name in ("whole", "cut"):
        newest = latest_checkpoint(tmp_path / "runs" / name / "checkpoints")
        assert newest is not None
        ends.append(read_checkpoint(newest).networks)
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert logged(tmp_path / "runs/whole") == logged(tmp_path / "runs/cut")
    # Two batches of 8 at each of 10 steps: six whole intervals of 3 batches, and 2 batches more.
    assert ends[0]["augment.p"].item() == pytest.approx(6 * 24 / 500, abs=1e-6)
    assert ends[0]["augment.count"].item() == 16


def test_diffaugment_changes_what_the_discriminator_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_shards(tmp_path)
    found = []
    for kind in ("none", "diffaugment"):
        game = {**GAME_SETTINGS["gan"], "augment": {"kind": kind}, "loss": "relativistic", "r2_gamma": 1.0}
        assert play(write_recipe(tmp_path / f"{kind}.yaml", name=kind, game=game), None)
        found.append([record["values"]["discriminator/loss"] for record in logged(tmp_path / "runs" / kind)])
    assert len(found[0]) == 10 and all(a != b for a, b in zip(*found, strict=True))


def test_micro_batches_make_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs are summed over the micro-batches of an update, and all of them see the same probability."""
    monkeypatch.chdir(tmp_path)
    make_shards(tmp_path)
    found = []
    for count in (1, 2):
        settings = {"training__accumulation": count, "training__precision": "float64"}
        recipe = write_recipe(
            tmp_path / f"{count}", name=f"{count}", game={**GAME_SETTINGS["gan"], "augment": ADA}, **settings
        )
        assert play(recipe, None)
        newest = latest_checkpoint(tmp_path / "runs" / f"{count}" / "checkpoints")
        assert newest is not None
        found.append((read_checkpoint(newest).networks, logged(tmp_path / "runs" / f"{count}")))
    assert all(
        torch.equal(found[0][0][name], found[1][0][name]) for name in ("augment.p", "augment.signs", "augment.count")
    )
    for name, value in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], value, rtol=0, atol=1e-9)
    rates = [[record["values"]["discriminator/augment_p"] for record in log] for _, log in found]
    assert rates[0] == rates[1] and rates[0][0] == 0 < rates[0][-1]
