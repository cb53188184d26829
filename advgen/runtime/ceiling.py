"""What the machine can do at best: rates of one large product, against which a step's are seen."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F


def ceiling(device: torch.device, precision: str) -> float:
    """FLOPs a second that a training can be held against: the better of both below, 0.2 s each.

    Args:
        device: whose.
        precision: of the training (:attr:`advgen.runtime.config.TrainingConfig.precision`).
    """
    dtype = torch.bfloat16 if precision == "bf16" else getattr(torch, precision)
    return max(matmul_ceiling(device, dtype), convolution_ceiling(device, dtype))


def matmul_ceiling(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """FLOPs a second of products of square matrices (1,024 on a CPU, 8,192 on a GPU), the best of some.

    Args:
        device: whose; with the threads, and the rounding of float32 factors (TF32), that torch is set to now.
        dtype: of the matrices.
        seconds: to go on for.
    """
    size = 8192 if device.type == "cuda" else 1024
    a = torch.ones(size, size, device=device, dtype=dtype)
    out = torch.empty_like(a)
    return 2 * size**3 / _best(lambda: torch.mm(a, a, out=out), device, seconds)


def convolution_ceiling(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """FLOPs a second of a 3x3 convolution that is easy on the machine, NHWC, the best of some.

    128 channels at 64 pixels, 4 images on a CPU; 512 channels, 64 images on a GPU.

    Args:
        device, dtype, seconds: as for :func:`matmul_ceiling`.
    """
    channels, images = (512, 64) if device.type == "cuda" else (128, 4)
    x = torch.ones(images, channels, 64, 64, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(channels, channels, 3, 3, device=device, dtype=dtype)
    weight = weight.contiguous(memory_format=torch.channels_last)
    flops = 2 * 9 * images * channels**2 * 64**2
    return flops / _best(lambda: F.conv2d(x, weight, padding=1), device, seconds)


@torch.no_grad()
def _best(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds that ``work`` takes when it is fastest."""

    def timed() -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    timed()  # loads code
    began, best = time.perf_counter(), timed()
    while time.perf_counter() - began < seconds:
        best = min(best, timed())
    return best
