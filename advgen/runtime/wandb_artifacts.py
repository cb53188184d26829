"""W&B artifacts: checkpoints and what they were made of, as references to where they lie or as the files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from advgen.files import sha256
from advgen.runtime.checkpoint import COMPLETE
from advgen.runtime.tracking import Subject

if TYPE_CHECKING:
    from wandb import Artifact

Kind = Literal["references", "files"]


def checkpoint_artifact(subject: Subject, identity: str, path: Path, kind: Kind) -> Artifact:
    """A checkpoint of a run; equal ones are one artifact to W&B.

    Args:
        subject: the run.
        identity: its W&B id.
        path: the checkpoint's folder.
        kind: references cost no reading of large files; the checkpoint's sums stand in the metadata.
    """
    import wandb

    metadata = {"run": subject.name, "nimg": int(path.name), "sha256": sha256(path / COMPLETE)}
    artifact = wandb.Artifact(f"checkpoint-{identity}", "model", metadata=metadata)
    _fill(artifact, path, kind)
    return artifact


def inputs(subject: Subject, kind: Kind) -> Iterator[Artifact]:
    """What a run was made of: the manifest of its shards, and the checkpoint that it began with."""
    import wandb

    session = json.loads((subject.folder / "run.json").read_text())
    train = subject.recipe["data"].get("train")
    if train is not None:
        manifest = wandb.Artifact("shards", "dataset", metadata={"digest": session.get("manifest")})
        place = str(without_keys(train["shards"]))
        if "://" in place:
            manifest.add_reference(f"{place.rstrip('/')}/manifest.json", checksum=False)
        else:
            _fill(manifest, Path(place) / "manifest.json", kind)
        yield manifest
    if (parent := session.get("parent")) is not None:
        path = Path(parent["checkpoint"])
        if parent["wandb_id"] is not None and path.is_dir():
            source = Subject(path.parents[1], parent["run"], {})
            yield checkpoint_artifact(source, parent["wandb_id"], path, kind)


def without_keys(value: Any, name: str = "") -> Any:
    """Plain values without a store's options, and addresses without user, password and query."""
    if isinstance(value, Mapping):
        return {key: "..." if name == "options" else without_keys(each, str(key)) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_keys(each) for each in value]
    if isinstance(value, str) and "://" in value:
        parts = urlsplit(value)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return value


def _fill(artifact: Artifact, path: Path, kind: Kind) -> None:
    if kind == "references":
        # Without a sum W&B knows an artifact by its address only: enough for a checkpoint, not for a manifest.
        artifact.add_reference(path.resolve().as_uri(), name=path.name, checksum=path.is_file())
    elif path.is_dir():
        artifact.add_dir(str(path))
    else:
        artifact.add_file(str(path))
