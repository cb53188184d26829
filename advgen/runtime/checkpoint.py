"""Checkpoints: whole or not there, no pickle, tensors by name.

A checkpoint is a folder ``checkpoints/<nimg>`` with ``networks.safetensors`` (parameters, buffers and
averages), ``optimizers.safetensors`` (moments by player and parameter), ``state.json`` (the clock and what the
run was) and, written last, ``complete.json`` with the others' SHA-256. It is made under a temporary name,
synced, and renamed. ``latest`` names the newest one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from advgen.clock import Clock
from advgen.errors import UserError
from advgen.files import sha256, sync_file, sync_folder, write_json, write_text

NETWORKS, OPTIMIZERS, STATE, COMPLETE = "networks.safetensors", "optimizers.safetensors", "state.json", "complete.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything from which a run goes on.

    Attributes:
        clock: where it stands.
        networks: parameters, buffers and averages as ``"<network>.<path>"``.
        optimizers: moments as ``"<player>/<parameter>/<moment>"``.
        about: what the run was: its method's configuration, the data's digest, versions.
        logs: length in bytes of each log file at this point; what comes later is cut off on resume.
        ended: index of the phase that ended here, or -1 for the beginning; None within a phase.
    """

    clock: Clock
    networks: Mapping[str, Tensor]
    optimizers: Mapping[str, Tensor]
    about: Mapping[str, Any]
    logs: Mapping[str, int]
    ended: int | None = None


def name_of(nimg: int) -> str:
    """Folder name of a checkpoint; names sort as numbers."""
    return f"{nimg:012d}"


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint below ``folder`` and point ``latest`` to it; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / name_of(checkpoint.clock.nimg)
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, tensors in ((NETWORKS, checkpoint.networks), (OPTIMIZERS, checkpoint.optimizers)):
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, temporary / name)
            sync_file(temporary / name)
        state = {
            "clock": asdict(checkpoint.clock),
            "about": checkpoint.about,
            "logs": checkpoint.logs,
            "ended": checkpoint.ended,
        }
        write_json(temporary / STATE, state)
        write_json(temporary / COMPLETE, {name: sha256(temporary / name) for name in (NETWORKS, OPTIMIZERS, STATE)})
        if final.exists():  # a resumed run comes by the same place again with the same content
            _remove(final)
        os.replace(temporary, final)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_text(folder / "latest", final.name + "\n")
    return final


def read_checkpoint(path: Path, device: str = "cpu") -> Checkpoint:
    """Read a checkpoint, its checksums compared.

    Raises:
        UserError: it is none, is incomplete or damaged.
    """
    try:
        sums = json.loads((path / COMPLETE).read_text())
        for name in (NETWORKS, OPTIMIZERS, STATE):
            if sha256(path / name) != sums[name]:
                raise UserError(f"{path / name}: is damaged (its checksum differs). {_WAY_OUT}")
        state = json.loads((path / STATE).read_text())
        return Checkpoint(
            clock=Clock(**state["clock"]),
            networks=load_file(path / NETWORKS, device=device),
            optimizers=load_file(path / OPTIMIZERS, device=device),
            about=state["about"],
            logs=state["logs"],
            ended=state["ended"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{path}: is not a complete checkpoint ({error}). {_WAY_OUT}") from None


_WAY_OUT = "Remove this folder to go on from the checkpoint before it."


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints below ``folder``, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.isdecimal() and (path / COMPLETE).is_file())


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; ``latest`` may lag behind it by one if the run was killed in between."""
    found = list_checkpoints(folder)
    return found[-1] if found else None


def read_about(path: Path) -> Mapping[str, Any]:
    """What the run of a checkpoint was.

    Raises:
        UserError: its state cannot be read.
    """
    return _state(path)["about"]


def phase_ended(path: Path) -> int | None:
    """Index of the phase that ended at a checkpoint (-1: the beginning), None within a phase.

    Raises:
        UserError: its state cannot be read.
    """
    return _state(path)["ended"]


def _state(path: Path) -> Mapping[str, Any]:
    try:
        state = json.loads((path / STATE).read_text())
        return {"about": state["about"], "ended": state["ended"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path / STATE}: is damaged ({error}). {_WAY_OUT}") from None


def _remove(path: Path) -> None:
    """Remove a checkpoint; a kill in between leaves no half of it under its name."""
    doomed = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints and those at phase ends, and what a killed run left half."""
    found = list_checkpoints(folder)
    for path in [path for path in found if phase_ended(path) is None][:-keep]:
        _remove(path)
    for path in folder.glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def restore_networks(networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Load networks from tensors named ``"<network>.<path>"``; every name must be there.

    Raises:
        UserError: names or shapes differ.
    """
    for name, network in networks.items():
        prefix = f"{name}."
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            raise UserError(
                f"The checkpoint does not fit the recipe's network '{name}': {str(error).splitlines()[-1].strip()} "
                "Was config.yaml edited? Set it back."
            ) from None


def check_same_run(folder: Path, about: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint of another method or other data.

    Args:
        folder: of checkpoints.
        about: what the run that is to go on is.

    Raises:
        UserError: names every setting that differs, then and now.
    """
    path = latest_checkpoint(folder)
    if path is None:
        return
    stored = read_about(path)
    differing = sorted(key for key in {*stored, *about} if stored.get(key) != about.get(key))
    if differing:
        rows = [f"  {key}: {stored.get(key)!r} then, {about.get(key)!r} now" for key in differing]
        raise UserError(
            f"{path}: this checkpoint was made by another recipe:\n" + "\n".join(rows) + "\n"
            "Set these back, or give the recipe another name to begin a new run."
        )
