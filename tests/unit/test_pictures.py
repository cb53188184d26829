"""The grids that a run leaves are drawn a few cells at a time, each cell as its number says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from advgen.chunks import CHUNK
from advgen.data.parts import Samples
from advgen.game import Batch, Context, ImageSpec, LearningRate, Outcome, Phase, Player, Progress, Turn
from advgen.optim import Adam
from advgen.pictures import Pictures
from advgen.runtime.config import TrainingConfig
from advgen.runtime.world import World
from advgen.seeds import Noise
from advgen.turns import Table

CLASSES = 3
ROWS, COLUMNS = 3, 7


class Painter:
    """Each picture is grey: as bright as its number, its label and its noise say."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def sample(
        self, networks: Mapping[str, nn.Module], progress: Progress, noise: Noise, like: Batch | None = None
    ) -> Tensor:
        assert like is not None and like.labels is not None
        self.asked.append(len(noise.positions))
        level = 8 * noise.positions + 2 * like.labels + (noise.uniform("bit") < 0.5)
        return (level / 127.5 - 1)[:, None, None, None].expand(-1, 3, 4, 4)


class Stored:
    """A stream whose samples know their positions."""

    def read(self, positions: np.ndarray, level: int | None = None) -> Samples:
        return Samples(np.zeros((len(positions), 3, 4, 4), np.uint8), positions % 2)


def test_a_grid_of_more_cells_than_are_drawn_at_once(tmp_path: Path) -> None:
    def unused(context: Context, batch: Batch) -> Outcome:
        raise AssertionError

    config = TrainingConfig(device="cpu", sample_rows=ROWS, sample_columns=COLUMNS)
    table = Table({}, (), World(config), config, 0, torch.float32, labelled=True)
    spec = ImageSpec(resolution=4, channels=3, classes=CLASSES)
    painter = Painter()
    phase = Phase("p", 1.0, 4, 4, (Turn((Player("g", (), Adam(), unused),)),), (), {"g": LearningRate(0.1)})
    pictures = Pictures(cast(Any, painter), cast(Any, Stored()), table, spec, tmp_path)
    path = pictures.draw({}, Progress(0, 0, phase, 0), "grid")
    assert path is not None
    assert painter.asked == [CHUNK, ROWS * COLUMNS - CHUNK]
    cells = np.asarray(Image.open(path)).reshape(ROWS, 4, COLUMNS, 4, 3)[:, 0, :, 0, 0].ravel()
    numbers = torch.arange(ROWS * COLUMNS)
    noise = Noise(0, ("samples",), numbers).uniform("bit")
    assert cells.tolist() == (8 * numbers + 2 * (numbers % CLASSES) + (noise < 0.5)).tolist()
