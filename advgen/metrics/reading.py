"""Reading ahead of what is computed of it, by as many threads as compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from typing import TypeVar

import torch

from advgen.data.decode import in_order

Item = TypeVar("Item")
Result = TypeVar("Result")

_FEWEST, _MOST = 2, 16  # each may hold a batch in memory


def read_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> AbstractContextManager[Iterator[Result]]:
    """``map(function, items)``, in order, called by threads ahead of use; as a context, which ends them.

    There are as many as torch computes with, which is this process's share of the cores: while a GPU computes they
    have nothing else to do, and a CPU shares itself out.

    Args:
        function: reads an item; it must not depend on others.
        items: are taken on the caller's thread. What one raises is raised where its result would have come.
    """
    threads = min(_MOST, max(_FEWEST, torch.get_num_threads()))
    return closing(in_order(function, items, threads=threads, ahead=threads))
