"""The one trainer: plays any game to the end of its phases, on any number of ranks, from any checkpoint."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from advgen.clock import Clock, Stopwatch
from advgen.data.stream import ImageStream, Samples
from advgen.ema import update_average
from advgen.errors import UserError
from advgen.game import Batch, Context, Game, Phase, Progress, Timeline, check_game, sampling_networks
from advgen.game import Samples as SamplesGame
from advgen.images import grid, save_png, to_bytes, to_signed
from advgen.runtime.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    prune_checkpoints,
    read_checkpoint,
    restore_networks,
    write_checkpoint,
)
from advgen.runtime.config import TrainingConfig
from advgen.runtime.engine import Engine, build_engines, collect_state, freeze, load_state, release_engines
from advgen.runtime.preemption import StopRequest
from advgen.runtime.run_folder import RunFolder
from advgen.runtime.tracking import JsonLines, Mirror
from advgen.runtime.world import World
from advgen.seeds import Noise


@dataclass(frozen=True)
class Status:
    """What a person watching may want to see."""

    nimg: int
    total_nimg: int
    phase: str
    fade: float
    images_per_second: float


class Watch(Protocol):
    """Somebody who watches the training."""

    def resumed(self, checkpoint: Path) -> None:
        """The run goes on from a checkpoint."""
        ...

    def step(self, status: Status) -> None:
        """A step was done."""
        ...


@dataclass(frozen=True)
class Setting:
    """What a trainer needs besides the game.

    Attributes:
        config: hardware, logging, checkpoints.
        seed: of all noise.
        read_threads: threads that read ahead.
        labelled: whether the game takes the data's labels.
        about: identifies the method and the data; a checkpoint with another one is refused.
    """

    config: TrainingConfig
    seed: int
    read_threads: int
    labelled: bool
    about: Mapping[str, Any]


class Trainer:
    """Trains one game in one run folder."""

    def __init__(
        self, game: Game, stream: ImageStream, world: World, folder: RunFolder, mirror: Mirror, setting: Setting
    ) -> None:
        check_game(game)
        for phase in game.phases:
            world.check_batch(phase.batch_size, phase.name)
        self.game, self.stream, self.world, self.folder, self.mirror = game, stream, world, folder, mirror
        self.setting, self.config = setting, setting.config
        self.timeline = Timeline(game.phases)
        self.clock = Clock()
        self.networks: Mapping[str, nn.Module] = game.networks
        self.dtype = torch.float64 if self.config.precision == "float64" else torch.float32
        self._layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        for network in self.networks.values():
            network.to(world.device, self.dtype, memory_format=self._layout)  # pyright: ignore[reportCallIssue]
        self.averages = {average.name: copy.deepcopy(self.networks[average.of]).eval() for average in game.averages}
        freeze(self.averages.values())
        self._optimizers: Mapping[str, Tensor] = {}
        self._logs: dict[str, JsonLines] = {}
        self._busy = Stopwatch()

    # -- the run --------------------------------------------------------------------------------------------------

    def run(self, watch: Watch, stop: StopRequest) -> bool:
        """Train to the end, or to the step at which a wish to stop is granted; a checkpoint is left either way.

        Returns:
            Whether the end was reached.

        Raises:
            UserError: the folder's checkpoint is damaged, another process trains there, or training diverged.
        """
        with self.folder.locked() if self.world.main else nullcontext():
            try:
                self._open(watch)
                while not self.timeline.done(self.clock):
                    if not self._play_phase(watch, stop):
                        return False
                return True
            finally:
                for log in self._logs.values():
                    log.close()

    def _open(self, watch: Watch) -> None:
        """Go on from the newest checkpoint, or write one of the beginning."""
        if self.world.main:
            names = ("log.jsonl", "samples/index.jsonl")
            self._logs = {name: JsonLines(self.folder.path / name) for name in names}
        found = latest_checkpoint(self.folder.checkpoints)
        if found is not None:
            checkpoint = read_checkpoint(found)
            self._restore(checkpoint)
            watch.resumed(found)
            self.world.wait()
            return
        for log in self._logs.values():
            log.cut(0)
        self._draw_reals()
        self._draw(self.timeline.at_start_of(0), "start")
        self._save(ended=-1)

    def _play_phase(self, watch: Watch, stop: StopRequest) -> bool:
        """Play the current phase from where the clock stands; False if stopped before its end."""
        index = self.clock.phase
        phase = self.timeline.phases[index]
        engines = build_engines(phase, self.networks, self.world)
        if self.clock.phase_step > 0:
            self._log({"kind": "phase", "event": "resume"})
        else:
            self._log({"kind": "phase", "event": "start"})
        if self.clock.phase_step > 0 or not phase.reset_optimizers:
            load_state(engines.values(), self._optimizers)
        with self.stream.prefetch(self._requests(index), threads=self.setting.read_threads) as batches:
            while self.clock.phase == index:
                self._busy.start()
                scalars = self._step(engines, batches)
                before, self.clock = self.clock, self.timeline.advance(self.clock)
                self._busy.add(phase.batch_size)
                self._report(scalars, before, watch)
                asked = self._stop_asked(stop)
                if self.clock.phase == index:
                    self._maintain(before.nimg, engines, asked)
                if asked and self.clock.phase == index:
                    return False
        self._optimizers = collect_state(engines.values())
        del engines
        release_engines(self.world)
        self._log({"kind": "phase", "event": "end"}, phase)
        self._draw(self.timeline.at_end_of(index), "end")
        self._save(ended=index)
        return not asked or self.timeline.done(self.clock)

    def _requests(self, index: int) -> Iterator[tuple[np.ndarray, int | None]]:
        """Positions of all batches from the clock to the phase's end; computed ahead: they depend on nothing else."""
        clock = self.clock
        phase = self.timeline.phases[index]
        while clock.phase == index:
            for number in range(phase.batches_a_step):
                start = clock.samples + number * phase.batch_size
                yield self.world.positions(start, phase.batch_size).numpy(), phase.resolution
            clock = self.timeline.advance(clock)

    def _step(self, engines: Mapping[str, Engine], batches: Iterator[Samples]) -> dict[str, Tensor]:
        """One step: every turn of the phase, in order. Returns scalars if the step is to be logged."""
        progress = self.timeline.progress(self.clock)
        phase, start = progress.phase, self.clock.samples
        batch = self._batch(next(batches))
        detached: dict[str, Mapping[str, Tensor]] = {}
        scalars: dict[str, Tensor] = {}
        for turn in phase.turns:
            waiting: list[str] = []
            for player in turn.players:
                if self.clock.step % player.every:
                    continue
                for repeat in range(player.repeat):
                    if repeat:
                        start += phase.batch_size
                        batch = self._batch(next(batches))
                    positions = self.world.positions(start, phase.batch_size).to(self.world.device)
                    noise = Noise(self.setting.seed, ("train", player.name, repeat), positions, self.dtype)
                    context = Context(self.networks, progress, noise, self.world, detached)
                    outcome = engines[player.name].backward(context, batch)
                    detached[player.name] = outcome.detached
                    if self._logs_next():
                        scalars.update({f"{player.name}/{key}": value for key, value in outcome.scalars.items()})
                        scalars[f"{player.name}/gradient_norm"] = engines[player.name].gradient_norm()
                    if turn.update == "alternating":
                        self._update(engines[player.name], progress)
                    elif player.name not in waiting:
                        waiting.append(player.name)
            for name in waiting:
                self._update(engines[name], progress)
        return scalars

    def _logs_next(self) -> bool:
        """Whether the step that is being done will be logged."""
        return self.clock.step % self.config.log_every_steps == 0

    def _update(self, engine: Engine, progress: Progress) -> None:
        phase = progress.phase
        engine.update(phase.learning_rates[engine.player.name].at(progress.nimg))
        for average in self.game.averages:
            if average.after == engine.player.name:
                decay = average.decay.at(self.clock.nimg, phase.batch_size)
                update_average(self.averages[average.name], self.networks[average.of], decay)

    def _batch(self, samples: Samples) -> Batch:
        device = self.world.device
        images = to_signed(torch.from_numpy(samples.images).to(device, non_blocking=True))
        images = images.to(self.dtype).contiguous(memory_format=self._layout)
        unlabelled = samples.labels is None or not self.setting.labelled
        labels = None if unlabelled else torch.from_numpy(samples.labels).to(device, non_blocking=True)
        return Batch(images, labels)

    # -- what is left behind --------------------------------------------------------------------------------------

    def _report(self, scalars: Mapping[str, Tensor], before: Clock, watch: Watch) -> None:
        """Log the step that led from ``before`` to now."""
        progress = self.timeline.progress(before)
        if scalars:
            values = self.world.mean(scalars)
            for name, rate in progress.phase.learning_rates.items():
                values[f"{name}/learning_rate"] = rate.at(progress.nimg)
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if bad:
                raise self._diverged(bad)
            self._log({"kind": "scalars", "fade": progress.fade, "values": values}, progress.phase)
            self.mirror.scalars(values, self.clock.nimg)
        if rate := self._busy.reading(every_seconds=2.0):
            reading = {"images_per_second": rate, "seconds_per_kimg": 1000.0 / rate}
            elapsed = {"elapsed_seconds": round(self._busy.total, 3)}
            self._log({"kind": "rate", **reading, **elapsed}, progress.phase)
            self.mirror.scalars({f"speed/{name}": value for name, value in reading.items()}, self.clock.nimg)
        watch.step(
            Status(
                self.clock.nimg, self.timeline.total_nimg, progress.phase.name, progress.fade, self._busy.recent_rate
            )
        )

    def _diverged(self, names: list[str]) -> UserError:
        last = latest_checkpoint(self.folder.checkpoints)
        return UserError(
            f"{self.folder.path}: {', '.join(names[:3])} is not finite at step {self.clock.step} "
            f"({self.clock.nimg} images). The last good checkpoint is {last}. "
            "Lower the learning rate or raise the penalty, under a new name."
        )

    def _log(self, record: Mapping[str, Any], phase: Phase | None = None) -> None:
        if self.world.main:
            phase = phase or self.timeline.phases[self.clock.phase]
            place = {"step": self.clock.step, "nimg": self.clock.nimg}
            about = {"phase": phase.name, "resolution": phase.resolution}
            self._logs["log.jsonl"].write({"kind": record["kind"], **place, **about, **record})

    def _stop_asked(self, stop: StopRequest) -> bool:
        """Whether any rank was asked to stop; ranks agree at every tenth step, one process at every step."""
        if self.world.size > 1 and self.clock.step % 10:
            return False
        return self.world.any(stop.asked)

    def _maintain(self, before_nimg: int, engines: Mapping[str, Engine], asked: bool) -> None:
        """Samples and checkpoints inside a phase."""
        if self._passed(self.config.sample_kimg, before_nimg):
            self._draw(self.timeline.progress(self.clock), "interval")
        if asked or self._passed(self.config.checkpoint_kimg, before_nimg):
            self._optimizers = collect_state(engines.values())
            self._save(ended=None)

    def _passed(self, kimg: float, before_nimg: int) -> bool:
        return int(self.clock.nimg / (1000 * kimg)) > int(before_nimg / (1000 * kimg))

    def _save(self, ended: int | None) -> None:
        if self.world.main:
            tensors = {
                f"{name}.{path}": tensor
                for name, network in {**self.networks, **self.averages}.items()
                for path, tensor in network.state_dict().items()
            }
            bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
            if bad:
                raise self._diverged(bad)
            lengths = {name: log.sync() for name, log in self._logs.items()}
            checkpoint = Checkpoint(self.clock, tensors, self._optimizers, self.setting.about, lengths, ended)
            write_checkpoint(self.folder.checkpoints, checkpoint)
            prune_checkpoints(self.folder.checkpoints, self.config.keep_checkpoints)
        self.world.wait()

    def _restore(self, checkpoint: Checkpoint) -> None:
        restore_networks({**self.networks, **self.averages}, checkpoint.networks)
        self._optimizers = checkpoint.optimizers
        self.clock = self.timeline.reopened(checkpoint.clock)
        for name, log in self._logs.items():
            log.cut(checkpoint.logs[name])

    def _draw(self, progress: Progress, event: str) -> None:
        """A grid of samples from the fixed latents."""
        if not self.world.main or not isinstance(self.game, SamplesGame):
            return
        columns, count = self.config.sample_columns, self.config.sample_columns * self.config.sample_rows
        positions = torch.arange(count, device=self.world.device)
        noise = Noise(self.setting.seed, ("samples",), positions, self.dtype)
        with torch.no_grad():
            images = self.game.sample(sampling_networks(self.game, self.networks, self.averages), progress, noise)
        path = self.folder.samples / f"{self.clock.nimg:012d}{'-start' if event == 'start' else ''}.png"
        save_png(path, grid(to_bytes(images).cpu(), columns))
        record = {"nimg": self.clock.nimg, "phase": progress.phase.name, "resolution": progress.phase.resolution}
        self._logs["samples/index.jsonl"].write({**record, "file": path.name, "columns": columns, "event": event})
        self.mirror.picture("samples", path, self.clock.nimg)

    def _draw_reals(self) -> None:
        if self.world.main:
            count = self.config.sample_columns * self.config.sample_rows
            images = torch.from_numpy(self.stream.read(np.arange(count)).images)
            save_png(self.folder.samples / "reals.png", grid(images, self.config.sample_columns))
