"""Every game in the table, stopped anywhere and gone on with, ends as the run that was left alone, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from advgen.build import GAMES, build_trainer
from advgen.config import load_recipe
from advgen.runtime.checkpoint import latest_checkpoint, read_checkpoint
from advgen.runtime.preemption import StopRequest
from advgen.trainer import Status
from tests.distributed.runs import logged, make_shards, write_recipe

GAME_SETTINGS: dict[str, dict[str, Any]] = {
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


def test_every_game_of_the_table_is_here() -> None:
    assert GAME_SETTINGS.keys() == GAMES.keys()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    make_shards(folder)
    return folder


class Patience:
    """Watches a training, and asks it to stop after so many steps."""

    def __init__(self, stop: StopRequest, steps: int | None) -> None:
        self.stop, self.steps, self.seen = stop, steps, 0
        self.resumed_from: Path | None = None

    def resumed(self, checkpoint: Path) -> None:
        self.resumed_from = checkpoint

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


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("stops", [[1, 1, 1], [4, 3], [7], [5, 1, 2]], ids=str)
def test_resumed_run_equals_uninterrupted(
    place: Path, monkeypatch: pytest.MonkeyPatch, game: str, stops: list[int]
) -> None:
    monkeypatch.chdir(place)
    whole, cut = f"{game}-whole", f"{game}-{'-'.join(map(str, stops))}"
    settings = {"game": GAME_SETTINGS[game], "training__sample_rows": 1, "training__sample_columns": 2}
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
        ends.append(read_checkpoint(newest))
    assert ends[0].clock == ends[1].clock
    for part in ("networks", "optimizers"):
        tensors, others = getattr(ends[0], part), getattr(ends[1], part)
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
