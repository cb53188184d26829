"""The one evaluator: metrics of a run's checkpoints, with the real-versus-real floor beside them.

Each figure is a record with its whole protocol, appended to ``metrics.jsonl``. What is there already, by the
same protocol, is not computed again. The fakes of a view are drawn once for all metrics that still need them, by all
ranks, each a slice; the first rank alone reads and writes records, and says what is to be done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from advgen.capabilities import Classifies, DrawsLatents, Encodes, Samples
from advgen.data.stream import NumberedStream
from advgen.errors import AgreedError, UserError
from advgen.files import sha256
from advgen.game import Game, ImageSpec, Progress
from advgen.metrics import MetricFiles
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.measures import Bench, Learned, Result
from advgen.metrics.panel import Panel, Show
from advgen.metrics.pictures import Pictures
from advgen.metrics.protocols import Asked, asked
from advgen.metrics.ranks import Alone, Ranks, any_of, bytes_of_first, flags_of_first
from advgen.metrics.reals import Reals
from advgen.metrics.records import Record, Records, record_of_images
from advgen.runtime.checkpoint import (
    COMPLETE,
    latest_checkpoint,
    list_checkpoints,
    phase_ended,
    read_checkpoint,
    read_clock,
)
from advgen.runtime.run_folder import RunFolder
from advgen.showing import Showing
from advgen.timeline import Timeline

Told = Callable[[Record, bool], None]  # a record, and whether it was there before
Which = Literal["ends", "latest", "every"] | int
"""Which checkpoints: those at phase ends and the newest; the newest; all; the one at so many images."""


@dataclass(frozen=True)
class RealImages:
    """The real images on either side of a comparison."""

    train: NumberedStream
    held_out: NumberedStream | None


@dataclass(frozen=True)
class View:
    """One figure to take of a checkpoint: where in the timeline it is looked at."""

    moment: str
    phase: str
    progress: Progress


@dataclass(frozen=True)
class Subject:
    """One set of pictures, and what is to be known of it.

    Attributes:
        records: without their figures, by what is asked.
        counts: so many of the pictures, for each that is asked.
        resolution: height of the pictures.
        show: shows them.
        figures: what these very pictures came to when they were shown before, by the names of records.
        checkpoint: that has to be read before they can be shown; None for real images.
    """

    records: dict[Asked, Record]
    counts: dict[Asked, int]
    resolution: int
    show: Show
    figures: dict[str, Result]
    checkpoint: Path | None


class Evaluator:
    """Takes the metrics of one run.

    Attributes:
        config: the evaluation's settings.
        showing: shows the game's pictures.
        timeline: of the game's phases.
        images: the real ones.
        reference: the training images that others are set against.
    """

    def __init__(
        self,
        game: Game,
        reals: RealImages,
        folder: RunFolder,
        config: EvaluationConfig,
        files: MetricFiles,
        device: torch.device,
        spec: ImageSpec,
        learned: Learned | None = None,
        ranks: Ranks = Alone(),
    ) -> None:
        if not isinstance(game, Samples):
            raise UserError(f"{folder.path}: this game draws no images, so image metrics cannot be taken.")
        self.game, self.folder, self.config, self._ranks = game, folder, config, ranks
        self.timeline, self.images = Timeline(game.phases), reals
        self.showing = Showing(game, config, spec, (reals.held_out or reals.train), device, ranks)

        def chosen(stream: NumberedStream, count: int | None) -> Reals:
            return Reals(stream, count or len(stream), config, device, spec.classes > 0, ranks)

        self._chosen = chosen
        self.reference = chosen(reals.train, config.reference_samples)
        bench = Bench(config, files, spec, self.reference, learned)
        self.panel = Panel(bench, partial(chosen, reals.train), ranks)
        self._floors: set[int] = set()
        self._held: tuple[Path, Mapping[str, Tensor]] | None = None

    def agreed(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; a collective."""
        return any_of(flag, self._ranks)

    def finished(self) -> bool:
        """Whether the run has come to its end: whether its newest checkpoint is of the end of its last phase."""
        newest = latest_checkpoint(self.folder.checkpoints) if self._ranks.index == 0 else None
        return self.agreed(newest is not None and _ended(newest) == len(self.timeline.phases) - 1)

    def checkpoints(self, which: Which, wait: bool = False) -> list[Path]:
        """Complete checkpoints, oldest first, the same on all ranks; a collective.

        Args:
            which: of them.
            wait: whether it is no mistake that there is none.

        Raises:
            AgreedError: there is none, or not the one that is named.
        """
        names, wrong = "", ""
        if self._ranks.index == 0:
            found = list_checkpoints(self.folder.checkpoints)
            chosen = [path.name for path in found if _is(path, which, found[-1])]
            names = "\n".join(chosen)
            if not found and not wait:
                wrong = f"{self.folder.path}: has no checkpoint yet. Train it first: `advgen train RECIPE`."
            elif found and not chosen:
                there = ", ".join(str(int(path.name)) for path in found)
                wrong = f"{self.folder.path}: has no complete checkpoint at {which} images. There are: {there}."
        if wrong := bytes_of_first(wrong.encode(), self._ranks).decode():
            raise AgreedError(wrong)
        names = bytes_of_first(names.encode(), self._ranks).decode()
        return [self.folder.checkpoints / name for name in names.split()]

    def look(self, told: Told, stop: Callable[[], bool] = lambda: False) -> None:
        """Take every metric of the newest checkpoint, and keep no networks of it; a collective."""
        self.run(told, self.checkpoints("latest"), stop)
        self._held = None

    def run(
        self, told: Told, checkpoints: Sequence[Path], stop: Callable[[], bool] = lambda: False, repeats: int = 1
    ) -> list[Record]:
        """Take every metric of some checkpoints; a collective.

        Args:
            told: is called, on the first rank, with each record as soon as it is there.
            checkpoints: of :meth:`checkpoints`. One that the run has removed meanwhile is passed over.
            stop: whether to end before the next pictures are shown, asked on every rank.
            repeats: sets of fakes that generated pictures' metrics are taken of, each of a seed of its own.

        Returns:
            All records, on the first rank.

        Raises:
            UserError: an unknown metric, one that the data or the game do not allow, missing weights, a damaged
                checkpoint.
        """
        records = Records(self.folder.metrics) if self._ranks.index == 0 else None
        wanted = asked(self.config.metrics)
        for each in wanted:
            self._check(each)
            self.panel.measure(each)
        results: list[Record] = []
        for subject in self._subjects(wanted, checkpoints, repeats):
            if not subject.records:  # pictures are too small for all metrics that are of them
                continue
            if any_of(stop(), self._ranks):
                break
            known = [records is not None and records.find(r) is not None for r in subject.records.values()]
            known = flags_of_first(known, self._ranks)
            missing = [each for each, there in zip(subject.records, known, strict=True) if not there]
            counts = {each: subject.counts[each] for each in missing if each.name not in subject.figures}
            if counts and subject.checkpoint is not None and not self._holds(subject.checkpoint):
                continue
            subject.figures.update(self.panel.take(counts, subject.show, subject.resolution))
            if records is None:
                continue
            for each, record in subject.records.items():
                before = records.find(record)
                results.append(before or records.add(record, subject.figures[each.name]))
                told(results[-1], before is not None)
        return results

    def _check(self, wanted: Asked) -> None:
        """Refuse a metric of what the game cannot do, or of images that are not there."""
        game, spec = self.game, wanted.metric
        if spec.of in ("reconstructions", "probed") and not isinstance(game, Encodes):
            raise UserError(f"{spec.name}: this game finds no latents of images. Leave it out of evaluation.metrics.")
        if spec.walks and not isinstance(game, DrawsLatents):
            raise UserError(f"{spec.name}: this game draws no latents. Leave it out of evaluation.metrics.")
        if spec.of == "answers" and not (isinstance(game, Classifies) and game.classifies):
            raise UserError(f"{spec.name}: this game's networks tell no classes. Leave it out of evaluation.metrics.")
        if spec.of != "samples" and self.images.held_out is None:
            raise UserError(f"{spec.name}: is taken of held-out images. Name some in data.held_out.")

    def _subjects(self, wanted: list[Asked], paths: Sequence[Path], repeats: int) -> Iterator[Subject]:
        """Held-out images at each resolution, and every view of every checkpoint."""
        for path in paths:
            if (looked := self._looked_at(path)) is None:
                continue
            about, views = looked
            # A phase that only goes on with what the one before it faded in begins with the same images.
            figures: dict[tuple[int, float, str, int], dict[str, Result]] = {}
            for view in views:
                resolution, fade = view.progress.phase.resolution, view.progress.fade
                if self.images.held_out is not None and resolution not in self._floors:
                    self._floors.add(resolution)
                    yield self._floor(wanted, resolution)
                for of in dict.fromkeys(each.metric.of for each in wanted):
                    group = [each for each in wanted if each.metric.of == of and resolution >= each.metric.smallest]
                    for repeat in range(repeats if of == "samples" else 1):
                        known = figures.setdefault((resolution, fade, of, repeat), {})
                        yield self._of(of, group, path, about, view, repeat, known)

    def _looked_at(self, path: Path) -> tuple[Record, list[View]] | None:
        """What records of a checkpoint say of it, and its views; None where it is gone. A collective."""
        found: tuple[Record, list[View]] | None = None
        with _unless_gone(path):
            name = {"nimg": int(path.name), "checkpoint": str(path.relative_to(self.folder.path))}
            found = {**name, "checkpoint_sha256": sha256(path / COMPLETE)}, self._views(path)
        return None if any_of(found is None, self._ranks) else found

    def _holds(self, path: Path) -> bool:
        """Whether a checkpoint's networks have been read on all ranks; not where it is gone. A collective."""
        if self._held is None or self._held[0] != path:
            self._held = None
            with _unless_gone(path):
                self._held = path, read_checkpoint(path).networks
        return not any_of(self._held is None, self._ranks)

    def _views(self, path: Path) -> list[View]:
        """What a checkpoint is looked at for: each resolution untrained; a phase's end, and the next one's start."""
        ended = phase_ended(path)
        phases = self.timeline.phases
        if ended is None:
            clock = read_clock(path)
            return [View("within", phases[clock.phase].name, self.timeline.progress(clock))]
        if ended < 0:
            stable = {phase.resolution: index for index, phase in enumerate(phases)}
            return [View("untrained", phases[i].name, self.timeline.at_end_of(i)) for i in stable.values()]
        views = [View("end", phases[ended].name, self.timeline.at_end_of(ended))]
        if ended + 1 < len(phases):
            views.append(View("start", phases[ended + 1].name, self.timeline.at_start_of(ended + 1)))
        return views

    def _held_out(self, wanted: Asked) -> Reals:
        """The held-out images of a figure."""
        assert self.images.held_out is not None, "run() has seen to it"
        config = self.config
        count = wanted.counts.samples if wanted.counts else config.held_out_samples or config.samples
        return self._chosen(self.images.held_out, count)

    def _floor(self, wanted: list[Asked], resolution: int) -> Subject:
        reals = {
            each: self._held_out(each) for each in wanted if each.metric.floor and resolution >= each.metric.smallest
        }
        records: dict[Asked, Record] = {}
        for each, held_out in reals.items():
            images = {"samples": held_out.count, "images": f"held-out {held_out.stream.digest}", "weights": "none"}
            protocol = self.panel.protocol(each, resolution) | images
            records[each] = record_of_images(each.name, "floor", resolution, protocol)
        counts = {each: held_out.count for each, held_out in reals.items()}
        by_count = {held_out.count: held_out for held_out in reals.values()}
        return Subject(records, counts, resolution, lambda count: by_count[count].own_pictures(resolution), {}, None)

    def _of(
        self, of: str, wanted: list[Asked], path: Path, about: Record, view: View, repeat: int, known: dict[str, Result]
    ) -> Subject:
        """Generated images, or what the game makes of held-out ones."""
        resolution = view.progress.phase.resolution
        where = {"phase": view.phase, "moment": view.moment, "resolution": resolution}
        counts = {
            each: self.panel.measure(each).samples if of == "samples" else self._held_out(each).count for each in wanted
        }
        images = {
            "images": "generated" if of == "samples" else of,
            "weights": self.config.weights,
            **({"conditions": self.showing.given.digest} if self.showing.conditional else {}),
            **({"samples_seed": self.config.seed + repeat} if repeat else {}),
        }
        records: dict[Asked, Record] = {}
        for each in wanted:
            protocol = self.panel.protocol(each, resolution) | {"samples": counts[each], **images}
            records[each] = {"name": each.name, **about, **where, "protocol": protocol}

        def show(count: int) -> Iterator[Pictures]:
            assert self._held is not None and self._held[0] == path, "run() has seen to it"
            tensors = self._held[1]
            if of == "samples":
                return self.showing.fakes(tensors, view.progress, self.config.seed + repeat, count)
            held_out = self._held_out(wanted[0])  # by name no protocol is of held-out images, so all have one count
            return self.showing.of_held_out(of, tensors, view.progress, self.reference, held_out)

        return Subject(records, counts, resolution, show, known, path)

    def figures(self, show: Show, resolution: int) -> dict[str, Result]:
        """The evaluation's metrics of any pictures, such as a baseline's, by the protocol of generated ones.

        Args:
            show: so many of the pictures, in batches; those of :meth:`Showing.conditions` where metrics look at them.
            resolution: their height.
        """
        wanted = [each for each in asked(self.config.metrics) if each.metric.of == "samples"]
        return self.panel.take({each: self.panel.measure(each).samples for each in wanted}, show, resolution)


def _is(path: Path, which: Which, newest: Path) -> bool:
    """Whether a checkpoint is among those that are wanted."""
    if which == "ends":
        return _ended(path) is not None or path == newest
    return which == "every" or path == newest if isinstance(which, str) else int(path.name) == which


def _ended(path: Path) -> int | None:
    """Which phase ended at a checkpoint; None also for one that is gone, as only those within phases go."""
    with _unless_gone(path):
        return phase_ended(path)
    return None


@contextmanager
def _unless_gone(path: Path) -> Iterator[None]:
    """Pass over what fails because a run that goes on has removed this checkpoint meanwhile."""
    try:
        yield
    except (UserError, OSError):
        if path.exists():
            raise
