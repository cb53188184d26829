"""What stands in a run folder, a checkpoint or a file of tensors; nothing is executed, and nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from advgen.errors import UserError
from advgen.runtime.checkpoint import COMPLETE, NETWORKS, STATE, StoredMoments, verify_checkpoint
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import read_yaml

Facts = dict[str, Any]


def inspect(place: Path) -> Facts:
    """Facts of a run folder, a checkpoint's folder or a ``.safetensors`` file, as JSON takes them.

    ``damaged`` is True if any checksum or file of it does not hold.

    Raises:
        UserError: it is none of these, or cannot be read at all.
    """
    if place.is_file() and place.suffix == ".safetensors":
        return {"kind": "file", "path": str(place), "damaged": False, **_file(place)}
    if (place / COMPLETE).is_file() or (place / STATE).is_file():
        return {"kind": "checkpoint", "path": str(place), **_checkpoint(place)}
    if (place / "config.yaml").is_file():
        return {"kind": "run", "path": str(place), **_run(RunFolder(place))}
    raise UserError(
        f"{place}: is no run folder, no checkpoint and no .safetensors file. Name one, such as runs/NAME or "
        "runs/NAME/checkpoints/000000064000."
    )


def _run(folder: RunFolder) -> Facts:
    config: Any = read_yaml(folder.config).values
    provenance = read_json(folder.provenance)
    folders = folder.checkpoints.iterdir() if folder.checkpoints.is_dir() else ()
    # Those without their mark of completion, too: nothing of ours leaves such a folder under a checkpoint's name.
    checkpoints = [_brief(path) for path in sorted(folders) if path.name.isdecimal() and path.is_dir()]
    records = list(read_records(folder.log))
    metrics = [r for r in read_records(folder.metrics) if r.get("checkpoint") is not None]
    newest = max((record["nimg"] for record in metrics), default=None)
    last = records[-1] if records else {}
    rates = [record["images_per_second"] for record in records if record["kind"] == "rate"]
    return {
        "name": config.get("name"),
        "game": config.get("game", {}).get("kind"),
        "seed": config.get("seed", 0),
        "data": provenance.get("manifest"),
        "commit": provenance.get("commit"),
        "device": provenance.get("device"),
        "world_size": provenance.get("world_size"),
        "nimg": last.get("nimg", 0),
        "phase": last.get("phase"),
        "images_per_second": rates[-1] if rates else None,
        "checkpoints": checkpoints,
        "metrics": [record for record in metrics if record["nimg"] == newest],
        "damaged": any(brief["problem"] for brief in checkpoints),
    }


def _brief(path: Path) -> Facts:
    """A checkpoint in one line."""
    parts = list(path.glob("optimizers-*.safetensors"))
    facts: Facts = {
        "path": str(path),
        "nimg": int(path.name) if path.name.isdecimal() else None,
        "bytes": sum(file.stat().st_size for file in path.iterdir()),
        "ranks": len(parts),
        "ended": None,
        "problem": None,
    }
    try:
        verify_checkpoint(path)
        facts["ended"] = json.loads((path / STATE).read_text())["ended"]
    except UserError as error:
        facts["problem"] = str(error)
    return facts


def _checkpoint(path: Path) -> Facts:
    facts = _brief(path)
    networks: dict[str, list[Facts]] = {}
    moments: dict[str, Facts] = {}
    if facts["problem"] is None:
        for row in _tensors(path / NETWORKS):
            networks.setdefault(row["name"].partition(".")[0], []).append(row)
        stored = StoredMoments(path)
        for name in stored.names():
            player, _, rest = name.partition("/")
            moment = rest.rpartition("/")[2]
            about = moments.setdefault(player, {"tensors": 0, "values": 0, "steps": []})
            if moment == "step":
                about["steps"] = sorted({*about["steps"], int(stored.read(name).item())})
            else:
                about["tensors"] += 1
                about["values"] += stored.read(name).numel()
        state = json.loads((path / STATE).read_text())
        facts |= {"clock": state["clock"], "about": state["about"]}
    return {
        **facts,
        "networks": {name: _together(rows) for name, rows in networks.items()},
        "moments": moments,
        "damaged": facts["problem"] is not None,
    }


def _together(rows: Iterable[Facts]) -> Facts:
    rows = list(rows)
    return {
        "tensors": len(rows),
        "values": sum(row["values"] for row in rows),
        "largest": max(row["largest"] for row in rows),
        "not_finite": sum(row["not_finite"] for row in rows),
    }


def _file(path: Path) -> Facts:
    rows = list(_tensors(path))
    with safe_open(path, framework="pt") as file:
        metadata: Mapping[str, str] = file.metadata() or {}
    return {"bytes": path.stat().st_size, "metadata": dict(metadata), "tensors": rows}


def _tensors(path: Path) -> Iterator[Facts]:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield {"name": name, **_statistics(file.get_tensor(name))}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error}). It is damaged, or something else.") from None


def _statistics(tensor: Tensor) -> Facts:
    values = tensor.double().flatten()
    finite = values[torch.isfinite(values)]
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "values": tensor.numel(),
        "mean": finite.mean().item() if len(finite) else None,
        "deviation": finite.std(correction=0).item() if len(finite) else None,
        "largest": finite.abs().max().item() if len(finite) else 0.0,
        "not_finite": tensor.numel() - len(finite),
    }


def read_json(path: Path) -> Facts:
    """A JSON object; an empty one where there is no file.

    Raises:
        UserError: it is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if isinstance(found, dict):
            return found
        reason = "no object"
    except ValueError as error:
        reason = str(error)
    raise UserError(f"{path}: is not JSON as a run writes it ({reason}). Remove it; nothing else depends on it.")


def read_records(path: Path) -> Iterator[Facts]:
    """Lines of a log; a last one that a killed run has written half is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            yield json.loads(line)
        except ValueError:
            return
