"""The one trainer: plays any game to the end of its phases, on any number of ranks, from any checkpoint."""

from __future__ import annotations

import logging
import math
import platform
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from advgen.capabilities import Begins, Concludes
from advgen.clock import Clock
from advgen.data.parts import Replaced
from advgen.data.stream import Stream
from advgen.errors import AgreedError, UserError
from advgen.feed import Feed
from advgen.game import Batch, Game, Phase, Progress, check_game, sampling_networks
from advgen.journal import Journal
from advgen.pictures import Pictures
from advgen.runtime.checkpoint import (
    Checkpoint,
    StoredMoments,
    latest_checkpoint,
    name_of,
    newest_whole,
    read_checkpoint,
    restore_networks,
    sweep,
)
from advgen.runtime.engine import Engine, Moments, NoMoments, Piece
from advgen.runtime.engines import build_engines, close_engines, collect_state, prepare
from advgen.runtime.faults import GRACE_SECONDS, Watchdog
from advgen.runtime.preemption import StopRequest
from advgen.runtime.profiler import Profiler, label
from advgen.runtime.rank_log import rank_log
from advgen.runtime.run_folder import RunFolder
from advgen.runtime.saver import Saver
from advgen.runtime.tracking import Mirrors
from advgen.runtime.validation import check_setting
from advgen.runtime.world import World
from advgen.setting import Setting
from advgen.speed import Speed
from advgen.timeline import Timeline
from advgen.turns import NotFinite, Step, Table, averages_of
from advgen.watch import Status, Watch

_log = logging.getLogger(__name__)


class Diverged(AgreedError):
    """A loss, gradient or weight that is NaN or infinite ended the run; on all ranks."""


