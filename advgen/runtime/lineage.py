"""Runs that begin with the weights of another one: which it was, and how its weights are taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from advgen.errors import UserError
from advgen.files import sha256
from advgen.runtime.checkpoint import COMPLETE, find_checkpoint, read_checkpoint, restore_networks
from advgen.runtime.run_folder import RunFolder


def parent_of(init_from: str) -> dict[str, Any]:
    """What ``run.json`` says of the run that another one begins with.

    Args:
        init_from: ``RUN@NIMG``, as the configuration has seen to.

    Raises:
        UserError: no such run or checkpoint.
    """
    place, _, nimg = init_from.rpartition("@")
    folder = RunFolder(Path(place)).require()
    path = find_checkpoint(folder.path, folder.checkpoints, int(nimg)).resolve()
    identity = folder.path / "wandb-id"
    return {
        "run": folder.path.resolve().name,
        "nimg": int(nimg),
        "checkpoint": str(path),
        "checkpoint_sha256": sha256(path / COMPLETE),
        "wandb_id": identity.read_text().strip() if identity.is_file() else None,
    }


def weights_of(parent: Mapping[str, Any]) -> Callable[[Mapping[str, nn.Module]], None]:
    """What loads a parent's networks and averages into those of a run; it raises a UserError where they do not fit."""
    path = Path(parent["checkpoint"])

    def load(networks: Mapping[str, nn.Module]) -> None:
        stored = read_checkpoint(path).networks
        shapes = {name: tuple(tensor.shape) for name, tensor in stored.items()}
        for network, module in networks.items():
            for key, tensor in module.state_dict().items():
                name = f"{network}.{key}"
                if shapes.get(name) != tuple(tensor.shape):
                    raise UserError(
                        f"init_from: {path}: '{name}' is {shapes.get(name, 'missing')} there and "
                        f"{tuple(tensor.shape)} in this recipe. Give the recipe the networks of that run."
                    )
        restore_networks(networks, stored)

    return load
