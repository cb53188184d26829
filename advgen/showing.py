"""What an evaluation shows to its metrics: a game's pictures at a checkpoint, and what it makes of held-out images.

Each rank shows its slice. A picture is a function of the evaluation's seed and its number, whatever the batches and the
ranks (:mod:`advgen.chunks`; batches are of whole groups, and a group of whole chunks).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from advgen.capabilities import DrawsLatents, Samples
from advgen.chunks import CHUNK, in_chunks
from advgen.data import parts
from advgen.data.stream import NumberedStream
from advgen.errors import UserError
from advgen.game import Batch, Game, ImageSpec, Progress, sampling_networks
from advgen.images import to_bytes
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.held_out import answered, probed, reconstructed
from advgen.metrics.path_length import step as path_step
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks, batches_of
from advgen.metrics.reading import read_ahead
from advgen.metrics.reals import Reals
from advgen.runtime.checkpoint import restore_networks
from advgen.seeds import Noise, key_of, permutation
from advgen.turns import batch_of


class Showing:
    """Shows a game's pictures.

    Args:
        game: that draws them.
        config: weights, seed and batches.
        spec: of the data.
        given: whose labels and maps generated images are to have.
        device: where they are drawn.
        ranks: among which they are cut.

    Attributes:
        networks, averages: the game's, with the weights of what was shown last.
    """

    def __init__(
        self,
        game: Game,
        config: EvaluationConfig,
        spec: ImageSpec,
        given: NumberedStream,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self._game, self._config, self._spec, self.given = game, config, spec, given
        self._device, self._ranks = device, ranks
        self.networks: Mapping[str, nn.Module] = {n: m.to(device).eval() for n, m in game.networks.items()}
        self.averages = {a.name: copy.deepcopy(self.networks[a.of]) for a in game.averages}

    @property
    def conditional(self) -> bool:
        """Whether generated images are given labels or maps."""
        return self._spec.conditional

    def fakes(self, tensors: Mapping[str, Tensor], progress: Progress, seed: int, count: int) -> Iterator[Pictures]:
        """This rank's of the first ``count`` generated pictures.

        Args:
            tensors: a checkpoint's networks.
            progress: where in the timeline they are looked at.
            seed: of their noise.
            count: how many on all ranks.
        """
        networks = self._networks_of(tensors)

        def fetched(numbers: range) -> tuple[range, parts.Samples | None]:
            # Conditions of the last chunk's rest, too, as it is drawn whole.
            drawn = np.arange(numbers.start, numbers.start + CHUNK * -(-len(numbers) // CHUNK))
            return numbers, self._given(drawn, progress.phase.resolution)

        batches = batches_of(count, self._ranks, self._config.batch_size)
        with read_ahead(fetched, batches, self._config.batch_size * progress.phase.resolution**2) as read:
            for numbers, given in read:
                like = None if given is None else self._batch(given)
                draw = partial(self._draw, networks, progress, seed, numbers, like)
                shown = None if like is None else like.of(slice(len(numbers)))
                labels, label_map = (None, None) if shown is None else (shown.labels, shown.label_map)
                step: Callable[[float], tuple[Tensor, Tensor]] | None = None
                if isinstance(self._game, DrawsLatents):
                    step = partial(self._step, self._game, networks, progress, seed, numbers, like)
                yield Pictures(draw(0), labels, label_map, again=draw, step=step, first=numbers.start)

    def of_held_out(
        self,
        of: str,
        tensors: Mapping[str, Tensor],
        progress: Progress,
        reference: Reals,
        held_out: Reals,
    ) -> Iterator[Pictures]:
        """What the game makes of this rank's held-out images: "reconstructions", "answers", or "probed" ones."""
        game: Any = self._game  # with the capability: the evaluator has seen to it
        given = (game, self._networks_of(tensors), progress)
        if of == "probed":
            return probed(*given, reference, held_out, self._spec.classes, self._config.probe_labels)
        return (reconstructed if of == "reconstructions" else answered)(*given, held_out)

    def conditions(self, positions: NDArray[np.int64], resolution: int) -> Batch | None:
        """Of generated images, by their numbers: those of the real images in an order of the evaluation's seed."""
        samples = self._given(positions, resolution)
        return None if samples is None else self._batch(samples)

    def _given(self, positions: NDArray[np.int64], resolution: int) -> parts.Samples | None:
        if not self.conditional:
            return None
        return self.given.fetch(self._order[positions % len(self._order)], resolution)

    def _batch(self, samples: parts.Samples) -> Batch:
        return batch_of(samples, self._device, labelled=self._spec.classes > 0)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Of the samples whose labels and maps are taken."""
        return permutation(key_of(self._config.seed, "conditions"), len(self.given))

    def _networks_of(self, tensors: Mapping[str, Tensor]) -> Mapping[str, nn.Module]:
        """Those of a checkpoint, averages in their networks' places if the evaluation takes averages."""
        restore_networks({**self.networks, **self.averages}, tensors)
        if self._config.weights == "average":
            return sampling_networks(self._game, self.networks, self.averages)
        return self.networks

    def _draw(
        self,
        networks: Mapping[str, nn.Module],
        progress: Progress,
        seed: int,
        numbers: range,
        like: Batch | None,
        again: int,
    ) -> Tensor:
        """uint8 [n, c, h, w] of these numbers, of points as they are; ``again``: other noise, same conditions."""
        game = self._game
        assert isinstance(game, Samples)
        scope = ("evaluation", again) if again else ("evaluation",)

        finite: list[Tensor] = []

        def drawn(at: range) -> Tensor:
            noise = Noise(seed, scope, self._positions(at))
            images = game.sample(networks, progress, noise, _part(like, at, numbers))
            finite.append(images.isfinite().all())
            return to_bytes(images) if self._spec.points is None else images

        with torch.no_grad():
            images = torch.cat(list(in_chunks(drawn, numbers)))
        if not torch.stack(finite).all():  # looked at once a batch; as bytes they are like any others
            raise UserError(
                "the networks of this checkpoint draw pictures that are not finite, so no figure is taken of them. "
                "Name an earlier one (--checkpoint NIMG)."
            )
        return images

    def _positions(self, at: range) -> Tensor:
        return torch.arange(at.start, at.stop, device=self._device)

    def _step(
        self,
        game: DrawsLatents,
        networks: Mapping[str, nn.Module],
        progress: Progress,
        seed: int,
        numbers: range,
        like: Batch | None,
        length: float,
    ) -> tuple[Tensor, Tensor]:
        """Either end of a step between latents (:func:`advgen.metrics.path_length.step`), one step a number."""

        def drawn(at: range) -> Tensor:
            part = _part(like, at, numbers)
            return torch.stack(path_step(game, networks, progress, seed, self._positions(at), part, length), dim=1)

        near, far = torch.cat(list(in_chunks(drawn, numbers))).unbind(dim=1)
        return near, far


def _part(like: Batch | None, at: range, numbers: range) -> Batch | None:
    """The conditions of a chunk, of those of a batch that begins with it or before."""
    return None if like is None else like.of(slice(at.start - numbers.start, at.stop - numbers.start))
