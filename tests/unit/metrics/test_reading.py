"""How many threads read ahead, and that all of them end."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from advgen.metrics.reading import read_ahead


@pytest.mark.parametrize(
    ("computing", "pixels", "most"),
    [(1, 64, 2), (5, 64, 5), (64, 64, 16), (64, 64 * 512**2, 11), (64, 128 * 1024**2, 2), (64, 0, 16)],
)
def test_as_many_as_compute_and_as_memory_holds(
    computing: int, pixels: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: computing)
    at_once, lock, reading = [0], threading.Lock(), 0

    def read(item: int) -> int:
        nonlocal reading
        with lock:
            reading += 1
            at_once.append(reading)
        time.sleep(0.05)
        with lock:
            reading -= 1
        return item * item

    with read_ahead(read, range(60), pixels) as results:
        assert list(results) == [item * item for item in range(60)]
    assert max(at_once) == most


def test_who_leaves_early_leaves_no_thread() -> None:
    before = threading.active_count()
    taken: list[int] = []

    def read(item: int) -> int:
        taken.append(item)
        if item == 3:
            raise ValueError("no such item")
        return item

    with read_ahead(read, range(1000), 1) as results:
        assert next(results) == 0
    assert threading.active_count() == before and len(taken) < 10
    with pytest.raises(ValueError, match="no such item"), read_ahead(read, range(1000), 1) as results:
        list(results)
    assert threading.active_count() == before
