"""Checkpoints: whole or not there, no pickle, tensors by name, whatever engine and number of ranks wrote them.

A checkpoint is a folder ``checkpoints/<nimg>`` with ``networks.safetensors`` (parameters, buffers and averages),
``optimizers-RRRRR-of-NNNNN.safetensors`` (each rank's moments by player and parameter: whole tensors, or flat
ranges named ``...@start``), ``state.json`` (the clock and what the run was) and, written last, ``complete.json``
with the others' SHA-256. It is made under a temporary name, synced, and renamed. ``latest`` names the newest.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from advgen.clock import Clock
from advgen.errors import UserError
from advgen.files import sha256, sync_file, sync_folder, write_json, write_text
from advgen.runtime.engine import Piece

NETWORKS, STATE, COMPLETE = "networks.safetensors", "state.json", "complete.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything from which a run goes on, but the moments (:class:`StoredMoments`).

    Attributes:
        clock: where it stands.
        networks: parameters, buffers and averages as ``"<network>.<path>"``.
        about: what the run was: its method's configuration, the data's digest, versions.
        logs: length in bytes of each log file at this point; what comes later is cut off on resume.
        ended: index of the phase that ended here, or -1 for the beginning; None within a phase.
    """

    clock: Clock
    networks: Mapping[str, Tensor]
    about: Mapping[str, Any]
    logs: Mapping[str, int]
    ended: int | None = None


def name_of(nimg: int) -> str:
    """Folder name of a checkpoint; names sort as numbers."""
    return f"{nimg:012d}"


def part_name(rank: int, size: int) -> str:
    """File name of a rank's moments."""
    return f"optimizers-{rank:05d}-of-{size:05d}.safetensors"


def temporary_of(folder: Path, nimg: int) -> Path:
    """Where the ranks write a checkpoint's files before it takes its name."""
    return folder / f".{name_of(nimg)}.tmp"


def write_part(temporary: Path, rank: int, size: int, pieces: Mapping[str, Piece]) -> str:
    """Write one rank's moments; returns the file's SHA-256."""
    temporary.mkdir(parents=True, exist_ok=True)
    shapes = {name: list(piece.shape) for name, piece in pieces.items() if piece.shape is not None}
    tensors = {
        name if piece.shape is None else f"{name}@{piece.start}": piece.values.detach().cpu().contiguous()
        for name, piece in pieces.items()
    }
    path = temporary / part_name(rank, size)
    save_file(tensors, path, metadata={"shapes": json.dumps(shapes, sort_keys=True)})
    sync_file(path)
    return sha256(path)


def finish_checkpoint(folder: Path, checkpoint: Checkpoint, parts: list[str]) -> Path:
    """Write the rest beside the ranks' parts (their checksums, in order), and give the checkpoint its name."""
    final, temporary = folder / name_of(checkpoint.clock.nimg), temporary_of(folder, checkpoint.clock.nimg)
    networks = {key: tensor.detach().cpu().contiguous() for key, tensor in checkpoint.networks.items()}
    save_file(networks, temporary / NETWORKS)
    sync_file(temporary / NETWORKS)
    state = {
        "clock": asdict(checkpoint.clock),
        "about": checkpoint.about,
        "logs": checkpoint.logs,
        "ended": checkpoint.ended,
    }
    write_json(temporary / STATE, state)
    sums = {name: sha256(temporary / name) for name in (NETWORKS, STATE)}
    sums |= {part_name(rank, len(parts)): digest for rank, digest in enumerate(parts)}
    write_json(temporary / COMPLETE, sums)
    if final.exists():  # a resumed run comes by the same place again with the same content
        _remove(final)
    os.replace(temporary, final)
    sync_folder(folder)
    write_text(folder / "latest", final.name + "\n")
    return final


