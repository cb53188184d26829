"""Rows that networks make of numbers, drawn so that each depends on its own number alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

CHUNK = 16
"""Rows that are drawn at a time, whatever is asked for."""


def in_chunks(draw: Callable[[range], Tensor], numbers: range) -> Iterator[Tensor]:
    """Rows of consecutive numbers, drawn in whole chunks that begin at multiples of :data:`CHUNK`.

    Kernels round otherwise for other batch sizes: between batches of 1 and of 16, one picture in ten of a small
    ProGAN had a byte that differed. In such chunks row i depends on i alone, and not on what else is drawn.

    Args:
        draw: rows of :data:`CHUNK` numbers.
        numbers: consecutive ones, not negative.
    """
    for start in range(numbers.start - numbers.start % CHUNK, numbers.stop, CHUNK):
        rows = draw(range(start, start + CHUNK))
        yield rows[max(numbers.start - start, 0) : numbers.stop - start]
