"""Real images of an evaluation are read ahead of their use, in order, and no further once nobody wants them."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from advgen.data.parts import Samples
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.ranks import GROUP, Alone
from advgen.metrics.reals import Reals

COUNT = 8 * GROUP


class Stream:
    """Grey images whose pixels are their number; tells when each batch is asked for."""

    def __init__(self) -> None:
        self.asked = [threading.Event() for _ in range(COUNT // GROUP)]

    def __len__(self) -> int:
        return COUNT

    def fetch(self, indices: NDArray[np.int64], level: int | None = None) -> Samples:
        self.asked[int(indices[0]) // GROUP].set()
        values = (indices % 256).astype(np.uint8)
        return Samples(values.repeat(3 * 4 * 4).reshape(-1, 3, 4, 4), labels=None)


def reals(stream: Stream) -> Reals:
    config = EvaluationConfig(batch_size=GROUP)
    return Reals(cast(Any, stream), COUNT, config, torch.device("cpu"), labelled=False, ranks=Alone())


def test_the_next_batch_is_read_while_one_is_looked_at() -> None:
    stream, seen = Stream(), 0
    for pictures in reals(stream).pictures(4):
        assert pictures.first == seen
        assert pictures.images[:, 0, 0, 0].tolist() == [number % 256 for number in range(seen, seen + GROUP)]
        following = stream.asked[seen // GROUP + 1 :][:1]
        assert all(event.wait(30) for event in following)
        seen += len(pictures)
    assert seen == COUNT


def test_nothing_is_read_once_nobody_looks() -> None:
    stream, before = Stream(), threading.active_count()
    pictures = reals(stream).pictures(4)
    next(pictures)
    pictures.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert threading.active_count() == before
    assert not stream.asked[-1].is_set()