class Trainer:
    """Trains one game in one run folder."""

    def __init__(
        self, game: Game, stream: Stream, world: World, folder: RunFolder, mirror: Mirrors, setting: Setting
    ) -> None:
        check_game(game)
        check_setting(game, setting.config, world.size)
        self.game, self.stream, self.world, self.folder = game, stream, world, folder
        self.setting, self.config = setting, setting.config
        self.timeline = Timeline(game.phases)
        self.clock = Clock()
        self.networks: Mapping[str, nn.Module] = game.networks
        dtype = torch.float64 if self.config.precision == "float64" else torch.float32
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        for network in self.networks.values():
            network.to(world.device, dtype, memory_format=layout)  # pyright: ignore[reportCallIssue]
        averages = averages_of(game.averages, self.networks)
        self.averages = {average.name: network for average, network in averages}
        prepare(game, self.config)
        self._table = Table(self.networks, averages, world, self.config, setting.seed, dtype, setting.spec.classes > 0)
        pictures = Pictures(game, stream, self._table, setting.spec, folder.samples)
        self.journal = Journal(folder, mirror, pictures, self.config.sample_columns, world.main)
        self._saver = Saver(folder, world, self.config)
        self._speed = Speed(setting.flops, world, self.config.precision)
        self._profiler = Profiler(self.config.profile_steps, folder.profile, world)
        self._feed = Feed(stream, self.timeline, self._table, setting.reading)

    # -- the run --------------------------------------------------------------------------------------------------

    def run(self, watch: Watch, stop: StopRequest) -> bool:
        """Train to the end, or to the step at which a wish to stop is granted; a checkpoint is left either way.

        Returns:
            Whether the end was reached.

        Raises:
            UserError: the folder's checkpoints are damaged, another process trains there, training diverged, a
                checkpoint could not be written. Any error of a collective where another rank is gone
                (:func:`advgen.runtime.faults.lost_contact`).
        """
        limit = self.config.collective_timeout_seconds
        with (
            rank_log(self.folder.path, self.world.rank),
            self.folder.locked() if self.world.main else nullcontext(),
            Watchdog(
                limit + GRACE_SECONDS,
                f"{self.folder.path}: rank {self.world.rank}",
                lambda text: self.journal.mirror.alert("stalled", text),
            ) as self._watchdog,
        ):
            place = (self.world.rank, self.world.size, platform.node(), self.world.device)
            _log.info("rank %d of %d on host %s, %s", *place)
            try:
                self._open(watch)
                while not self.timeline.done(self.clock):
                    if not self._play_phase(watch, stop):
                        return False
                self.journal.mirror.alert("finished", f"{self.folder.path}: {self.clock.nimg} images")
                return True
            except Exception as error:
                _log.exception("rank %d ends at step %d", self.world.rank, self.clock.step)
                self.journal.mirror.alert("not finite" if isinstance(error, Diverged) else "failed", str(error))
                raise
            finally:
                self.journal.close()

    def _open(self, watch: Watch) -> None:
        """Go on from the newest checkpoint whose checksums hold, or write one of the beginning."""
        name = ""
        self.journal.open()
        if self.world.main:
            sweep(self.folder.checkpoints)
            found, wrong = newest_whole(self.folder.checkpoints)
            for text in wrong:
                watch.warned(f"skipped: {text}")
            if found is None and wrong:
                raise UserError(f"{self.folder.checkpoints}: no checkpoint is whole. {wrong[0]}")
            name = found.name if found is not None else ""
        name = self.world.from_main(name)
        if name:
            path = self.folder.checkpoints / name
            self._restore(read_checkpoint(path, verify=False))
            self.journal.mirror.catch_up()
            watch.resumed(path)
            _log.info("goes on from %s", path)
            return
        self.journal.cut(None)
        if self.setting.begins_with is not None:
            self.setting.begins_with({**self.networks, **self.averages})
        else:
            self._begin()
        self.journal.draw_reals(self.clock)
        self._draw(self.timeline.at_start_of(0), "start")
        self._save({}, ended=-1)

    def _play_phase(self, watch: Watch, stop: StopRequest) -> bool:
        """Play the current phase from where the clock stands; False if stopped before its end."""
        index = self.clock.phase
        phase = self.timeline.phases[index]
        engines = build_engines(phase, self.networks, self.world, self.config, self._moments(phase))
        step = Step(self._table, engines)
        self._log({"kind": "phase", "event": "resume" if self.clock.phase_step > 0 else "start"})
        asked = False
        left = -(-(self.timeline.start_of(index + 1) - self.clock.nimg) // phase.batch_size)

        def replaced(bad: Replaced) -> None:
            watch.warned(f"rank {self.world.rank}: {bad}")
            self._log({"kind": "bad_sample", "place": bad.place, "reason": bad.reason, "by": bad.by})

        with (
            self._feed.batches(self.clock, replaced) as batches,
            self._profiler.watching(phase, self.clock.step, left, watch),
        ):
            while self.clock.phase == index:
                self._profiler.step()
                self._speed.watch.start()
                waited = batches.waited
                logged = self.clock.step % self.config.log_every_steps == 0
                scalars = self._play(step, batches, logged)
                before, self.clock = self.clock, self.timeline.advance(self.clock)
                with label("log"):
                    values = self.world.mean(scalars)  # waits for the device, whose time is the steps'
                    self._speed.watch.add(phase.batch_size, batches.waited - waited)
                    self._watchdog.beat()
                    self._report(values, before, watch)
                    asked = self._agree(stop)
                if self.clock.phase == index:
                    with label("checkpoint"):
                        self._maintain(before.nimg, step, engines, asked)
                if asked and self.clock.phase == index:
                    self._written()
                    self.journal.show_checkpoints()
                    return False
        self._settle(step)
        self._conclude(index)
        pieces = collect_state(engines.values())
        self.journal.log({"kind": "phase", "event": "end"}, self.clock, phase)
        self._draw(self.timeline.at_end_of(index), "end")
        self._save(pieces, ended=index)
        del step, pieces
        close_engines(engines, self.world)
        if asked or self.timeline.done(self.clock):
            self._written()
            self.journal.show_checkpoints()
        return not asked or self.timeline.done(self.clock)

    def _begin(self) -> None:
        """Let the game take what it takes of the data before the first step."""
        if isinstance(self.game, Begins):
            self.game.begin(self.networks, self._shown(0, self.game.beginning_images))
            self.world.align(self.networks)
            for average, network in self._table.averages:
                network.load_state_dict(self.networks[average.of].state_dict())

    def _conclude(self, index: int) -> None:
        """Let the game take what it takes of the data at the end of a phase."""
        if isinstance(self.game, Concludes):
            batches = self._shown(index, self.game.concluding_images)
            self.game.conclude(self.networks, self.timeline.at_end_of(index), batches)
            self.world.align(self.networks)

    def _shown(self, index: int, count: int) -> Iterator[Batch]:
        for batch in self._feed.first(index, count):
            self._watchdog.beat()
            yield batch

    def _moments(self, phase: Phase) -> Moments:
        """What the phase's optimizers go on from: the newest checkpoint, whichever engine and ranks wrote it."""
        if self.clock.phase_step == 0 and phase.reset_optimizers:
            return NoMoments()
        self._written()
        self.world.wait()
        return StoredMoments(self.folder.checkpoints / name_of(self.clock.nimg))

    def _play(self, step: Step, batches: Iterator[Batch], logged: bool) -> dict[str, Tensor]:
        try:
            scalars = step.play(self.clock, self.timeline.progress(self.clock), batches, logged)
        except NotFinite as error:
            raise self._diverged(str(error)) from None
        self._tell_skipped(step)
        return scalars

    def _settle(self, step: Step) -> None:
        """Know what became of all updates, before a checkpoint or a phase's end is made of them."""
        try:
            step.settle()
        except NotFinite as error:
            raise self._diverged(str(error)) from None
        self._tell_skipped(step)

    def _tell_skipped(self, step: Step) -> None:
        if step.untold:
            bad = sorted(step.untold)
            self.journal.mirror.alert(
                "not finite", f"{self.folder.path}: updates of {bad} before step {self.clock.step} left out"
            )
            step.untold.clear()

    # -- what is left behind --------------------------------------------------------------------------------------

    def _report(self, values: dict[str, float], before: Clock, watch: Watch) -> None:
        """Log the step that led from ``before`` to now, with the scalars that it has, if any."""
        progress = self.timeline.progress(before)
        if values:
            for name, rate in progress.phase.learning_rates.items():
                values[f"{name}/learning_rate"] = rate.at(progress.nimg)
            # A statistic that is not finite, though all gradients are, is not worth a run: it is logged as none.
            finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
            self.journal.show({"kind": "scalars", "fade": progress.fade, "values": finite}, self.clock, progress.phase)
        if record := self._speed.record(before.phase, progress.phase):
            self.journal.show({"kind": "rate", **record}, self.clock, progress.phase)
        rate = self._speed.watch.recent_rate
        watch.step(Status(self.clock.nimg, self.timeline.total_nimg, progress.phase.name, progress.fade, rate))

    def _diverged(self, what: str) -> Diverged:
        self._saver.wait()
        last = latest_checkpoint(self.folder.checkpoints)
        return Diverged(
            f"{self.folder.path}: {what}. The last good checkpoint is {last}. Lower the learning rate or raise the "
            "penalty, under a new name; or let single updates be left out: --on-nonfinite skip:3."
        )

    def _log(self, record: Mapping[str, Any]) -> None:
        self.journal.log(record, self.clock, self.timeline.phases[self.clock.phase])

    def _agree(self, stop: StopRequest) -> bool:
        """Whether any rank was asked to stop; ranks agree at every tenth step, one process at every step.

        Raises:
            AgreedError: any rank failed to write the last checkpoint.
        """
        if self.world.size > 1 and self.clock.step % 10:
            return False
        asked, failed = self.world.vote(stop.asked, self._saver.failure is not None)
        if failed:
            raise AgreedError(str(self._saver.explain()))
        return asked

    def _written(self) -> None:
        """Until the last checkpoint is written, on all ranks."""
        self._saver.wait()
        (failed,) = self.world.vote(self._saver.failure is not None)
        if failed:
            raise AgreedError(str(self._saver.explain()))
        self._watchdog.beat()

    def _maintain(self, before_nimg: int, step: Step, engines: Mapping[str, Engine], asked: bool) -> None:
        """Samples and checkpoints inside a phase."""
        if self._passed(self.config.sample_kimg, before_nimg):
            self._draw(self.timeline.progress(self.clock), "interval")
        inspection = self.setting.inspection
        if inspection is not None and (asked or not self._passed(inspection.kimg, before_nimg)):
            inspection = None
        if asked or inspection is not None or self._passed(self.config.checkpoint_kimg, before_nimg):
            self._settle(step)
            self._save(collect_state(engines.values()), ended=None)
        if inspection is not None:
            self._written()
            with self._watchdog.resting():
                inspection.look()

    def _passed(self, kimg: float, before_nimg: int) -> bool:
        return int(self.clock.nimg / (1000 * kimg)) > int(before_nimg / (1000 * kimg))

    def _save(self, pieces: Mapping[str, Piece], ended: int | None) -> None:
        """Hand a checkpoint to the saver, if it is one that is worth to go on from."""
        tensors = {
            f"{name}.{path}": tensor
            for name, network in {**self.networks, **self.averages}.items()
            for path, tensor in network.state_dict().items()
        }
        if differing := self.world.differing(tensors):
            raise AgreedError(
                f"{self.folder.path}: '{differing[0]}' and {len(differing) - 1} more tensors are not the same on all "
                f"processes at {self.clock.nimg} images. No checkpoint was written; the last good one is "
                f"{latest_checkpoint(self.folder.checkpoints)}. A defective device, or a game that draws random "
                "numbers past context.noise, does this."
            )
        bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        if bad:
            raise self._diverged(f"'{bad[0]}' is not finite at step {self.clock.step} ({self.clock.nimg} images)")
        lengths = self.journal.lengths()
        mine = tensors if self.world.main else {}
        self._saver.save(Checkpoint(self.clock, mine, self.setting.about, lengths, ended), pieces)

    def _restore(self, checkpoint: Checkpoint) -> None:
        restore_networks({**self.networks, **self.averages}, checkpoint.networks)
        self.clock = self.timeline.reopened(checkpoint.clock)
        self.journal.cut(checkpoint.logs)

    def _draw(self, progress: Progress, event: str) -> None:
        if self.world.main:
            networks = sampling_networks(self.game, self.networks, self.averages)
            self.journal.draw(networks, progress, self.clock, event)
