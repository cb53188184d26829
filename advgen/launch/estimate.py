"""What a recipe is expected to take: wall time, GPU-hours and storage, from measured rates where there are any."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from advgen.launch.cluster import Resources
from advgen.launch.scaling import Link, Network
from advgen.runtime.config import ZERO_STAGES, TrainingConfig
from advgen.runtime.run_folder import RunFolder

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Rates:
    """What was measured of a run.

    Attributes:
        images_per_second: of all ranks together, by phase: the median of the last session's readings.
        ranks: that it was measured with.
        source: the run folder.
    """

    images_per_second: Mapping[str, float]
    ranks: int
    source: Path


@dataclass(frozen=True)
class TrainingTime:
    """How long the training takes.

    Attributes:
        seconds: of the phases that a rate is known of, pauses for samples and checkpoints left out.
        gpu_hours: the same times the GPUs asked for; 0 without any.
        jobs: time limits that it fills, so that it is put back into the queue one time less.
        unmeasured: phases that no rate is known of; their time is missing from all of these.
    """

    seconds: float
    gpu_hours: float
    jobs: int
    unmeasured: tuple[str, ...]


def read_rates(run: Path) -> Rates | None:
    """Rates that a run's log holds; None where there are none.

    Damaged lines are passed over: an estimate is worth less than a submission.
    """
    folder = RunFolder(run)
    readings: dict[str, list[float]] = {}
    try:
        ranks = int(json.loads(folder.provenance.read_text(encoding="utf-8"))["world_size"])
        lines = folder.log.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    for line in lines:
        try:
            record = json.loads(line)
            if record["kind"] == "rate":
                readings.setdefault(record["phase"], []).append(float(record["images_per_second"]))
        except (ValueError, KeyError, TypeError):
            continue
    rates = {phase: median(found) for phase, found in readings.items()}
    return Rates(rates, ranks, run) if rates and all(rate > 0 for rate in rates.values()) else None


def training_time(phases: Sequence[tuple[str, float]], rates: Rates, wanted: Resources) -> TrainingTime:
    """Time that a training takes if n times the ranks are n times as fast.

    Args:
        phases: name and length in kimg of each.
        rates: measured, perhaps on other ranks.
        wanted: that it is to run on.
    """
    speed_up = wanted.ranks / rates.ranks
    known = [(kimg, rates.images_per_second[name]) for name, kimg in phases if name in rates.images_per_second]
    seconds = sum(1000 * kimg / (rate * speed_up) for kimg, rate in known)
    gpus = wanted.nodes * wanted.gpus_per_node
    unmeasured = tuple(name for name, _ in phases if name not in rates.images_per_second)
    return TrainingTime(seconds, seconds * gpus / 3600, max(1, math.ceil(seconds / wanted.seconds)), unmeasured)


def reduction_seconds(gradient_bytes: float, engine: str, ranks: int, gbit_per_rank: float) -> float:
    """Time in which the gradients of a step are reduced, if all ranks are equally far from one another.

    Latency is left out: it needs measuring, and is little beside megabytes.

    Args:
        gradient_bytes: of all players, a mean over steps.
        engine: ZeRO 1 and 2 send the new weights as well.
        ranks: number of processes.
        gbit_per_rank: speed of the network.
    """
    link = Link(gbit_per_rank * 1e9 / 8, 0.0)
    network = Network(link, link)
    reduced = network.seconds("all_reduce", gradient_bytes, ranks)
    return reduced + (network.seconds("all_gather", gradient_bytes, ranks) if ZERO_STAGES.get(engine) else 0.0)


def checkpoint_bytes(parameters: int, averaged: int) -> int:
    """Size of a checkpoint: weights, two moments of each by Adam, and moving averages, all float32.

    Args:
        parameters: of all networks.
        averaged: of the networks that an average is kept of.
    """
    return _FLOAT_BYTES * (3 * parameters + averaged)


def kept_checkpoints(phases: Sequence[tuple[str, float]], config: TrainingConfig) -> int:
    """Checkpoints that lie in the run folder at the end: the first, one a phase, the newest, and those asked for."""
    total = sum(kimg for _, kimg in phases)
    every = 0 if config.keep_every_kimg is None else int(total / config.keep_every_kimg)
    return 1 + len(phases) + config.keep_checkpoints + every + (config.keep_best is not None)
