"""Every game in the table, stopped anywhere and gone on with, ends as the run that was left alone, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from advgen.build import GAMES, build_trainer
from advgen.config import load_recipe
from advgen.errors import UserError
from advgen.game import ImageSpec
from advgen.games.progan.config import ProganConfig
from advgen.games.progan.game import Progan
from advgen.runtime.checkpoint import StoredMoments, latest_checkpoint, read_checkpoint
from advgen.runtime.preemption import StopRequest
from advgen.watch import Status
from tests.distributed.runs import (
    LABELLED,
    LINEAR,
    PAIRED,
    POINTS,
    SPRINKLER,
    logged,
    make_labelled_shards,
    make_paired_shards,
    make_shards,
    write_recipe,
)

GAME_SETTINGS: dict[str, dict[str, Any]] = {
    "aae": {
        "kind": "aae",
        "variant": "semi_supervised",
        "encoder": "gaussian",
        "labelled": 4,
        "latent_size": 3,
        "prior": {"kind": "gaussian", "deviation": 1.0},
        "hidden": 12,
        "initial_deviation": None,
        "input_noise": 0.3,
        "batch_size": 8,
        "drops_kimg": [0.04],
        "total_kimg": 0.08,
    },
    "ali": {
        "kind": "ali",
        "architecture": "small",
        "latent_size": 6,
        "width": 0.06,
        "dropout": 0.1,
        "conditional": True,
        "log_odds_images": 20,
        "cycle_weight": 0.5,
        "rampdown_kimg": 0.04,
        "batch_size": 8,
        "total_kimg": 0.08,
    },
    "avb": {
        "kind": "avb",
        "channels": 4,
        "hidden": 12,
        "adversary_hidden": 12,
        "latent_size": 3,
        "noise_size": 4,
        "basis": 3,
        "basis_hidden": 6,
        "learning_rate": 1e-3,
        "adversary_repeats": 2,
        "annealing_kimg": 0.04,
        "rampdown_kimg": 0.04,
        "batch_size": 8,
        "total_kimg": 0.08,
    },
    "cgan": {
        "kind": "cgan",
        "latent_size": 8,
        "width": 2,
        "batch_size": 8,
        "total_kimg": 0.08,
        "rampdown_kimg": 0.04,
        "critic_repeats": 2,
    },
    "gan": {
        "kind": "gan",
        "latent_size": 8,
        "width": 4,
        "width_max": 8,
        "r1_every": 2,
        "batch_size": 8,
        "total_kimg": 0.08,
        "critic_repeats": 2,
    },
    "implicit_vi": {
        "kind": "implicit_vi",
        "hidden": 6,
        "layers": 2,
        "noise_size": 3,
        "opponent_steps": 2,
        "batch_size": 8,
        "total_kimg": 0.08,
        "rampdown_kimg": 0.04,
    },
    "pix2pixhd": {
        "kind": "pix2pixhd",
        "ngf": 4,
        "downsamplings": 1,
        "global_blocks": 1,
        "enhancers": 1,
        "local_blocks": 1,
        "ndf": 4,
        "discriminator_layers": 2,
        "encoder_features": 2,
        "nef": 4,
        "encoder_downsamplings": 1,
        "styles": 2,
        "perceptual": "none",
        "batch_size": 4,
        "global_kimg": 0.02,
        "global_decay_kimg": 0.008,
        "frozen_kimg": 0.012,
        "joint_kimg": 0.012,
        "joint_decay_kimg": 0.008,
        "pool_size": 6,
    },
    "progan": {
        "kind": "progan",
        "latent_size": 8,
        "channels": {4: 8, 8: 8, 16: 4},
        "batch_size": 8,
        "batch_size_by_resolution": {16: 4},
        "stabilize_kimg": 0.03,
        "fade_kimg": 0.03,
        "hold_steps": 2,
        "average": {"kind": "half_life", "kimg": 0.02, "rampup": 0.5},
    },
}

# They refuse data without labels or maps, or images.
GAME_DATA: dict[str, dict[str, Any]] = {
    "aae": LABELLED,
    "ali": LABELLED,
    "cgan": LABELLED,
    "implicit_vi": SPRINKLER,
    "pix2pixhd": PAIRED,
}

STOPS = ([1, 1, 1], [4, 3], [7], [5, 1, 2])
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], tuple[list[int], ...]]] = {
    **{game: (game, {}, {}, STOPS) for game in GAMES},
    "ali-points": ("ali", {"architecture": "mlp", "width": 0.02, "conditional": False}, POINTS, ([5, 1, 2],)),
    "gan-points": ("gan", {"architecture": "mlp", "hidden": 16}, POINTS, ([4, 3],)),
    "implicit_vi-jc-den": (
        "implicit_vi",
        {"contrast": "joint", "estimator": "denoising", "model": "linear_gaussian"},
        LINEAR,
        ([5, 1, 2],),
    ),
    "progan-projection": ("progan", {"conditioning": "projection"}, LABELLED, ([5, 1, 2],)),
}


def test_every_game_of_the_table_is_here() -> None:
    assert GAME_SETTINGS.keys() == GAMES.keys()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    make_shards(folder)
    make_labelled_shards(folder)
    make_paired_shards(folder)
    return folder


class Patience:
    """Watches a training, and asks it to stop after so many steps."""

    def __init__(self, stop: StopRequest, steps: int | None) -> None:
        self.stop, self.steps, self.seen = stop, steps, 0
        self.resumed_from: Path | None = None

    def resumed(self, checkpoint: Path) -> None:
        self.resumed_from = checkpoint

    def warned(self, text: str) -> None:
        raise AssertionError(text)

    def told(self, text: str) -> None:
        raise AssertionError(text)

    def step(self, status: Status) -> None:
        self.seen += 1
        if self.seen == self.steps:
            import signal

            self.stop.signal = signal.SIGTERM


def play(recipe: Path, steps: int | None) -> bool:
    """Train until done or stopped after ``steps``."""
    threads = torch.get_num_threads()
    try:
        trainer, _ = build_trainer(load_recipe(recipe))
        stop = StopRequest()
        return trainer.run(Patience(stop, steps), stop)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("case", "stops"), [(case, stops) for case in CASES for stops in CASES[case][3]], ids=str)
def test_resumed_run_equals_uninterrupted(
    place: Path, monkeypatch: pytest.MonkeyPatch, case: str, stops: list[int]
) -> None:
    monkeypatch.chdir(place)
    game, options, data, _ = CASES[case]
    whole, cut = f"{case}-whole", f"{case}-{'-'.join(map(str, stops))}"
    small = {"training__sample_rows": 1, "training__sample_columns": 2}
    settings = {"game": {**GAME_SETTINGS[game], **options}, **small, **GAME_DATA.get(game, {}), **data}
    whole_recipe = write_recipe(place / f"{whole}.yaml", name=whole, **settings)
    cut_recipe = write_recipe(place / f"{cut}.yaml", name=cut, **settings)
    assert play(whole_recipe, None)
    for steps in stops:
        assert not play(cut_recipe, steps)
    assert play(cut_recipe, None)
    one, two = place / "runs" / whole, place / "runs" / cut
    ends = []
    for run in (one, two):
        newest = latest_checkpoint(run / "checkpoints")
        assert newest is not None
        ends.append((read_checkpoint(newest), StoredMoments(newest).tensors()))
    assert ends[0][0].clock == ends[1][0].clock
    for part, tensors, others in (
        ("networks", ends[0][0].networks, ends[1][0].networks),
        ("optimizers", ends[0][1], ends[1][1]),
    ):
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[name], others[name]) for name in tensors), part
    assert logged(one) == logged(two)
    assert (one / "samples/index.jsonl").read_text() == (two / "samples/index.jsonl").read_text()


def test_the_stream_continues_and_is_not_replayed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The position in the data is the clock's, so that a resumed run sees the images that come next."""
    monkeypatch.chdir(place)
    recipe = write_recipe(place / "stream.yaml", name="stream", game=GAME_SETTINGS["gan"])
    assert not play(recipe, 3)
    newest = latest_checkpoint(place / "runs/stream/checkpoints")
    assert newest is not None
    clock = json.loads((newest / "state.json").read_text())["clock"]
    assert clock["nimg"] == 24
    assert clock["samples"] == 48, "two updates of the critic take two batches a step"


