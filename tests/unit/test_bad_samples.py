"""Samples that do not decode, as a run counts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advgen.build import build_trainer
from advgen.config import load_recipe
from advgen.data.stream import ImageStream
from advgen.errors import UserError
from advgen.runtime.preemption import StopRequest
from advgen.watch import Status
from tests.helpers import tiny_recipe


class Ears:
    """Somebody who keeps what is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def resumed(self, checkpoint: Path) -> None: ...

    def warned(self, text: str) -> None:
        self.heard.append(text)

    def told(self, text: str) -> None: ...

    def step(self, status: Status) -> None: ...


def test_they_are_counted_over_all_phases(tmp_path: Path) -> None:
    """One in the first phase (positions 0 to 15) and one in the second are two."""
    changes = {"stabilize_kimg": 0.016, "fade_kimg": 0.016}
    recipe = load_recipe(tiny_recipe(tmp_path, game=changes, data={"bad_samples": 1}))
    stream = ImageStream(tmp_path / "shards", seed=recipe.seed, resolution=16, channels=3)
    shards, places = stream._shards.locate(stream.index_of(np.array([3, 20])))
    for shard, place in zip(shards.tolist(), places.tolist(), strict=True):
        (offset, _), *_ = stream._shards.entries(shard, 16)[place].spans
        with (tmp_path / "shards" / stream.manifest.shards[shard].name).open("r+b") as file:
            file.seek(offset)
            file.write(bytes(40))
    trainer, world = build_trainer(recipe)
    ears = Ears()
    with pytest.raises(UserError, match=r"2 such samples; data\.bad_samples is 1"):
        trainer.run(ears, StopRequest(None))
    world.close()
    assert trainer.clock.phase == 1 and len(ears.heard) == 1
