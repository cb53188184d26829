"""What a trained run draws: samples, pictures of label maps, and what it makes of real images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from advgen.build import build_game, open_held_out, open_stream, restored
from advgen.capabilities import Encodes, Paints, Samples
from advgen.config import Recipe
from advgen.errors import UserError
from advgen.game import Batch
from advgen.images import to_bytes
from advgen.runtime.checkpoint import latest_checkpoint, read_checkpoint
from advgen.runtime.run_folder import RunFolder
from advgen.seeds import Noise
from advgen.tools.tiles import check_tile, tiled
from advgen.turns import batch_of


class Drawer:
    """Draws images from a run's newest checkpoint."""

    def __init__(self, recipe: Recipe, folder: RunFolder, dtype: torch.dtype = torch.float32) -> None:
        """
        Args:
            recipe: the run's.
            folder: the run's.
            dtype: that networks are cast to.

        Raises:
            UserError: no checkpoint.
        """
        path = latest_checkpoint(folder.checkpoints)
        game = build_game(recipe)
        if path is None:
            raise UserError(f"{folder.path}: has no checkpoint to draw from. Train it first: `advgen train RECIPE`.")
        self._game, self._dtype, self._points = game, dtype, recipe.data.points is not None
        self._networks, self._progress = restored(game, read_checkpoint(path))
        for network in self._networks.values():
            network.to(dtype)

    def draw(self, count: int, seed: int, like: Batch | None = None) -> torch.Tensor:
        """Images uint8 [count, c, h, w], of labels or maps where the game takes them; points float32 [n, d, 1, 1]."""
        if not isinstance(self._game, Samples):
            raise UserError("This run's game draws no samples of its own. Give it images: --reconstruct.")
        with torch.no_grad():
            noise = Noise(seed, ("draw",), torch.arange(count), self._dtype)
            return self._shown(self._game.sample(self._networks, self._progress, noise, like))

    def _shown(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() if self._points else to_bytes(images)

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
        batch = batch_of(samples, torch.device("cpu"), labelled=recipe.data.classes > 0)
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
        return to_bytes(torch.stack(ways, dim=1).flatten(0, 1))

    def _latents(self, real: Batch, seed: int) -> torch.Tensor:
        noise = Noise(seed, ("draw",), torch.arange(len(real.images)), self._dtype)
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
        painter.check_maps(self._networks, self._progress, like, styles)
        if tile is not None:
            check_tile(tile, painter.stride(self._progress))

    def paint(self, like: Batch, seed: int, styles: Mapping[int, int], tile: int | None = None) -> torch.Tensor:
        """Pictures uint8 [n, c, h, w] of the maps; without styles and tiles those of :meth:`draw`.

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
            noise = Noise(seed, ("draw",), torch.arange(len(like.images)), self._dtype)
            planes = painter.planes(networks, noise, like, styles)
            if tile is None:
                return to_bytes(painter.paint(networks, progress, planes))
            return to_bytes(
                tiled(lambda part: painter.paint(networks, progress, part), planes, tile, painter.stride(progress))
            )

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
