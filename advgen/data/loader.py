"""Batches read ahead of their use, by threads or by processes, in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from advgen.data.decode import in_order
from advgen.data.order import Positions
from advgen.data.parts import Replaced, Samples
from advgen.data.stream import Stream
from advgen.errors import UserError

Request = tuple[Positions, int | None]


class Loader:
    """Batches that are read ahead, in the order of the requests. A context manager and an iterator.

    Requests are taken on the consumer's thread. An error is raised where its batch would have come, and ends the
    iteration. Leaving the context, or :meth:`close`, ends the threads or processes. What a batch holds does not depend
    on how it is read.
    """

    def __init__(
        self,
        stream: Stream,
        requests: Iterable[Request],
        *,
        threads: int = 2,
        workers: int = 0,
        ahead: int = 2,
        pin: bool = False,
        bad_samples: int = 0,
        known: set[str] | None = None,
        told: Callable[[Replaced], None] | None = None,
    ) -> None:
        """
        Args:
            stream: what is read.
            requests: (positions, level) of each batch.
            threads: how many read; 0 reads when the batch is asked for.
            workers: processes that read instead; 0 for threads.
            ahead: batches that are read ahead, for each process where there are any.
            pin: lay batches into page-locked memory, from which a GPU copies without waiting.
            bad_samples: different samples that may be replaced; one more is an error.
            known: places of those that were replaced before; this loader's are added.
            told: is called with each of them once.
        """
        if workers:
            self._batches = _from_processes(stream, requests, workers, max(1, ahead), pin)
        else:

            def read(request: Request) -> Samples:
                samples = stream.read(*request)
                return _pinned(samples) if pin else samples  # here, as the copy takes the time that threads have

            self._batches = in_order(read, requests, threads=threads, ahead=max(1, ahead))
        self._limit, self._told = bad_samples, told
        self._known: set[str] = set() if known is None else known

    def __iter__(self) -> Iterator[Samples]:
        return self

    def __next__(self) -> Samples:
        samples = next(self._batches)
        for bad in samples.replaced:
            if bad.place in self._known:
                continue
            self._known.add(bad.place)
            if len(self._known) > self._limit:
                many = f" ({len(self._known)} such samples; data.bad_samples is {self._limit})" if self._limit else ""
                raise UserError(
                    f"{bad.place} {bad.reason}{many}. The shard is damaged: run `advgen shard` again, or copy it again "
                    "and verify it (`advgen verify`)."
                )
            if self._told is not None:
                self._told(bad)
        return samples

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads or processes; waits for the reads in work. May be called twice."""
        self._batches.close()


def _pinned(samples: Samples) -> Samples:
    import torch

    arrays = {name: torch.from_numpy(array).pin_memory().numpy() for name, array in samples.arrays().items()}
    return Samples(**{"labels": None, **arrays}, replaced=samples.replaced)


class _Requests:
    """What torch's DataLoader takes for a data set: a request gives a batch."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __getitem__(self, request: Request) -> dict[str, Any] | str:
        import torch

        try:
            samples = self._stream.read(*request)
        except UserError as error:
            return str(error)  # the DataLoader would wrap it into a traceback
        # Tensors go through shared memory, and arrays through a pipe.
        tensors = {name: torch.from_numpy(array) for name, array in samples.arrays().items()}
        return {"replaced": [(bad.place, bad.reason, bad.by) for bad in samples.replaced], **tensors}


def _leave_signals(worker: int) -> None:
    """A wish to stop is the trainer's affair: a reader that ended at once would take the last checkpoint with it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _from_processes(
    stream: Stream, requests: Iterable[Request], workers: int, ahead: int, pin: bool
) -> Generator[Samples, None, None]:
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(
        _Requests(stream),  # pyright: ignore[reportArgumentType]
        batch_size=None,
        sampler=requests,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        prefetch_factor=ahead,
        pin_memory=pin,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals,
        multiprocessing_context="spawn",  # a fork would copy threads' locks and the GPU's context
        generator=torch.Generator(),  # else it draws from torch's own
    )
    batches = iter(loader)
    try:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, EOFError, OSError) as error:
                # A process that ends in the middle of handing over its batch is seen as a broken connection.
                ended = any(words in str(error) for words in ("exited unexpectedly", "killed by signal"))
                if isinstance(error, RuntimeError) and not ended:
                    raise
                raise UserError(
                    "A process that reads data was ended from outside (out of memory?). Start again, with fewer "
                    "data.read_workers or a smaller data.cache_mib."
                ) from None
            if isinstance(batch, str):
                raise UserError(batch)
            replaced = tuple(Replaced(*fields) for fields in batch.pop("replaced"))
            arrays: dict[str, np.ndarray] = {name: tensor.numpy() for name, tensor in batch.items()}
            yield Samples(**{"labels": None, **arrays}, replaced=replaced)  # pyright: ignore[reportArgumentType]
    finally:
        shut = getattr(batches, "_shutdown_workers", None)  # else they end when the iterator is collected
        if shut is not None:
            with suppress(RuntimeError):  # a process that aborts while it ends is no loss, and torch's handler raises
                shut()


def _as_it_is(batch: Any) -> Any:
    return batch
