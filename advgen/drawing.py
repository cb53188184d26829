"""What a trained run draws: samples, pictures of label maps, and what it makes of real images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from importlib import metadata
from typing import Literal

import numpy as np
import torch

from advgen.build import build_game, open_held_out, open_stream, restored
from advgen.capabilities import DrawsLatents, Encodes, Paints, Samples
from advgen.chunks import in_chunks
from advgen.config import Recipe
from advgen.errors import UserError
from advgen.files import sha256
from advgen.game import Batch
from advgen.images import to_bytes
from advgen.runtime.checkpoint import COMPLETE, find_checkpoint, read_checkpoint
from advgen.runtime.run_folder import RunFolder
from advgen.seeds import Noise
from advgen.tools.latents import closed_way, truncated
from advgen.tools.numbered import Series
from advgen.tools.tiles import check_tile, tiled
from advgen.turns import batch_of


@dataclass(frozen=True)
class Choice:
    """What of a run draws, and by which arithmetic.

    Attributes:
        nimg: images seen at the checkpoint; None for the newest.
        weights: "average" puts moving averages in their networks' places, where the game keeps some.
        dtype: that networks are cast to.
        device: that they are moved to.
    """

    nimg: int | None = None
    weights: Literal["average", "raw"] = "average"
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")


class Drawer:
    """Draws images from a run's checkpoint."""

    def __init__(self, recipe: Recipe, folder: RunFolder, choice: Choice | None = None) -> None:
        """
        Args:
            recipe: the run's.
            folder: the run's.
            choice: of a checkpoint, and how it draws.

        Raises:
            UserError: no such checkpoint.
        """
        self._choice = choice = choice or Choice()
        path = find_checkpoint(folder.path, folder.checkpoints, choice.nimg)
        self._game, self._dtype, self._points = build_game(recipe), choice.dtype, recipe.data.points is not None
        self._networks, self._progress = restored(self._game, read_checkpoint(path), choice.weights)
        for network in self._networks.values():
            network.to(choice.device, choice.dtype).eval()
        self.about = {
            "Software": f"advgen {metadata.version('advgen')}",
            "run": recipe.name,
            "nimg": str(int(path.name)),
            "checkpoint": sha256(path / COMPLETE),
            "weights": choice.weights if self._game.averages else "raw",
            "precision": str(choice.dtype).removeprefix("torch."),
        }
        """What is drawn with, as text to be stored with a picture; ``checkpoint`` is the SHA-256 of its own sums."""

    @property
    def resolution(self) -> int:
        """Height of samples, in pixels."""
        return self._progress.phase.resolution

    def draw(self, series: Series, numbers: range) -> torch.Tensor:
        """Pictures of consecutive numbers: uint8 [n, c, h, w]; points float32 [n, d, 1, 1].

        Raises:
            UserError: a game that draws no samples.
        """
        return torch.cat(list(self.batches(series, numbers)))

    def batches(self, series: Series, numbers: range) -> Iterator[torch.Tensor]:
        """What :meth:`draw` returns, up to :data:`advgen.chunks.CHUNK` at a time."""
        game = self._game
        if not isinstance(game, Samples):
            raise UserError("This run's game draws no samples of its own. Give it images: --reconstruct.")
        if series.truncation is not None:
            walks = self._walker("--truncation")

        def drawn(chunk: range) -> torch.Tensor:
            positions = torch.arange(chunk.start, chunk.stop)
            like = self._like(series, positions)
            if series.truncation is not None:
                return self._decoded(walks, self._latents_of(walks, series, positions), like)
            with torch.no_grad():
                noise = self._noise(series.seed, positions)
                return self._shown(game.sample(self._networks, self._progress, noise, like))

        return in_chunks(drawn, numbers)

    def loop(self, series: Series, first: int, cells: int, keys: int, frames: int) -> Iterator[torch.Tensor]:
        """Closed ways through latents, side by side: frames uint8 [cells, c, h, w].

        Key k of cell c has the latents of picture ``first + k * cells + c`` of the series, so that the first frame
        shows the first pictures. A cell keeps its class.

        Args:
            series: of the keys.
            first: number of the first key of the first cell.
            cells: how many ways.
            keys: on each way, at least 2.
            frames: of a whole loop; after the last the first would follow.

        Raises:
            UserError: a game whose samples are not made of latents alone.
        """
        game = self._walker("--video")
        if series.truncation is not None:
            self._walker("--truncation")
        numbers = torch.arange(first, first + keys * cells)
        latents = self._latents_of(game, series, numbers).unflatten(0, (keys, cells))

        def drawn(chunk: range) -> torch.Tensor:
            rows = torch.arange(chunk.start, chunk.stop)
            cell, frame = rows % cells, (rows // cells).double()
            at = (frame * keys / frames).to(latents.device)
            way = closed_way(latents[:, cell.to(latents.device)], at, spherical=game.normal_latents)
            return self._decoded(game, way, self._like(series, first + cell))

        # All frames are one row of numbers, so that few cells still fill the chunks.
        waiting: list[torch.Tensor] = []
        for batch in in_chunks(drawn, range(frames * cells)):
            waiting += batch
            while len(waiting) >= cells:
                yield torch.stack(waiting[:cells])
                del waiting[:cells]

    def _walker(self, what: str) -> DrawsLatents:
        """The game, if its samples are made of latents; of normal ones where they are truncated."""
        game = self._game
        if not isinstance(game, DrawsLatents) or self._points:
            raise UserError(f"{what}: this run's game draws no images of latents alone. Leave it out.")
        if what == "--truncation" and not game.normal_latents:
            raise UserError(f"{what}: this run's latents are not of a normal distribution. Leave it out.")
        return game

    def _latents_of(self, game: DrawsLatents, series: Series, positions: torch.Tensor) -> torch.Tensor:
        """Of pictures by number, [n, d]; truncated before they are rounded to the networks' type."""
        latents = game.latents(replace(self._noise(series.seed, positions), dtype=None))
        if series.truncation is not None:
            latents = truncated(latents, series.truncation)
        return latents.to(self._dtype)

    def _decoded(self, game: DrawsLatents, latents: torch.Tensor, like: Batch | None) -> torch.Tensor:
        with torch.no_grad():
            return self._shown(game.decode(self._networks, self._progress, latents, like))

    def _noise(self, seed: int, positions: torch.Tensor) -> Noise:
        return Noise(seed, ("draw",), positions.to(self._choice.device), self._dtype)

    def _like(self, series: Series, positions: torch.Tensor) -> Batch | None:
        """The classes of a series at these numbers."""
        if not series.classes:
            return None
        labels = torch.tensor(series.classes)[positions % len(series.classes)]
        return Batch(torch.empty(len(positions), 0), labels.to(self._choice.device))

    def _shown(self, images: torch.Tensor) -> torch.Tensor:
        return (images.float() if self._points else to_bytes(images)).cpu()

    def reals(self, recipe: Recipe, shards: str | None, count: int, seed: int) -> Batch:
        """``count`` real images that were held out, no two the same; other ones for other seeds, while there are any.

        Args:
            recipe: the run's.
            shards: a folder of others; None for those of the recipe.
            count: how many.
            seed: which.

        Raises:
            UserError: a game that finds no latents of images; none or fewer were held out; there are no such shards.
        """
        self._encoder()
        stream = open_held_out(recipe) if shards is None else open_stream(recipe, shards)
        if stream is None:
            raise UserError("This run held no images out (data.held_out). Name shards of some: --images SHARDS.")
        if count > len(stream):
            raise UserError(f"{stream}: holds {len(stream)} images, and {count} are asked for. Take fewer rows.")
        start = seed % (len(stream) // count) * count
        samples = stream.read(np.arange(start, start + count), self._progress.phase.resolution)
        batch = batch_of(samples, self._choice.device, labelled=recipe.data.classes > 0)
        return replace(batch, images=batch.images.to(self._dtype))

    def reconstruct(self, real: Batch, seed: int) -> torch.Tensor:
        """Each image and, behind it, what is decoded of its latents: uint8 [2 n, c, h, w]; of points float32.

        Raises:
            UserError: a game that finds no latents of images.
        """
        with torch.no_grad():
            again = self._encoder().decode(self._networks, self._progress, self._latents(real, seed), real)
        return self._shown(torch.stack((real.images, again), dim=1).flatten(0, 1))

    def interpolate(self, real: Batch, steps: int, seed: int) -> torch.Tensor:
        """Ways from image 2 k to image 2 k + 1, straight in the space of latents: uint8 [n / 2 (steps + 2), c, h, w].

        Args:
            real: an even number of images.
            steps: images on a way, those decoded of both ends' latents included; each has the label of the nearer end.
            seed: of the latents, where they are drawn.

        Raises:
            UserError: a game that finds no latents of images.
        """
        game, latents = self._encoder(), self._latents(real, seed)
        ways = [real.images[::2]]
        with torch.no_grad():
            for weight in torch.linspace(0, 1, steps).tolist():
                between = torch.lerp(latents[::2], latents[1::2], weight)
                near = real.strided(0 if weight < 0.5 else 1, 2)
                ways.append(game.decode(self._networks, self._progress, between, near))
        ways.append(real.images[1::2])
        return to_bytes(torch.stack(ways, dim=1).flatten(0, 1)).cpu()

    def _latents(self, real: Batch, seed: int) -> torch.Tensor:
        noise = self._noise(seed, torch.arange(len(real.images)))
        with torch.no_grad():
            return self._encoder().encode(self._networks, self._progress, real, noise)

    @property
    def styled(self) -> bool:
        """Whether one map has several pictures.

        Raises:
            UserError: a game that paints no maps.
        """
        return self._painter().styled

    def check_maps(self, like: Batch, styles: Mapping[int, int], tile: int | None = None) -> None:
        """Refuse what :meth:`paint` could not paint.

        Raises:
            UserError: a game that paints no maps, maps that it cannot paint, styles that are not there, small tiles.
        """
        painter = self._painter()
        painter.check_maps(self._networks, self._progress, self._there(like), styles)
        if tile is not None:
            check_tile(tile, painter.stride(self._progress))

    def paint(self, like: Batch, seed: int, styles: Mapping[int, int], tile: int | None = None) -> torch.Tensor:
        """Pictures uint8 [n, c, h, w] of the maps.

        Args:
            like: with the maps.
            seed: of all styles that are not chosen.
            styles: the chosen ones: ids of instances, and the number of a style of their class.
            tile: side of the tiles that they are painted in; None for whole pictures.

        Raises:
            UserError: as :meth:`check_maps`.
        """
        self.check_maps(like, styles, tile)
        painter, networks, progress = self._painter(), self._networks, self._progress
        with torch.no_grad():
            noise = self._noise(seed, torch.arange(len(like.images)))
            planes = painter.planes(networks, noise, self._there(like), styles)
            if tile is None:
                return to_bytes(painter.paint(networks, progress, planes)).cpu()
            painted = tiled(
                lambda part: painter.paint(networks, progress, part), planes, tile, painter.stride(progress)
            )
            return to_bytes(painted).cpu()

    def _there(self, like: Batch) -> Batch:
        parts = {field.name: getattr(like, field.name) for field in fields(like)}
        there = {name: value.to(self._choice.device) for name, value in parts.items() if value is not None}
        return replace(like, **there)

    def _painter(self) -> Paints:
        if not isinstance(self._game, Paints):
            raise UserError("This run's game paints no label maps.")
        return self._game

    def _encoder(self) -> Encodes:
        if not isinstance(self._game, Encodes):
            raise UserError(
                "This run's game finds no latents of images. Train one that does: game.kind ali, aae or avb."
            )
        return self._game
