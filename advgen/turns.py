"""One step of a game: every turn of its phase, in order, on this rank's share of the batches."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from advgen.clock import Clock
from advgen.data.parts import Samples
from advgen.ema import update_average
from advgen.errors import UserError
from advgen.game import Across, Average, Batch, Context, Outcome, Player, Progress
from advgen.images import to_signed
from advgen.runtime.config import TrainingConfig
from advgen.runtime.engine import Engine
from advgen.runtime.later import Later
from advgen.runtime.profiler import label
from advgen.runtime.world import Share, World
from advgen.seeds import Noise

log = logging.getLogger(__name__)


class NotFinite(UserError):
    """A loss or gradient that is NaN or infinite ended the run; the same on all ranks."""


@dataclass(frozen=True)
class Table:
    """What a step needs and does not change from phase to phase.

    Attributes:
        networks: of the game, by name.
        averages: the game's averages and, by name, the networks that hold them.
        world: the ranks.
        config: hardware.
        seed: of all noise.
        dtype: of images and noise.
        labelled: whether the game takes the data's labels.
    """

    networks: Mapping[str, nn.Module]
    averages: Sequence[tuple[Average, nn.Module]]
    world: World
    config: TrainingConfig
    seed: int
    dtype: torch.dtype
    labelled: bool

    @property
    def layout(self) -> torch.memory_format:
        """How images lie in memory."""
        return torch.channels_last if self.config.channels_last else torch.contiguous_format

    def batch(self, samples: Samples) -> Batch:
        """Samples of the stream as the losses see them, on the device."""
        batch = batch_of(samples, self.world.device, labelled=self.labelled)
        return replace(batch, images=batch.images.to(self.dtype).contiguous(memory_format=self.layout))


class Step:
    """Plays steps of one phase with its engines.

    What became of a player's update is looked at when its next one comes: by then the device has told. See
    :meth:`settle`.

    Attributes:
        skipped: updates in a row that were left out, by player, as far as is known.
        untold: players with updates that were left out and not yet told of: whoever tells empties it.
    """

    def __init__(self, table: Table, engines: Mapping[str, Engine]) -> None:
        self._table, self._engines = table, engines
        self._open: dict[str, tuple[Later, Clock, str]] = {}
        self.skipped: dict[str, int] = {}
        self.untold: set[str] = set()

    def play(self, clock: Clock, progress: Progress, batches: Iterator[Batch], logged: bool) -> dict[str, Tensor]:
        """Every turn of the phase, in order; returns scalars if the step is to be logged.

        Raises:
            NotFinite: as :meth:`settle` does, of updates that another of their player followed.
        """
        phase, start = progress.phase, clock.samples
        batch = next(batches)
        detached: dict[str, Mapping[str, Tensor]] = {}
        scalars: dict[str, Tensor] = {}
        for turn in phase.turns:
            waiting: list[Player] = []
            for player in turn.players:
                if clock.step % player.every:
                    continue
                for repeat in range(player.repeat):
                    if repeat:
                        start += phase.batch_size
                        batch = next(batches)
                    world = self._table.world
                    positions = world.positions(start, phase.batch_size, world.device)
                    outcome = self._backward(player, repeat, progress, positions, batch, detached)
                    detached[player.name] = outcome.detached
                    if logged:
                        scalars.update({f"{player.name}/{key}": value for key, value in outcome.scalars.items()})
                    if turn.update == "alternating" or repeat + 1 < player.repeat:
                        scalars.update(self._update(player, clock, progress, logged))
                    else:
                        waiting.append(player)
            for player in waiting:
                scalars.update(self._update(player, clock, progress, logged))
        return scalars

    def _backward(
        self,
        player: Player,
        repeat: int,
        progress: Progress,
        positions: Tensor,
        batch: Batch,
        detached: Mapping[str, Mapping[str, Tensor]],
    ) -> Outcome:
        """Micro-batch m of k is every k-th sample of the rank's share, from the m-th on."""
        table, engine = self._table, self._engines[player.name]
        count = engine.micro_batches
        across: Across = table.world if count == 1 else Share(table.world, count)
        shares: list[tuple[Context, Batch]] = []
        for m in range(count):
            noise = Noise(table.seed, ("train", player.name, repeat), positions[m::count], table.dtype)
            left = {name: {key: rows[m::count] for key, rows in values.items()} for name, values in detached.items()}
            context = Context(table.networks, progress, noise, across, left, micro_batch=m)
            share = batch.strided(m, count)
            shares.append((context, replace(share, images=share.images.contiguous(memory_format=table.layout))))
        return engine.backward(shares)

    def _update(self, player: Player, clock: Clock, progress: Progress, logged: bool) -> dict[str, Tensor]:
        table, phase = self._table, progress.phase
        self._settle(player.name)
        with label(f"{player.name}/update"):
            update = self._engines[player.name].update(phase.learning_rates[player.name].at(progress.nimg))
        self._open[player.name] = Later(update.applied), clock, phase.name
        with label("average"):
            for average, network in table.averages:
                if average.after == player.name:
                    decay = average.decay.at(clock.nimg, phase.batch_size)
                    update_average(network, table.networks[average.of], decay)
        if not logged:
            return {}
        scalars = {
            f"{player.name}/gradient_norm": update.gradient_norm,
            f"{player.name}/weight_norm": self._engines[player.name].weight_norm(),
        }
        if (limit := player.optimizer.clip_norm) is not None:
            scalars[f"{player.name}/clipped"] = update.gradient_norm > limit
        return scalars

    def settle(self) -> None:
        """Look at what became of every update so far; needed before anything is made of what they led to.

        Raises:
            NotFinite: more updates in a row than allowed had a loss or gradient that is not finite.
        """
        for player in tuple(self._open):
            self._settle(player)

    def _settle(self, player: str) -> None:
        if player not in self._open:
            return
        applied, clock, phase = self._open.pop(player)
        if applied.get():
            self.skipped[player] = 0
            return
        self.skipped[player] = count = self.skipped.get(player, 0) + 1
        allowed = self._table.config.allowed_skips
        where = f"step {clock.step} ({clock.nimg} images, phase '{phase}')"
        if count > allowed:
            row = f", the update number {count} in a row" if allowed else ""
            raise NotFinite(f"player '{player}': its loss or gradient is not finite at {where}{row}")
        self.untold.add(player)
        log.warning(
            "player '%s': loss or gradient not finite at %s; update %d of at most %d in a row is left out",
            player,
            where,
            count,
            allowed,
        )


def batch_of(samples: Samples, device: torch.device, *, labelled: bool) -> Batch:
    """Samples as the losses see them, float32, on a device; points are passed through as they are.

    Args:
        samples: of the stream.
        device: where to.
        labelled: whether the game takes the data's labels.
    """

    def there(values: NDArray[Any] | None) -> Tensor | None:
        return None if values is None else torch.from_numpy(values).to(device, non_blocking=True).long()

    images = torch.from_numpy(samples.images).to(device, non_blocking=True)
    if not images.is_floating_point():
        images = to_signed(images)
    labels = there(samples.labels) if labelled else None
    return Batch(images, labels, there(samples.label_map), there(samples.instance_map))


def averages_of(averages: Sequence[Average], networks: Mapping[str, nn.Module]) -> list[tuple[Average, nn.Module]]:
    """Each average with a frozen copy of its network as it stands."""
    copies = [copy.deepcopy(networks[average.of]).eval().requires_grad_(False) for average in averages]
    return list(zip(averages, copies, strict=True))
