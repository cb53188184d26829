from __future__ import annotations

import numpy as np

from advgen.data.components import connected_parts


def test_parts_are_numbered_label_by_label() -> None:
    labels = np.array([[0, 0, 5, 0], [5, 0, 0, 5], [0, 5, 0, 0], [5, 0, 0, 2]])
    # By hand: pixels that meet at a corner are not connected.
    expected = np.array([[1, 1, 5, 2], [6, 1, 1, 7], [3, 8, 1, 1], [9, 1, 1, 4]])
    found = connected_parts(labels)
    assert found.dtype == np.int32 and (found == expected).all()


def test_parts_agree_with_a_search() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(np.uint8)
    found = connected_parts(labels)
    number: dict[tuple[int, ...], int] = {}
    for start in np.ndindex(20, 30):
        if start in number:
            continue
        count, waiting = len(set(number.values())), [start]
        while waiting:
            y, x = waiting.pop()
            if (y, x) in number or not (0 <= y < 20 and 0 <= x < 30) or labels[y, x] != labels[start]:
                continue
            number[y, x] = count
            waiting += [(y + dy, x + dx) for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1))]
    pairs = {(number[place], int(found[place])) for place in number}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert sorted(b for _, b in pairs) == list(range(1, len(pairs) + 1))


def test_the_largest_id_of_eight_bits_is_a_label_like_others() -> None:
    labels = np.array([[255, 255], [0, 255]], np.uint8)
    assert (connected_parts(labels) == [[2, 2], [1, 2]]).all()
