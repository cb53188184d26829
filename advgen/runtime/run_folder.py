"""The folder ``runs/<name>``: what a run leaves behind, and how the next stage finds it."""

from __future__ import annotations

import fcntl
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from subprocess import DEVNULL, CalledProcessError, run
from typing import Any

from advgen.errors import UserError
from advgen.files import write_json, write_text

_TRIES = 3


@dataclass(frozen=True)
class RunFolder:
    """Names inside a run folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        """Commit, versions, machine."""
        return self.path / "run.json"

    @property
    def log(self) -> Path:
        """Every scalar."""
        return self.path / "log.jsonl"

    @property
    def metrics(self) -> Path:
        """One record a metric value."""
        return self.path / "metrics.jsonl"

    @property
    def likelihood(self) -> Path:
        """One record an estimate of the evidence."""
        return self.path / "likelihood.jsonl"

    @property
    def samples(self) -> Path:
        """Sample grids."""
        return self.path / "samples"

    @property
    def profile(self) -> Path:
        """Traces of some steps, and what they say."""
        return self.path / "profile"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints by images seen."""
        return self.path / "checkpoints"

    def parent(self) -> dict[str, Any] | None:
        """What ``run.json`` says of the run that this one began with; None for none."""
        return json.loads(self.provenance.read_text()).get("parent") if self.provenance.is_file() else None

    def require(self) -> RunFolder:
        """Itself, if it is a run folder.

        Raises:
            UserError: it is not.
        """
        if not self.config.is_file():
            raise UserError(
                f"{self.path}: is not a run folder (it has no config.yaml). "
                "Name the folder that `advgen train` wrote, such as runs/<name>."
            )
        return self

    def claim(self, config: str) -> None:
        """Make the folder with its recipe, or accept one that a run made before; nothing in it is changed.

        Raises:
            UserError: the folder holds something that no run wrote.
        """
        if self.config.is_file():
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(
                f"{self.path}: is there already, and is not a run folder. Give the recipe another name, or remove it."
            )
        write_text(self.config, config)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out; the kernel lets go of the lock when the process ends, however it ends.

        Raises:
            UserError: another process trains here.
        """
        with (self.path / "lock").open("a") as file:
            for left in reversed(range(_TRIES)):  # whoever only looks holds it for an instant
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not left:
                        raise UserError(
                            f"{self.path}: another process is training here. Wait for it, stop it, or give the recipe "
                            "another name."
                        ) from None
                    time.sleep(0.05)
            yield

    def busy(self) -> bool:
        """Whether a process trains here: whether the lock of :meth:`locked` is held."""
        try:
            with (self.path / "lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def describe(self, config: str, about: dict[str, Any]) -> None:
        """Write the resolved recipe and the provenance of the session that begins."""
        write_text(self.config, config)
        write_json(self.provenance, about)


def provenance(manifest_digest: str, device: str, world_size: int, threads: int, total_nimg: int) -> dict[str, Any]:
    """What else a figure depends on: commit, versions, machine; and how long the run is to be."""
    packages = ("advgen", "torch", "accelerate", "torchvision", "numpy", "webdataset")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "manifest": manifest_digest,
        "device": device,
        "world_size": world_size,
        "threads": threads,
        "total_nimg": total_nimg,
    }


def _commit() -> str | None:
    """The commit of the source tree this package runs from, with a mark if the tree differs; None outside git."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        described = run(command, capture_output=True, text=True, check=True, stdin=DEVNULL)
    except (OSError, CalledProcessError):
        return None
    return described.stdout.strip() or None
