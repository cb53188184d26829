"""The one evaluator: metrics of a run's checkpoints, with the real-versus-real floor beside them.

Each figure is a record with its whole protocol, appended to ``metrics.jsonl``. What is there already, by the
same protocol, is not computed again. The fakes of a view are drawn once for all metrics that still need them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from advgen.capabilities import Classifies, DrawsLatents, Encodes, Samples
from advgen.data.stream import NumberedStream
from advgen.errors import UserError
from advgen.files import sha256
from advgen.game import Batch, Game, ImageSpec, Progress, sampling_networks
from advgen.images import to_bytes
from advgen.metrics import MetricFiles, MetricSpec, metric
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.held_out import answered, probed, reconstructed
from advgen.metrics.measures import Bench, Learned, Measure, Result
from advgen.metrics.path_length import step as path_step
from advgen.metrics.pictures import Pictures
from advgen.metrics.reals import Reals
from advgen.metrics.records import Record, Records
from advgen.runtime.checkpoint import COMPLETE, list_checkpoints, phase_ended, read_checkpoint, restore_networks
from advgen.runtime.run_folder import RunFolder
from advgen.seeds import Noise, key_of, permutation
from advgen.timeline import Timeline
from advgen.turns import batch_of

Told = Callable[[Record, bool], None]  # a record, and whether it was there before


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
        records: without their figures, one a metric.
        resolution: height of the pictures.
        show: so many of the pictures, in batches; of real ones all.
        figures: what these very pictures came to when they were shown before, by metric.
    """

    records: list[Record]
    resolution: int
    show: Callable[[int], Iterator[Pictures]]
    figures: dict[str, Result]


