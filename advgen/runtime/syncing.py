"""Sending a run to its trackers later, from its own logs, each row once.

W&B's offline folders are not what is sent: several with one id do not append to one another (wandb issue 5865), and of
a killed job the end may be missing. What was sent stands in ``tracking.json``, so that a second time nothing is; where
a sending was cut off, W&B's server says how far it came.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from advgen.errors import UserError, reason_of
from advgen.files import write_json
from advgen.runtime.checkpoint import lasting_checkpoints
from advgen.runtime.config import TrackingConfig
from advgen.runtime.history import JOBS, Job, Row, rows
from advgen.runtime.run_folder import RunFolder
from advgen.runtime.tensorboard_files import TensorBoard, require_tensorboard
from advgen.runtime.tracking import Subject
from advgen.runtime.wandb_run import WandbRun, base_url, has_key, last_session, run_id

Counts = dict[Job, int]
"""Rows that were sent, by job."""


def sync_wandb(
    config: TrackingConfig, subject: Subject, *, rebuild: bool = False, patience_seconds: float = 600.0
) -> Counts:
    """Send what W&B does not have of a run's training and evaluations.

    Args:
        config: where to.
        subject: the run.
        rebuild: begin a new W&B run, and send everything.
        patience_seconds: to wait for the server to take all of it.

    Raises:
        UserError: no key; the server does not answer, or takes not all of it (nothing is then marked as sent); the run
            is being trained and sends its records itself, or is to be rebuilt.
    """
    if not has_key():
        raise UserError("W&B: there is no key. Set WANDB_API_KEY, or log in once with `wandb login`.")
    folder = RunFolder(subject.folder)
    with _alone(subject.folder):
        live = folder.busy()
        if live and rebuild:
            raise UserError(f"{folder.path}: is being trained. Rebuild its tracker when it has ended.")
        if live and last_session(folder.path, run_id(folder.path, "training")) == "online":
            raise UserError(f"{folder.path}: is being trained and sends its records itself. Sync it when it has ended.")
        if rebuild:
            for job in JOBS:
                run_id(folder.path, job, new=True)
        return {
            job: _send(config, replace(subject, job=job), live and job == "training", patience_seconds) for job in JOBS
        }


def _send(config: TrackingConfig, subject: Subject, live: bool, patience_seconds: float) -> int:
    marks = subject.folder / "tracking.json"
    sent: dict[str, Any] = json.loads(marks.read_text()) if marks.is_file() else {}
    about = {
        "run": run_id(subject.folder, subject.job),
        "place": [base_url(), config.entity, config.project],
    }
    mark = sent.get(subject.job, {})
    known = mark["step"] if {**mark, **about} == mark else -1
    if next(_settled(rows(subject.folder, subject.job, known), live), None) is None:
        return 0
    try:
        # W&B keeps a copy of what it sends, which nobody needs here.
        with tempfile.TemporaryDirectory(prefix="advgen-sync-") as scratch:
            run = WandbRun(config, subject, "online", Path(scratch), patience_seconds)
            try:
                count = run.show(_settled(rows(subject.folder, subject.job, run.known), live))
                if subject.job == "training":
                    run.checkpoints(lasting_checkpoints(RunFolder(subject.folder).checkpoints))
            finally:
                run.close()
    except Exception as error:
        raise UserError(
            f"{subject.folder}: W&B at {base_url()} did not take the {subject.job}'s records ({reason_of(error)}). "
            "None of them is marked as sent; give the command again when it can be reached."
        ) from error
    write_json(marks, {**sent, subject.job: {**about, "step": run.known}})
    return count


def sync_tensorboard(config: TrackingConfig, subject: Subject, *, rebuild: bool = False) -> Counts:
    """Write what TensorBoard's files do not have of a run; ``rebuild`` writes them anew.

    Raises:
        UserError: the package is not installed; the run is being trained.
    """
    with _alone(subject.folder):
        live = RunFolder(subject.folder).busy()
        if live and (rebuild or config.tensorboard):
            raise UserError(f"{subject.folder}: is being trained. Write its TensorBoard files when it has ended.")
        counts: Counts = {}
        require_tensorboard()
        for job in JOBS:
            if rebuild:
                shutil.rmtree(subject.folder / "tensorboard" / job, ignore_errors=True)
            board = TensorBoard(replace(subject, job=job))
            counts[job] = board.show(_settled(rows(subject.folder, job, board.known), live and job == "training"))
            board.close()
        return counts


def _settled(found: Iterable[Row], live: bool) -> Iterator[Row]:
    """Rows to which nothing will be added: while a training goes on, all but the last."""
    return (row for row, _ in pairwise(found)) if live else iter(found)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other syncs of a run, and evaluations that show theirs, from sending at the same time."""
    with (folder / ".tracking.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process sends its records just now. Give the command again when it has ended."
            ) from None
        yield
