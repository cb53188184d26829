"""Batches on their way to the device: the next one is copied while one is used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from advgen.data.parts import Samples
from advgen.runtime.profiler import DATA_WAIT, label

Batch = TypeVar("Batch")


class Transfer(Generic[Batch]):
    """An iterator of what ``make`` makes of each batch.

    On CUDA it is made one batch ahead, in a stream of its own, so that copies from page-locked memory and what follows
    them overlap with the step. Elsewhere a batch is made when it is asked for. An error of the source is raised where
    its batch would have come.

    Attributes:
        waited: seconds spent waiting for the source, in all.
    """

    def __init__(
        self,
        source: Iterator[Samples],
        make: Callable[[Samples], Batch],
        tensors: Callable[[Batch], list[Tensor]],
        device: torch.device,
        ahead: bool | None = None,
    ) -> None:
        """
        Args:
            source: batches in the host's memory.
            make: copies one to the device.
            tensors: those of a batch that lie on the device.
            device: of the step.
            ahead: make each batch before it is asked for; None where the device is CUDA.
        """
        self._source, self._make, self._tensors = source, make, tensors
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead = self._stream is not None if ahead is None else ahead
        self._next: tuple[Batch | None, Exception | None] | None = None
        self.waited = 0.0

    def __iter__(self) -> Transfer[Batch]:
        return self

    def __next__(self) -> Batch:
        batch, error = self._next if self._next is not None else self._made()
        if error is not None:
            raise error
        assert batch is not None
        if self._stream is not None:
            current = torch.cuda.current_stream(self._stream.device)
            current.wait_stream(self._stream)
            for tensor in self._tensors(batch):
                tensor.record_stream(current)  # its memory was the side stream's, and may not be used anew too soon
        if self._ahead:
            self._next = self._made()
        return batch

    def _made(self) -> tuple[Batch | None, Exception | None]:
        side: AbstractContextManager[Any] = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        try:
            with side:
                began = time.perf_counter()
                with label(DATA_WAIT):
                    samples = next(self._source)
                self.waited += time.perf_counter() - began
                with label("data/copy"):
                    return self._make(samples), None
        except Exception as error:  # StopIteration among them
            return None, error
