"""How a GPU's kernels are chosen: exact or fast, by rule or by trial."""

from __future__ import annotations

import os

import torch
from torch.utils import deterministic

from advgen.runtime.config import TrainingConfig


def choose_kernels(config: TrainingConfig) -> None:
    """Tell torch, for this process and before its first work on a GPU.

    TF32 goes by torch's older names: torch.compile reads those, and torch refuses to read what the newer ones have set.
    """
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    repeatable = config.algorithms == "deterministic"
    torch.backends.cudnn.benchmark = config.algorithms == "benchmark"
    torch.backends.cudnn.deterministic = repeatable
    # An operation that has no such kernel is named in a warning, and not refused.
    torch.use_deterministic_algorithms(repeatable, warn_only=True)
    # What is read before it is written would be a defect here, and none to hide.
    deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    if repeatable:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def one_device(config: TrainingConfig) -> torch.device:
    """Where a process computes by itself, as for an evaluation; its kernels are chosen, too."""
    choose_kernels(config)
    return torch.device("cuda" if torch.cuda.is_available() and config.device == "auto" else "cpu")
