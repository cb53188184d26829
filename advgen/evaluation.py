"""The one evaluator: metrics of a run's checkpoints, with the real-versus-real floor beside them.

Each figure is a record with its whole protocol, appended to ``metrics.jsonl``. What is there already, by the
same protocol, is not computed again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from advgen.capabilities import Samples
from advgen.data.stream import ImageStream
from advgen.errors import UserError
from advgen.files import sha256, write_text
from advgen.game import Batch, Game, ImageSpec, Progress, Timeline, sampling_networks
from advgen.images import to_bytes
from advgen.metrics import MetricFiles, MetricSpec, metric
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.features import Extractor
from advgen.metrics.reference import reference_statistics
from advgen.metrics.statistics import FeatureStatistics
from advgen.runtime.checkpoint import (
    COMPLETE,
    Checkpoint,
    list_checkpoints,
    phase_ended,
    read_checkpoint,
    restore_networks,
)
from advgen.runtime.run_folder import RunFolder
from advgen.seeds import Noise, key_of, permutation
from advgen.turns import batch_of

Record = dict[str, Any]
Told = Callable[[Record, bool], None]  # a record, and whether it was there before


@dataclass(frozen=True)
class RealImages:
    """The real images on either side of a comparison."""

    train: ImageStream
    held_out: ImageStream | None


@dataclass(frozen=True)
class View:
    """One figure to take of a checkpoint: where in the timeline it is looked at."""

    moment: str
    phase: str
    progress: Progress


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
    ) -> None:
        if not isinstance(game, Samples):
            raise UserError(f"{folder.path}: this game draws no images, so image metrics cannot be taken.")
        self.game, self.reals, self.folder, self.config, self.files = game, reals, folder, config, files
        self.device, self.spec = device, spec
        self.timeline = Timeline(game.phases)
        self.networks: Mapping[str, nn.Module] = {n: m.to(device).eval() for n, m in game.networks.items()}
        self.averages = {a.name: copy.deepcopy(self.networks[a.of]) for a in game.averages}

    def run(self, told: Told, only_latest: bool = False) -> list[Record]:
        """Take every metric of every phase-end checkpoint and of the newest one; returns all records.

        Args:
            told: is called with each record as soon as it is there.
            only_latest: leave the phase ends out.

        Raises:
            UserError: no checkpoint, an unknown metric, missing weights.
        """
        paths = list_checkpoints(self.folder.checkpoints)
        if not paths:
            raise UserError(f"{self.folder.path}: has no checkpoint yet. Train it first: `advgen train RECIPE`.")
        chosen = paths[-1:] if only_latest else [p for p in paths if phase_ended(p) is not None or p == paths[-1]]
        known = read_records(self.folder.metrics)
        results: list[Record] = []
        for name in self.config.metrics:
            spec = metric(name)
            extractor = _Once(lambda spec=spec: spec.load_extractor(self.files))
            for record, compute in self._plan(spec, extractor, chosen):
                found = next((r for r in known if _same(r, record)), None)
                if found is None:
                    found = {**record, "value": compute()}
                    known.append(found)
                    write_text(self.folder.metrics, "".join(json.dumps(r) + "\n" for r in known))
                    told(found, False)
                else:
                    told(found, True)
                results.append(found)
        return results

    def _plan(
        self, spec: MetricSpec, extractor: _Once, paths: list[Path]
    ) -> Iterator[tuple[Record, Callable[[], float]]]:
        """Each record without its value, and what computes the value; floors first."""
        seen: set[int] = set()
        for path in paths:
            # A phase that only goes on with what the one before it faded in begins with the same images.
            values: dict[tuple[int, float], float] = {}
            checkpoint = _Once(lambda path=path: read_checkpoint(path))
            for view in self._views(path):
                resolution = view.progress.phase.resolution
                if resolution not in seen and self.reals.held_out is not None:
                    seen.add(resolution)
                    floor = self._record(spec, extractor(), "floor", view.phase, resolution, None, 0)
                    yield floor, lambda r=resolution: self._floor(spec, extractor(), r)
                nimg = int(path.name)
                record = self._record(spec, extractor(), view.moment, view.phase, resolution, path, nimg)

                def compute(
                    view: View = view, checkpoint: _Once = checkpoint, values: dict[tuple[int, float], float] = values
                ) -> float:
                    key = (view.progress.phase.resolution, view.progress.fade)
                    if key not in values:
                        values[key] = self._distance(spec, extractor(), checkpoint(), view.progress)
                    return values[key]

                yield record, compute

    def _views(self, path: Path) -> list[View]:
        """What a checkpoint is looked at for: each resolution untrained; a phase's end, and the next one's start."""
        ended = phase_ended(path)
        phases = self.timeline.phases
        if ended is None:
            clock = read_checkpoint(path).clock
            return [View("within", phases[clock.phase].name, self.timeline.progress(clock))]
        if ended < 0:
            stable = {phase.resolution: index for index, phase in enumerate(phases)}
            return [View("untrained", phases[i].name, self.timeline.at_end_of(i)) for i in stable.values()]
        views = [View("end", phases[ended].name, self.timeline.at_end_of(ended))]
        if ended + 1 < len(phases):
            views.append(View("start", phases[ended + 1].name, self.timeline.at_start_of(ended + 1)))
        return views

    def _record(
        self,
        spec: MetricSpec,
        extractor: Extractor,
        moment: str,
        phase: str,
        resolution: int,
        path: Path | None,
        nimg: int,
    ) -> Record:
        train, held_out = self.reals.train, self.reals.held_out
        floor = moment == "floor"
        assert held_out is not None or not floor
        return {
            "name": spec.name,
            "nimg": nimg,
            "phase": f"{resolution}x{resolution}" if floor else phase,
            "moment": moment,
            "resolution": resolution,
            "checkpoint": None if path is None else str(path.relative_to(self.folder.path)),
            "checkpoint_sha256": None if path is None else sha256(path / COMPLETE),
            "protocol": {
                "samples": self._count(held_out) if floor and held_out else self.config.samples,
                "images": f"held-out {held_out.manifest.digest}" if floor and held_out else "generated",
                "reference": train.manifest.digest,
                "reference_samples": self._reference_count(),
                "resolution": resolution,
                "weights": "none" if floor else self.config.weights,
                "seed": self.config.seed,
                "extractor": dict(extractor.identity),
                **({} if floor or not self.spec.conditional else {"conditions": self._given.manifest.digest}),
            },
        }

    @property
    def _given(self) -> ImageStream:
        """Whose labels and maps generated images are to have: those that were not trained on, where there are any."""
        return self.reals.held_out or self.reals.train

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Of the samples whose labels and maps are taken."""
        return permutation(key_of(self.config.seed, "conditions"), len(self._given))

    def _conditions(self, start: int, stop: int, resolution: int) -> Batch | None:
        """Of generated images, by their numbers: those of the real images in an order of the evaluation's seed."""
        if not self.spec.conditional:
            return None
        order = self._order
        samples = self._given.fetch(order[np.arange(start, stop) % len(order)], resolution)
        return batch_of(samples, self.device, labelled=self.spec.classes > 0)

    def _reference_count(self) -> int:
        return min(self.config.reference_samples or len(self.reals.train), len(self.reals.train))

    def _count(self, held_out: ImageStream) -> int:
        return min(self.config.held_out_samples or self.config.samples, len(held_out))

    def _floor(self, spec: MetricSpec, extractor: Extractor, resolution: int) -> float:
        assert self.reals.held_out is not None
        held_out = self._real(self.reals.held_out, extractor, resolution, self._count(self.reals.held_out))
        return spec.distance(held_out, self._reference(extractor, resolution))

    def _reference(self, extractor: Extractor, resolution: int) -> FeatureStatistics:
        return self._real(self.reals.train, extractor, resolution, self._reference_count())

    def _real(self, stream: ImageStream, extractor: Extractor, resolution: int, count: int) -> FeatureStatistics:
        """Statistics of ``count`` real images, chosen by the evaluation's seed."""
        key = {
            "manifest": stream.manifest.digest,
            "extractor": dict(extractor.identity),
            "resolution": resolution,
            "count": count,
            "seed": self.config.seed,
        }

        def compute() -> FeatureStatistics:
            # In the order of the shards, which is that of reading.
            order = np.sort(permutation(key_of(self.config.seed, "evaluation"), len(stream))[:count])
            statistics = FeatureStatistics(extractor.dimensions, self.device)
            for indices in np.split(order, range(self.config.batch_size, count, self.config.batch_size)):
                images = torch.from_numpy(stream.fetch(indices, resolution).images).to(self.device)
                statistics.add(extractor(images))
            return statistics

        return reference_statistics(key, Path(self.config.cache), compute)

    def _distance(self, spec: MetricSpec, extractor: Extractor, checkpoint: Checkpoint, progress: Progress) -> float:
        restore_networks({**self.networks, **self.averages}, checkpoint.networks)
        networks: Mapping[str, nn.Module] = self.networks
        if self.config.weights == "average":
            networks = sampling_networks(self.game, self.networks, self.averages)
        assert isinstance(self.game, Samples)
        statistics = FeatureStatistics(extractor.dimensions, self.device)
        for start in range(0, self.config.samples, self.config.batch_size):
            stop = min(start + self.config.batch_size, self.config.samples)
            noise = Noise(self.config.seed, ("evaluation",), torch.arange(start, stop, device=self.device))
            like = self._conditions(start, stop, progress.phase.resolution)
            with torch.no_grad():
                statistics.add(extractor(to_bytes(self.game.sample(networks, progress, noise, like))))
        return spec.distance(statistics, self._reference(extractor, progress.phase.resolution))


class _Once:
    """Calls a function at the first call, and keeps what it gave."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made = make, None

    def __call__(self) -> Any:
        if self._made is None:
            self._made = self._make()
        return self._made


def read_records(path: Path) -> list[Record]:
    """The records of a ``metrics.jsonl``; none where there is no file."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise UserError(f"{path}: is not a list of JSON records ({error}). Remove it and evaluate again.") from None


def _same(record: Record, wanted: Record) -> bool:
    return all(record.get(key) == value for key, value in wanted.items())
