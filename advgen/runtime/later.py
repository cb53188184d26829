"""Values that the host asks the device for, without keeping the device waiting."""

from __future__ import annotations

import torch
from torch import Tensor


class Later:
    """A number on its way from the device to the host.

    Asked for at once it would have the host wait until the device has nothing left to do. Asked for one update later it
    is there already, and the device has the work of that update before it.
    """

    def __init__(self, value: Tensor) -> None:
        """
        Args:
            value: of one element, on any device.
        """
        self._there = value.detach().to("cpu", non_blocking=True)  # from a GPU into page-locked memory
        self._arrived = torch.cuda.Event() if value.device.type == "cuda" else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(value.device))

    def get(self) -> float:
        """The number; waits for it, and for nothing that was asked of the device after it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._there.item()
