"""Where half precision is not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay as they are."""
    import torch

    return x.to(torch.promote_types(x.dtype, torch.float32))


def lowered(x: Tensor) -> Tensor:
    """In the precision of autocast where it is on, as torch's own convolutions take their tensors."""
    import torch

    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
