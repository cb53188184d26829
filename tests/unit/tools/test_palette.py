"""Colours of classes are told apart, and stay when classes are added."""

from __future__ import annotations

import numpy as np
import pytest

from advgen.tools.palette import colours, oklab


@pytest.mark.parametrize(("count", "least"), [(3, 0.13), (12, 0.09), (35, 0.09), (256, 0.03)])
def test_any_two_are_apart(count: int, least: float) -> None:
    places = oklab(np.array(colours(count)))
    between = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert between[~np.eye(count, dtype=bool)].min() > least


def test_a_class_has_one_colour_however_many_there_are() -> None:
    many = colours(256)
    assert all(colours(count) == many[:count] for count in (1, 12, 13, 40))
    assert all(0 <= value <= 255 for colour in many for value in colour)


def test_oklab_of_known_colours() -> None:
    # Ottosson's reference values for sRGB white and red.
    found = oklab(np.array([[255, 255, 255], [255, 0, 0]]))
    assert np.allclose(found, [[1, 0, 0], [0.62796, 0.22486, 0.12585]], atol=1e-4)
