"""Checkpoints written while the training goes on: copied to the host at once, written by a thread."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from advgen.errors import UserError
from advgen.metrics.protocols import metric_of
from advgen.runtime.checkpoint import (
    Checkpoint,
    finish_checkpoint,
    latest_checkpoint,
    prune_checkpoints,
    temporary_of,
    write_part,
)
from advgen.runtime.config import TrainingConfig
from advgen.runtime.engine import Piece
from advgen.runtime.run_folder import RunFolder
from advgen.runtime.world import World

_FAILED = "failed: "


class Saver:
    """Writes the checkpoints of one run, one after the other; every rank its part, rank 0 the rest.

    Attributes:
        failure: why the last one could not be written; the ranks agree on it at a step boundary.
    """

    def __init__(self, folder: RunFolder, world: World, config: TrainingConfig) -> None:
        self._folder, self._world, self._config = folder, world, config
        self._thread: threading.Thread | None = None
        self.failure: Exception | None = None

    def save(self, checkpoint: Checkpoint, pieces: Mapping[str, Piece]) -> None:
        """Copy everything to the host, and write it in the background once the one before is written.

        Args:
            checkpoint: of which rank 0 writes the networks; other ranks may leave them out.
            pieces: this rank's part of the moments.
        """
        self.wait()
        copied = replace(checkpoint, networks={name: _copy(value) for name, value in checkpoint.networks.items()})
        parts = {name: replace(piece, values=_copy(piece.values)) for name, piece in pieces.items()}
        self._thread = threading.Thread(target=self._write, args=(copied, parts), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being written; look at :attr:`failure` then."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def explain(self) -> UserError:
        """What to tell of a failure, on any rank."""
        last = latest_checkpoint(self._folder.checkpoints)
        why = f" ({self.failure})" if self.failure is not None else ""
        return UserError(
            f"{self._folder.checkpoints}: a checkpoint could not be written{why}. The last good one is "
            f"{last.name if last else 'none'}, and is as it was. Make room there; the same command "
            "then goes on from it."
        )

    def _write(self, checkpoint: Checkpoint, pieces: Mapping[str, Piece]) -> None:
        folder, world = self._folder.checkpoints, self._world
        temporary = temporary_of(folder, checkpoint.clock.nimg)
        try:
            digests = world.gather_texts(self._write_part(temporary, pieces))
            for rank, text in enumerate(digests):
                if text.startswith(_FAILED):
                    raise OSError(f"rank {rank}: {text.removeprefix(_FAILED)}")
            if world.main:
                finish_checkpoint(folder, checkpoint, digests)
                every = self._config.keep_every_kimg
                prune_checkpoints(
                    folder,
                    self._config.keep_checkpoints,
                    None if every is None else max(1, round(every * 1000)),
                    self._best(),
                )
        except Exception as error:  # told by the thread that trains
            self.failure = error
            if world.main:
                shutil.rmtree(temporary, ignore_errors=True)

    def _write_part(self, temporary: Path, pieces: Mapping[str, Piece]) -> str:
        """The checksum of this rank's part, or why there is none: the others wait for either."""
        try:
            return write_part(temporary, self._world.rank, self._world.size, pieces)
        except Exception as error:
            return f"{_FAILED}{error}"

    def _best(self) -> int | None:
        """Images seen at the checkpoint with the best value so far of the metric that the recipe names."""
        rule = self._config.keep_best
        return None if rule is None else best_by(self._folder.metrics, rule.metric, rule.lower_is_better)


def best_by(metrics: Path, name: str, lower_is_better: bool | None = None) -> int | None:
    """Images seen at the best value of a metric in ``metrics.jsonl``, among the finest images; None for no value."""
    if lower_is_better is None:
        known = metric_of(name)
        lower_is_better = known is None or known.better == "lower"
    records = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
    records = [record for record in records if record["name"] == name and record["checkpoint"] is not None]
    finest = [record for record in records if record["resolution"] == max(r["resolution"] for r in records)]
    sign = 1.0 if lower_is_better else -1.0
    return min(finest, key=lambda record: sign * record["value"])["nimg"] if finest else None


def _copy(tensor: Tensor) -> Tensor:
    """A copy on the host that shares nothing with the original, and lies in memory as it does, which is the quickest.

    Files want tensors contiguous: their writer sees to it, in its thread.
    """
    return tensor.detach().to("cpu", copy=True)
