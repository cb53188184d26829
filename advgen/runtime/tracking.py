"""The run's logs: ``log.jsonl`` always, W&B beside it."""

from __future__ import annotations

import json
import netrc
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from advgen.files import write_text
from advgen.runtime.config import TrackingConfig

Job = Literal["training", "evaluation"]


class JsonLines:
    """Appends JSON objects, one a line; knows its length, so that a resumed run can cut it back."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record, for others to see at once."""
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
        except OSError as error:  # a write does not say where it failed
            raise OSError(error.errno, error.strerror, self._file.name) from None

    def sync(self) -> int:
        """Make everything so far durable; returns the length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, length: int) -> None:
        """Forget what comes after ``length`` bytes; a file that is shorter (removed by hand, say) stays as it is."""
        self._file.truncate(min(length, self.sync()))
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close; every record was flushed when it was written, so a disk that is full by now is no news."""
        with suppress(OSError):
            self._file.close()


class Mirror(Protocol):
    """A service that shows scalars and pictures beside the run folder's own logs."""

    def scalars(self, values: Mapping[str, float], nimg: int) -> None: ...

    def picture(self, name: str, path: Path, nimg: int) -> None: ...

    def close(self) -> None: ...


class NoMirror:
    """Shows nothing."""

    def scalars(self, values: Mapping[str, float], nimg: int) -> None:
        """Nothing."""

    def picture(self, name: str, path: Path, nimg: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Wandb:
    """Weights & Biases, one run id a run folder and job, so that a resumed run goes on in the same place.

    An evaluation may go on beside a training, and W&B takes the records of a run from one process at a time: so it is
    a run of its own, in the training's group.
    """

    def __init__(self, config: TrackingConfig, folder: Path, name: str, recipe: Mapping[str, Any], job: Job) -> None:
        import wandb

        mode = "online" if config.wandb == "auto" and _has_key() else "offline"
        other = job != "training"
        identity = folder / (f"wandb-id-{job}" if other else "wandb-id")
        if not identity.exists():
            write_text(identity, secrets.token_hex(6) + "\n")
        self._run = wandb.init(
            project=config.project,
            name=f"{name} {job}" if other else name,
            group=name if other else None,
            job_type=job if other else None,
            id=identity.read_text().strip(),
            resume="allow" if mode == "online" else None,
            mode=mode,
            dir=str(folder),
            config=dict(recipe),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("nimg")
        self._run.define_metric("*", step_metric="nimg")

    def scalars(self, values: Mapping[str, float], nimg: int) -> None:
        """Log scalars at ``nimg`` images."""
        self._run.log({**values, "nimg": nimg})

    def picture(self, name: str, path: Path, nimg: int) -> None:
        """Log a picture at ``nimg`` images."""
        import wandb

        self._run.log({name: wandb.Image(str(path)), "nimg": nimg})

    def close(self) -> None:
        """Send or store what is left."""
        self._run.finish()


def open_mirror(
    config: TrackingConfig, folder: Path, name: str, recipe: Mapping[str, Any], job: Job = "training"
) -> Mirror:
    """The mirror that the recipe asks for."""
    return NoMirror() if config.wandb == "disabled" else Wandb(config, folder, name, recipe, job)


def _has_key() -> bool:
    """Whether W&B would find a key: in the environment or in ~/.netrc, where its login writes it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
