"""The pictures that a run leaves while it trains: grids of samples from fixed latents, and of real images.

Of points they are scatter plots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from advgen.capabilities import Encodes, Samples
from advgen.chunks import CHUNK
from advgen.data.stream import Stream
from advgen.game import Batch, Game, ImageSpec, Progress
from advgen.images import grid, save_png, to_bytes
from advgen.runtime.config import TrainingConfig
from advgen.seeds import Noise
from advgen.tools.scatter import POINTS, save_scatter
from advgen.turns import Table

_LATENTS = 0  # seed of the grids' latents: the same for all runs, whose grids are laid side by side


class Pictures:
    """Draws grids into a folder."""

    def __init__(self, game: Game, stream: Stream, table: Table, spec: ImageSpec, folder: Path) -> None:
        """
        Args:
            game: may be one that draws nothing; then only real images are shown.
            stream: of the training images.
            table: device and types of the run.
            spec: what the data provide.
            folder: where to.
        """
        self._game, self._stream, self._table, self._spec, self._folder = game, stream, table, spec, folder

    @property
    def _config(self) -> TrainingConfig:
        return self._table.config

    @property
    def _count(self) -> int:
        return POINTS if self._spec.points else self._config.sample_columns * self._config.sample_rows

    def draw(self, networks: Mapping[str, nn.Module], progress: Progress, name: str) -> Path | None:
        """Write a grid of samples; None if the game draws none.

        Args:
            networks: to draw with.
            progress: where the run stands.
            name: of the file, without its ending.
        """
        if not isinstance(self._game, Samples):
            return None
        path = self._folder / f"{name}.png"
        if self._spec.points:
            save_scatter(path, self._reals(), self._sampled(self._game, networks, progress, range(self._count)))
            return path
        # A few at a time: the training has left little of a GPU's memory.
        parts = [range(self._count)[start : start + CHUNK] for start in range(0, self._count, CHUNK)]
        images = [to_bytes(self._sampled(self._game, networks, progress, part)).cpu() for part in parts]
        save_png(path, grid(torch.cat(images), self._config.sample_columns))
        return path

    def _sampled(self, game: Samples, networks: Mapping[str, nn.Module], progress: Progress, numbers: range) -> Tensor:
        positions = torch.arange(numbers.start, numbers.stop, device=self._table.world.device)
        noise = Noise(_LATENTS, ("samples",), positions, self._table.dtype)
        with torch.no_grad():
            return game.sample(networks, progress, noise, self._like(numbers, progress.phase.resolution))

    def of_reals(self, networks: Mapping[str, nn.Module], progress: Progress, name: str) -> dict[str, Path]:
        """Write what the game makes of the first real images, if it finds latents of them.

        Args:
            networks: to draw with.
            progress: where the run stands.
            name: of the files, without their beginning and ending.

        Returns:
            By name: "reconstructions", each image with what is decoded of its latents behind it, and "interpolation",
            rows from one image to another, straight in the space of latents.
        """
        game, columns = self._game, self._config.sample_columns
        if not isinstance(game, Encodes) or self._spec.points or columns < 4:
            return {}
        rows, half = self._config.sample_rows, columns // 2
        real = self._table.batch(self._stream.read(np.arange(rows * half), progress.phase.resolution))
        with torch.no_grad():
            latents = game.encode(networks, progress, real)
            again = game.decode(networks, progress, latents, real)
            ways = [real.images[0::half]]
            for share in torch.linspace(0, 1, columns - 2).tolist():
                near = real.strided(0 if share < 0.5 else 1, half)
                ways.append(
                    game.decode(networks, progress, torch.lerp(latents[0::half], latents[1::half], share), near)
                )
            ways.append(real.images[1::half])
        found = {
            "reconstructions": (torch.stack((real.images, again), dim=1), 2 * half),
            "interpolation": (torch.stack(ways, dim=1), columns),
        }
        paths = {kind: self._folder / f"{kind}-{name}.png" for kind in found}
        for kind, (images, across) in found.items():
            save_png(paths[kind], grid(to_bytes(images.flatten(0, 1)).cpu(), across))
        return paths

    def reals(self) -> Path:
        """Write a grid of the first real images."""
        path = self._folder / "reals.png"
        if self._spec.points:
            save_scatter(path, self._reals())
        else:
            save_png(path, grid(self._reals(), self._config.sample_columns))
        return path

    def _reals(self) -> Tensor:
        return torch.from_numpy(self._stream.read(np.arange(self._count)).images)

    def _like(self, numbers: range, resolution: int) -> Batch | None:
        """Classes in turn, and the label maps of the first positions."""
        if not self._spec.conditional:
            return None
        positions = np.arange(numbers.start, numbers.stop)
        batch = self._table.batch(self._stream.read(positions, resolution))
        if not self._spec.classes:
            return batch
        labels = torch.arange(numbers.start, numbers.stop, device=self._table.world.device) % self._spec.classes
        return replace(batch, labels=labels)