def write_checkpoint(folder: Path, checkpoint: Checkpoint, pieces: Mapping[str, Piece]) -> Path:
    """Write a checkpoint of one process below ``folder`` and point ``latest`` to it; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(folder, checkpoint.clock.nimg)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        return finish_checkpoint(folder, checkpoint, [write_part(temporary, 0, 1, pieces)])
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class StoredMoments:
    """The optimizers' tensors in a checkpoint, put together from the ranks' parts as they are asked for."""

    def __init__(self, path: Path) -> None:
        self._whole: dict[str, Path] = {}
        self._ranges: dict[str, list[tuple[int, Path]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file in sorted(path.glob("optimizers-*.safetensors")):
            with safe_open(file, framework="pt") as part:
                shapes = json.loads((part.metadata() or {}).get("shapes", "{}"))
                self._shapes.update({name: tuple(shape) for name, shape in shapes.items()})
                for key in part.keys():  # noqa: SIM118 - not a mapping
                    name, at, start = key.rpartition("@")
                    if at and name in shapes:
                        self._ranges.setdefault(name, []).append((int(start), file))
                    else:
                        self._whole[key] = file
        for ranges in self._ranges.values():
            ranges.sort()

    def names(self) -> Iterable[str]:
        """``"<player>/<parameter>/<moment>"``, sorted."""
        return sorted((*self._whole, *self._ranges))

    def tensors(self) -> dict[str, Tensor]:
        """All of them, whole."""
        return {name: self.read(name) for name in self.names()}

    def read(self, name: str) -> Tensor:
        """A whole tensor, on the CPU."""
        if name in self._whole:
            with safe_open(self._whole[name], framework="pt") as part:
                return part.get_tensor(name)
        shape = self._shapes[name]
        return self.read_range(name, 0, torch.Size(shape).numel()).reshape(shape)

    def read_range(self, name: str, start: int, count: int) -> Tensor:
        """``count`` values of the flat tensor from ``start``, on the CPU; reads only the parts that hold them."""
        if name in self._whole:
            return self.read(name).flatten()[start : start + count]
        found: list[Tensor] = []
        for begin, file in self._ranges[name]:
            if begin >= start + count:
                break
            with safe_open(file, framework="pt") as part:
                stored = part.get_slice(f"{name}@{begin}")
                length = stored.get_shape()[0]
                if begin + length > start:
                    found.append(stored[max(start - begin, 0) : min(start + count - begin, length)])
        return torch.cat(found)


def read_checkpoint(path: Path, verify: bool = True) -> Checkpoint:
    """Read a checkpoint, its checksums compared.

    Raises:
        UserError: it is none, is incomplete or damaged.
    """
    try:
        if verify:
            verify_checkpoint(path)
        state = json.loads((path / STATE).read_text())
        return Checkpoint(
            clock=Clock(**state["clock"]),
            networks=load_file(path / NETWORKS),
            about=state["about"],
            logs=state["logs"],
            ended=state["ended"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{path}: is not a complete checkpoint ({error}). {_WAY_OUT}") from None


def verify_checkpoint(path: Path) -> None:
    """Compare the checksums of all files.

    Raises:
        UserError: it is none, is incomplete or damaged.
    """
    try:
        sums: dict[str, str] = json.loads((path / COMPLETE).read_text())
        missing = {NETWORKS, STATE} - sums.keys()
        if missing or not any(name.startswith("optimizers-") for name in sums):
            raise ValueError(f"{COMPLETE} names too few files")
        for name, digest in sums.items():
            if sha256(path / name) != digest:
                raise UserError(f"{path / name}: is damaged (its checksum differs). {_WAY_OUT}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is not a complete checkpoint ({error}). {_WAY_OUT}") from None


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose checksums hold, and what is wrong with newer ones."""
    wrong: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            verify_checkpoint(path)
            return path, wrong
        except UserError as error:
            wrong.append(str(error))
    return None, wrong


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


def lasting_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that are not removed in their turn, oldest first: those at phase ends, and the newest.

    An older one whose state cannot be read (it is damaged, or just being removed) is none of them.
    """
    found = list_checkpoints(folder)
    lasting: list[Path] = []
    for path in found[:-1]:
        with suppress(UserError):
            if phase_ended(path) is not None:
                lasting.append(path)
    return [*lasting, *found[-1:]]


def find_checkpoint(run: Path, folder: Path, nimg: int | None) -> Path:
    """A complete checkpoint.

    Args:
        run: the run's folder, for messages.
        folder: of its checkpoints.
        nimg: images seen at it; None for the newest.

    Raises:
        UserError: there is none, or none of so many images; the others are named.
    """
    found = list_checkpoints(folder)
    if not found:
        raise UserError(f"{run}: has no checkpoint to draw from. Train it first: `advgen train RECIPE`.")
    if nimg is None:
        return found[-1]
    known = {int(path.name): path for path in found}
    if nimg not in known:
        raise UserError(f"{run}: has no checkpoint of {nimg} images. There are those of {', '.join(map(str, known))}.")
    return known[nimg]


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


def read_clock(path: Path) -> Clock:
    """Where a checkpoint stands.

    Raises:
        UserError: its state cannot be read.
    """
    return _state(path)["clock"]


def _state(path: Path) -> Mapping[str, Any]:
    try:
        state = json.loads((path / STATE).read_text())
        return {"about": state["about"], "ended": state["ended"], "clock": Clock(**state["clock"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path / STATE}: is damaged ({error}). {_WAY_OUT}") from None


def _remove(path: Path) -> None:
    """Remove a checkpoint; a kill in between leaves no half of it under its name."""
    doomed = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def spaced(found: Iterable[Path], every: int) -> set[str]:
    """Names of the first checkpoints at or after each multiple of so many images, of those found, oldest first."""
    marks: dict[int, str] = {}
    for path in found:
        marks.setdefault(int(path.name) // every, path.name)
    return set(marks.values())


def prune_checkpoints(folder: Path, keep: int, every: int | None = None, best: int | None = None) -> None:
    """Remove checkpoints by rule. What other ranks may be writing by now is left alone.

    Args:
        folder: of checkpoints.
        keep: how many of the newest stay, besides those at phase ends.
        every: of checkpoints, the first at or after each multiple of so many images stays.
        best: images seen at one more that stays.
    """
    found = list_checkpoints(folder)
    within = [path for path in found if phase_ended(path) is None]
    spared = {name_of(best)} if best is not None else set()
    if every is not None:
        spared |= spaced(found, every)
    for path in within[:-keep]:
        if path.name not in spared:
            _remove(path)


def sweep(folder: Path) -> None:
    """Remove what a killed run left half; only while no rank writes."""
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
    for path in reversed(list_checkpoints(folder)):
        try:
            stored = read_about(path)
            break
        except UserError:  # the trainer passes over it, and says so
            continue
    else:
        return
    differing = sorted(key for key in {*stored, *about} if stored.get(key) != about.get(key))
    if differing:
        rows = [f"  {key}: {stored.get(key)!r} then, {about.get(key)!r} now" for key in differing]
        raise UserError(
            f"{path}: this checkpoint was made by another recipe:\n" + "\n".join(rows) + "\n"
            "Set these back, or give the recipe another name to begin a new run."
        )
