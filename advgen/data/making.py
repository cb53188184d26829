"""Making shards in processes: a shard is one job, whole or not at all, and leaves a record that it is done."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from advgen.data.decode import BadImage
from advgen.data.fitting import Fit, Fitted
from advgen.data.listing import Files, Rejected
from advgen.data.manifest import Shard
from advgen.data.sources import Item
from advgen.data.tars import TarWriter, write_array
from advgen.errors import UserError
from advgen.files import write_json
from advgen.strict_config import configuration, plain

_FEW = 400  # images that are made sooner than processes are started
_counter: Synchronized[int] | None = None  # of a worker process: images done, for the progress bar


@configuration
class Made:
    """What came of a job.

    Attributes:
        shard: None if no sample was left.
        levels: one for each level.
        counts: samples of each class.
        label_ids: that stand in the label maps.
        changed: how many images were converted, by what was done.
        enlarged: images that were smaller.
        rejected: what was left out.
    """

    shard: Shard | None
    levels: tuple[Shard, ...]
    counts: tuple[int, ...]
    label_ids: tuple[int, ...]
    changed: dict[str, int]
    enlarged: int
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True)
class Job:
    """One shard to be made.

    Attributes:
        number: of the shard.
        folder: to write to.
        where: the source, for messages.
        place: what is read from.
        items: its samples, in order.
        fit: how they are stored.
        classes: how many classes the labels tell apart.
    """

    number: int
    folder: Path
    where: str
    place: Files
    items: tuple[Item, ...]
    fit: Fit
    classes: int

    @property
    def name(self) -> str:
        """Name of the tar."""
        return f"shard-{self.number:06d}.tar"

    @property
    def record(self) -> Path:
        """The file that says that the job is done; written last."""
        return self.folder / f"{self.name}.done"


def make_all(jobs: list[Job], *, workers: int, fail: bool, progress: Callable[[int, int], None] | None) -> list[Made]:
    """Do all jobs that are not done yet; the results in the order of the jobs.

    Args:
        jobs: to do.
        workers: processes; 0 takes one for each core.
        fail: end at the first bad sample.
        progress: called with (done, total) images.

    Raises:
        UserError: a sample is bad and ``fail`` is set, or a process was ended from outside.
    """
    total = sum(len(job.items) for job in jobs)
    results = {job.number: made for job in jobs if (made := _recorded(job)) is not None}
    for made in results.values():
        _check(made, jobs[0].where, fail)
    done = sum(len(job.items) for job in jobs if job.number in results)
    left = [job for job in jobs if job.number not in results]
    workers = min(workers or len(os.sched_getaffinity(0)), len(left))
    if progress is not None and done:
        progress(done, total)
    if workers <= 1 or total - done < _FEW:
        for job in left:
            results[job.number] = make(job, fail, partial(_tell, progress, done, total))
            done += len(job.items)
    else:
        for job, made in _in_processes(left, workers, fail, done, total, progress):
            results[job.number] = made
    return [results[job.number] for job in jobs]


def _tell(progress: Callable[[int, int], None] | None, before: int, total: int, done: int) -> None:
    if progress is not None:
        progress(before + done, total)


def _in_processes(
    jobs: list[Job], workers: int, fail: bool, done: int, total: int, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[Job, Made]]:
    context = multiprocessing.get_context("spawn")
    counter: Synchronized[int] = context.Value("q", 0)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(counter,))
    try:
        # Few at a time: what waits in the pool holds its items twice.
        waiting = iter(jobs)
        running: dict[Future[Made], Job] = {}
        while True:
            for job in waiting:
                running[pool.submit(make, job, fail)] = job
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            if progress is not None:
                progress(done + counter.value, total)
            for future in finished:
                job = running.pop(future)
                yield job, future.result()
    except BrokenProcessPool:
        raise UserError(
            f"{jobs[0].where}: a process that makes shards was ended from outside (out of memory?). The same command "
            "goes on from the shards that are done; --workers takes fewer processes."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(counter: Synchronized[int]) -> None:
    """In a new process: know the counter, and end with the parent."""
    global _counter  # the one way by which ProcessPoolExecutor hands a shared value to its processes
    _counter = counter
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, name="advgen-parent", daemon=True).start()


def make(job: Job, fail: bool, told: Callable[[int], None] | None = None) -> Made:
    """Make a shard and its levels, and record it.

    Args:
        job: which.
        fail: end at the first bad sample.
        told: called with the number of images done, now and then.

    Raises:
        UserError: a sample is bad and ``fail`` is set.
    """
    writers: list[TarWriter] = []
    raw: list[np.ndarray] = []
    counts, changed, ids = [0] * job.classes, Counter[str](), set[int]()
    enlarged, rejected, told_before = 0, [], 0
    heights = job.fit.levels[:-1] if job.fit.raw else job.fit.levels
    try:
        with job.place.opened() as read:
            for number, item in enumerate(job.items, 1):
                fitted = _fitted(job, item, read)
                if isinstance(fitted, Rejected):
                    _refuse(job.where, fitted, fail)
                    rejected.append(fitted)
                else:
                    if not writers:
                        writers = [TarWriter(_subfolder(job.folder, h), job.name) for h in (None, *heights)]
                    for writer, parts in zip(writers, (fitted.parts, *fitted.levels), strict=True):
                        writer.add(item.key, item.label, item.name, parts)
                    if fitted.raw is not None:
                        raw.append(fitted.raw)
                    if item.label is not None:
                        counts[item.label] += 1
                    changed.update(fitted.changes)
                    enlarged += fitted.enlarged
                    ids |= fitted.label_ids
                if number % 16 == 0 or number == len(job.items):
                    if _counter is not None:
                        with _counter.get_lock():
                            _counter.value += number - told_before
                    if told is not None:
                        told(number)
                    told_before = number
    except BaseException:
        for writer in writers:
            writer.abort()
        raise
    shards = [_named(writer.close(), height) for writer, height in zip(writers, (None, *heights), strict=False)]
    if raw:
        height = job.fit.levels[-1]
        name = job.name.removesuffix(".tar") + ".npy"
        shards.append(_named(write_array(_subfolder(job.folder, height), name, np.stack(raw)), height))
    made = Made(
        shard=shards[0] if shards else None,
        levels=tuple(shards[1:]),
        counts=tuple(counts),
        label_ids=tuple(sorted(ids)),
        changed=dict(sorted(changed.items())),
        enlarged=enlarged,
        rejected=tuple(rejected),
    )
    write_json(job.record, plain(made))
    return made


def _fitted(job: Job, item: Item, read: Callable[[str], bytes]) -> Fitted | Rejected:
    try:
        return job.fit({part: read(file) for part, file in zip(job.fit.parts, item.files, strict=True)})
    except BadImage as error:
        return Rejected(item.name, str(error))


def _subfolder(folder: Path, height: int | None) -> Path:
    """Levels have folders of their own, which are sets of shards by themselves to other readers."""
    return folder if height is None else folder / f"r{height:04d}"


def _named(shard: Shard, height: int | None) -> Shard:
    return shard if height is None else replace(shard, name=f"r{height:04d}/{shard.name}")


def _recorded(job: Job) -> Made | None:
    try:
        made = pydantic.TypeAdapter(Made).validate_json(job.record.read_bytes())
    except (OSError, ValueError):
        return None
    files: list[Any] = [made.shard, *made.levels] if made.shard is not None else []
    whole = all((job.folder / f.name).is_file() and (job.folder / f.name).stat().st_size == f.bytes for f in files)
    return made if whole else None


def _check(made: Made, where: str, fail: bool) -> None:
    for bad in made.rejected:
        _refuse(where, bad, fail)


def _refuse(where: str, bad: Rejected, fail: bool) -> None:
    if fail:
        raise UserError(
            f"{where}: {bad.name} {bad.reason}. Remove it, or leave out all that is bad: --on-bad skip. What is done "
            "is kept: the same command goes on."
        )
