"""Stands for a context's noise: numbers that a test has chosen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class FixedNoise:
    """Gives the array [n, k] of a purpose's last word; another purpose is an error."""

    def __init__(self, uniform: Mapping[str, np.ndarray], normal: Mapping[str, np.ndarray] | None = None) -> None:
        self._uniform, self._normal = uniform, normal or {}

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        return torch.from_numpy(self._uniform[purpose.rpartition("/")[2]]).reshape(-1, *shape)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        return torch.from_numpy(self._normal[purpose.rpartition("/")[2]]).reshape(-1, *shape)