class Evaluator:
    """Takes the metrics of one run."""

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
    ) -> None:
        if not isinstance(game, Samples):
            raise UserError(f"{folder.path}: this game draws no images, so image metrics cannot be taken.")
        self.game, self.folder, self.config, self.device, self.spec = game, folder, config, device, spec
        self.timeline = Timeline(game.phases)
        self.networks: Mapping[str, nn.Module] = {n: m.to(device).eval() for n, m in game.networks.items()}
        self.averages = {a.name: copy.deepcopy(self.networks[a.of]) for a in game.averages}

        def chosen(stream: NumberedStream, count: int | None) -> Reals:
            return Reals(stream, count or len(stream), config, device, labelled=spec.classes > 0)

        held_out = reals.held_out
        self.reference = chosen(reals.train, config.reference_samples)
        self.held_out = None if held_out is None else chosen(held_out, config.held_out_samples or config.samples)
        self._bench = Bench(config, files, spec, self.reference, learned)
        self._measures: dict[Callable[[Bench], Measure], Measure] = {}
        self._read = lru_cache(1)(read_checkpoint)

    def run(self, told: Told, only_latest: bool = False) -> list[Record]:
        """Take every metric of every phase-end checkpoint and of the newest one; returns all records.

        Args:
            told: is called with each record as soon as it is there.
            only_latest: leave the phase ends out.

        Raises:
            UserError: no checkpoint, an unknown metric, one that the data or the game do not allow, missing weights.
        """
        paths = list_checkpoints(self.folder.checkpoints)
        if not paths:
            raise UserError(f"{self.folder.path}: has no checkpoint yet. Train it first: `advgen train RECIPE`.")
        chosen = paths[-1:] if only_latest else [p for p in paths if phase_ended(p) is not None or p == paths[-1]]
        records = Records(self.folder.metrics)
        specs = [metric(name) for name in dict.fromkeys(self.config.metrics)]
        for spec in specs:
            self._check(spec)
            self._measure(spec)
        results: list[Record] = []
        for subject in self._subjects(specs, chosen):
            self._take([r["name"] for r in subject.records if records.find(r) is None], subject)
            for record in subject.records:
                known = records.find(record)
                results.append(known or records.add(record, subject.figures[record["name"]]))
                told(results[-1], known is not None)
        return results

    def _check(self, spec: MetricSpec) -> None:
        """Refuse a metric of what the game cannot do, or of images that are not there."""
        game = self.game
        if spec.of in ("reconstructions", "probed") and not isinstance(game, Encodes):
            raise UserError(f"{spec.name}: this game finds no latents of images. Leave it out of evaluation.metrics.")
        if spec.walks and not isinstance(game, DrawsLatents):
            raise UserError(f"{spec.name}: this game draws no latents. Leave it out of evaluation.metrics.")
        if spec.of == "answers" and not (isinstance(game, Classifies) and game.classifies):
            raise UserError(f"{spec.name}: this game's networks tell no classes. Leave it out of evaluation.metrics.")
        if spec.of != "samples" and self.held_out is None:
            raise UserError(f"{spec.name}: is taken of held-out images. Name some in data.held_out.")

    def _subjects(self, specs: list[MetricSpec], paths: list[Path]) -> Iterator[Subject]:
        """Held-out images at each resolution, and every view of every checkpoint."""
        seen: set[int] = set()
        for path in paths:
            # A phase that only goes on with what the one before it faded in begins with the same images.
            figures: dict[tuple[int, float, str], dict[str, Result]] = {}
            for view in self._views(path):
                resolution, fade = view.progress.phase.resolution, view.progress.fade
                if self.held_out is not None and resolution not in seen:
                    seen.add(resolution)
                    yield self._floor(self.held_out, specs, resolution)
                for of in dict.fromkeys(spec.of for spec in specs):
                    show = self._fakes if of == "samples" else partial(self._of_held_out, of)
                    yield Subject(
                        [
                            self._record(spec, view, path)
                            for spec in specs
                            if spec.of == of and resolution >= spec.smallest
                        ],
                        resolution,
                        partial(show, path, view.progress),
                        figures.setdefault((resolution, fade, of), {}),
                    )

    def _views(self, path: Path) -> list[View]:
        """What a checkpoint is looked at for: each resolution untrained; a phase's end, and the next one's start."""
        ended = phase_ended(path)
        phases = self.timeline.phases
        if ended is None:
            clock = self._read(path).clock
            return [View("within", phases[clock.phase].name, self.timeline.progress(clock))]
        if ended < 0:
            stable = {phase.resolution: index for index, phase in enumerate(phases)}
            return [View("untrained", phases[i].name, self.timeline.at_end_of(i)) for i in stable.values()]
        views = [View("end", phases[ended].name, self.timeline.at_end_of(ended))]
        if ended + 1 < len(phases):
            views.append(View("start", phases[ended + 1].name, self.timeline.at_start_of(ended + 1)))
        return views

    def _floor(self, held_out: Reals, specs: list[MetricSpec], resolution: int) -> Subject:
        about = {
            "nimg": 0,
            "phase": f"{resolution}x{resolution}",
            "moment": "floor",
            "resolution": resolution,
            "checkpoint": None,
            "checkpoint_sha256": None,
        }
        images = {
            "samples": held_out.count,
            "images": f"held-out {held_out.stream.digest}",
            "weights": "none",
        }
        records = [
            {"name": spec.name, **about, "protocol": self._protocol(spec, resolution) | images}
            for spec in specs
            if spec.floor and resolution >= spec.smallest
        ]
        return Subject(records, resolution, lambda _: held_out.pictures(resolution), {})

    def _record(self, spec: MetricSpec, view: View, path: Path) -> Record:
        """Of generated images, or of what the game makes of held-out ones, without its figures."""
        resolution = view.progress.phase.resolution
        images = {
            "samples": self._measure(spec).samples,
            "images": "generated",
            "weights": self.config.weights,
            **({"conditions": self._given.digest} if self.spec.conditional else {}),
        }
        if spec.of != "samples" and self.held_out is not None:
            images |= {"samples": self.held_out.count, "images": spec.of}
        return {
            "name": spec.name,
            "nimg": int(path.name),
            "phase": view.phase,
            "moment": view.moment,
            "resolution": resolution,
            "checkpoint": str(path.relative_to(self.folder.path)),
            "checkpoint_sha256": sha256(path / COMPLETE),
            "protocol": self._protocol(spec, resolution) | images,
        }

    def _protocol(self, spec: MetricSpec, resolution: int) -> dict[str, Any]:
        """What all records of a metric at a resolution share."""
        return {
            "reference": self.reference.stream.digest,
            "reference_samples": self.reference.count,
            "resolution": resolution,
            "seed": self.config.seed,
            **self._measure(spec).protocol(spec.name, resolution),
        }

    def _measure(self, spec: MetricSpec) -> Measure:
        """What takes a metric; one for all metrics that share it."""
        if spec.measure not in self._measures:
            self._measures[spec.measure] = spec.measure(self._bench)
        return self._measures[spec.measure]

    def _take(self, names: list[str], subject: Subject) -> None:
        """Show the pictures once, to all metrics whose figures are not known."""
        measures: dict[Measure, list[str]] = {}
        for name in names:
            if name not in subject.figures:
                measures.setdefault(self._measure(metric(name)), []).append(name)
        if not measures:
            return
        tallies = [measure.start(subject.resolution, asked) for measure, asked in measures.items()]
        for pictures in subject.show(max(measure.samples for measure in measures)):
            for tally in tallies:
                tally.add(pictures)
        for tally in tallies:
            subject.figures.update(tally.results())

    def figures(self, show: Callable[[int], Iterator[Pictures]], resolution: int) -> dict[str, Result]:
        """The evaluation's metrics of any pictures, such as a baseline's, by the protocol of generated ones.

        Args:
            show: so many of the pictures, in batches; those of :meth:`conditions` where metrics look at them.
            resolution: their height.
        """
        subject = Subject([], resolution, show, {})
        self._take([name for name in self.config.metrics if metric(name).of == "samples"], subject)
        return subject.figures

    def _fakes(self, path: Path, progress: Progress, count: int) -> Iterator[Pictures]:
        """Generated pictures, batch by batch: a function of the seed, whatever the batches."""
        networks = self._networks_of(path)
        for start in range(0, count, self.config.batch_size):
            positions = np.arange(start, min(start + self.config.batch_size, count))
            like = self.conditions(positions, progress.phase.resolution)
            at = torch.from_numpy(positions).to(self.device)
            draw = partial(self._draw, networks, progress, at, like)
            labels, label_map = (None, None) if like is None else (like.labels, like.label_map)
            game, seed = self.game, self.config.seed
            walks = isinstance(game, DrawsLatents)
            step = partial(path_step, game, networks, progress, seed, at, like) if walks else None
            yield Pictures(draw(0), labels, label_map, again=draw, step=step, first=start)

    def _of_held_out(self, of: str, path: Path, progress: Progress, _: int) -> Iterator[Pictures]:
        """What the game makes of all held-out images."""
        assert self.held_out is not None, "run() has seen to it"
        game: Any = self.game  # with the capability: run() has seen to that, too
        given = (game, self._networks_of(path), progress)
        if of == "probed":
            labels = self.config.probe_labels
            return probed(*given, self.reference, self.held_out, self.spec.classes, labels)
        return (reconstructed if of == "reconstructions" else answered)(*given, self.held_out)

    def _networks_of(self, path: Path) -> Mapping[str, nn.Module]:
        """Those of a checkpoint, averages in their networks' places if the evaluation takes averages."""
        restore_networks({**self.networks, **self.averages}, self._read(path).networks)
        if self.config.weights == "average":
            return sampling_networks(self.game, self.networks, self.averages)
        return self.networks

    def _draw(
        self, networks: Mapping[str, nn.Module], progress: Progress, positions: Tensor, like: Batch | None, again: int
    ) -> Tensor:
        """uint8 [n, c, h, w] of these positions, of points as they are; ``again``: other noise, same conditions."""
        assert isinstance(self.game, Samples)
        noise = Noise(self.config.seed, ("evaluation", again) if again else ("evaluation",), positions)
        with torch.no_grad():
            images = self.game.sample(networks, progress, noise, like)
        return to_bytes(images) if self.spec.points is None else images

    @property
    def _given(self) -> NumberedStream:
        """Whose labels and maps generated images are to have: those that were not trained on, where there are any."""
        return (self.held_out or self.reference).stream

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Of the samples whose labels and maps are taken."""
        return permutation(key_of(self.config.seed, "conditions"), len(self._given))

    def conditions(self, positions: NDArray[np.int64], resolution: int) -> Batch | None:
        """Of generated images, by their numbers: those of the real images in an order of the evaluation's seed."""
        if not self.spec.conditional:
            return None
        samples = self._given.fetch(self._order[positions % len(self._order)], resolution)
        return batch_of(samples, self.device, labelled=self.spec.classes > 0)
