"""Reading ahead of what is computed of it, by as many threads as compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from typing import TypeVar

import torch

from advgen.data.decode import in_order

Item = TypeVar("Item")
Result = TypeVar("Result")

_FEWEST, _MOST = 2, 16
_BYTES = 2 << 30  # that the results of threads may take together
_PIXEL = 11  # bytes: three channels, and ids of a label and of an instance map


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], pixels: int
) -> AbstractContextManager[Iterator[Result]]:
    """``map(function, items)``, in order, called by threads ahead of use; as a context, which ends them.

    There are as many as torch computes with, which is this process's share of the cores, but 16 at most, and fewer for
    large results, which wait in memory: 2 GiB, or those of two threads. While a GPU computes they have nothing else to
    do, and a CPU shares itself out.

    Args:
        function: reads an item; it must not depend on others.
        items: are taken on the caller's thread. What one raises is raised where its result would have come.
        pixels: of a result's images together.
    """
    fit = _BYTES // (_PIXEL * max(1, pixels))
    threads = max(_FEWEST, min(_MOST, fit, torch.get_num_threads()))
    return closing(in_order(function, items, threads=threads, ahead=threads))
