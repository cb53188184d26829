from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from advgen.clock import Stopwatch
from advgen.data.parts import Samples
from advgen.errors import UserError
from advgen.game import Batch
from advgen.runtime.transfer import Transfer


def samples(count: int, asked: list[int], fails: bool) -> Iterator[Samples]:
    for number in range(count):
        asked.append(number)
        yield Samples(np.full((2, 3, 4, 4), number, np.uint8), np.array([number, 0]))
    if fails:
        raise UserError("the next shard is damaged")


def batch(given: Samples) -> Batch:
    assert given.labels is not None
    return Batch(torch.from_numpy(given.images).float(), torch.from_numpy(given.labels))


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_batches_and_errors_come_in_their_place(ahead: bool, fails: bool) -> None:
    asked: list[int] = []
    batches = Transfer(samples(3, asked, fails), batch, Batch.tensors, torch.device("cpu"), ahead)
    for number in range(3):
        found = next(batches)
        assert (found.images == number).all() and found.labels is not None and found.labels[0] == number
        assert len(asked) == min(number + (2 if ahead else 1), 3)
    with pytest.raises(UserError if fails else StopIteration):
        next(batches)


def test_only_waiting_for_data_counts_as_waiting() -> None:
    def slow() -> Iterator[Samples]:
        for each in samples(4, [], False):
            time.sleep(0.02)
            yield each

    def busy(given: Samples) -> Batch:
        time.sleep(0.01)
        return batch(given)

    watch, batches = Stopwatch(), Transfer(slow(), busy, Batch.tensors, torch.device("cpu"))
    for _ in range(4):
        watch.start()
        before = batches.waited
        next(batches)
        time.sleep(0.01)
        watch.add(2, batches.waited - before)
    assert 0.08 <= batches.waited <= watch.total - 0.08
    pace = watch.reading(every_seconds=0.1)
    assert pace is not None and pace.images_per_second == pytest.approx(8 / watch.total)
    assert pace.waited == pytest.approx(batches.waited / watch.total)
    assert watch.reading(every_seconds=0.0) is not None and watch.reading(every_seconds=0.1) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="streams need a CUDA device")
def test_a_cuda_stream_of_its_own_gives_the_same() -> None:
    device = torch.device("cuda")

    def copied(given: Samples) -> Batch:
        return Batch(torch.from_numpy(given.images).pin_memory().to(device, non_blocking=True).float())

    found = list(Transfer(samples(20, [], False), copied, Batch.tensors, device))
    assert [int(each.images.mean()) for each in found] == list(range(20))


def test_a_share_of_a_batch_holds_all_its_parts() -> None:
    whole = Batch(torch.arange(6.0).reshape(6, 1, 1, 1), torch.arange(6))
    share = whole.strided(1, 3)
    assert share.images.flatten().tolist() == [1, 4] and share.labels is not None and share.labels.tolist() == [1, 4]
    assert len(whole.tensors()) == 2 and len(Batch(whole.images).tensors()) == 1