def test_a_longer_run_goes_on_from_a_finished_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for name in ("long", "extended"):
        game = {**GAME_SETTINGS["progan"], "total_kimg": 0.2}
        if name == "extended":
            assert play(write_recipe(place / "extended.yaml", name=name, game=GAME_SETTINGS["progan"]), None)
        assert play(write_recipe(place / f"{name}.yaml", name=name, game=game), None)
    ends = []
    for name in ("long", "extended"):
        newest = latest_checkpoint(place / "runs" / name / "checkpoints")
        assert newest is not None
        ends.append((read_checkpoint(newest), StoredMoments(newest).tensors()))
    assert ends[0][0].clock == ends[1][0].clock
    assert ends[0][0].clock.nimg >= 200
    for part, tensors, others in (
        ("networks", ends[0][0].networks, ends[1][0].networks),
        ("optimizers", ends[0][1], ends[1][1]),
    ):
        assert all(torch.equal(tensors[name], others[name]) for name in tensors), part


def test_labels_are_used_where_the_recipe_has_classes_and_left_out_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_labelled_shards(tmp_path)
    changes = {**LABELLED, "game": GAME_SETTINGS["progan"]}
    for classes in (0, 2):
        name = f"classes-{classes}"
        recipe = write_recipe(tmp_path / name, name=name, **{**changes, "data__classes": classes})
        assert play(recipe, None)
        assert ("discriminator/labels" in logged(tmp_path / "runs" / name)[0]["values"]) == bool(classes)
    with pytest.raises(UserError, match="has 2 classes, the recipe says data.classes: 3"):
        play(write_recipe(tmp_path / "three", name="three", **{**changes, "data__classes": 3}), None)


def test_a_group_that_does_not_divide_a_later_batch_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="does not divide the batch of 14 at 256x256"):
        Progan(ProganConfig(minibatch_group=4, fmap_max=4), ImageSpec(256))


def test_a_rule_that_leaves_no_channel_is_refused() -> None:
    with pytest.raises(UserError, match="game.fmap_base: 16 leaves no channel at 64x64. Raise it"):
        Progan(ProganConfig(fmap_base=16), ImageSpec(64))
