"""Networks that a user names as TorchScript files: judges, features, distances.

Such a file holds code; name none that you do not trust.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advgen import files
from advgen.errors import UserError
from advgen.metrics.features import Identity


def load_torchscript(path: Path) -> tuple[nn.Module, Identity]:
    """A network and its identity.

    Raises:
        UserError: there is no such file, or it is no TorchScript.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. Name a TorchScript file (torch.jit.save).")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)  # will be replaced one day
            network = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError):
        raise UserError(
            f"{path}: is no TorchScript, or damaged. Save the network with torch.jit.save(torch.jit.script(network), "
            "path); a state dict or a whole pickled network is not enough."
        ) from None
    return network, {"name": "torchscript", "sha256": files.sha256(path)}


def called(network: nn.Module, source: str, given: str, *tensors: Tensor) -> Any:
    """What a user's network gives.

    Args:
        network: it.
        source: its file, for messages.
        given: what the tensors are, for messages, such as ``float32 [4, 3, 64, 64] in [0, 1]``.
        tensors: its arguments.

    Raises:
        UserError: it fails, other than for want of memory.
    """
    try:
        return network(*tensors)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1:] or ["no reason given"]
        raise UserError(f"{source}: fails on images, given as {given} ({said[0]}). Name one that takes them.") from None


def shape_of(found: object) -> str:
    """A shape, or the type of what is no tensor, for messages."""
    return str(list(found.shape)) if isinstance(found, Tensor) else type(found).__name__
