"""Weights & Biases: one run id a run folder and job, so that a job that is started again goes on in the same run.

An evaluation may go on beside a training, and W&B takes the records of a run from one process at a time: so it is a run
of its own, in the training's group, and its configuration names the training's run id.

A training's step is its ``nimg``. Up to which step W&B holds it is asked of its server or, offline, of the files of
earlier sessions (W&B's own reader, ``wandb leet inspect``); rows up to it are left out, later ones come from the logs.
"""

from __future__ import annotations

import json
import logging
import netrc
import os
import secrets
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from advgen.errors import reason_of
from advgen.files import write_text
from advgen.runtime.config import TrackingConfig
from advgen.runtime.history import Job, Row, rows
from advgen.runtime.tracking import Subject
from advgen.runtime.wandb_artifacts import checkpoint_artifact, inputs, without_keys

_log = logging.getLogger(__name__)

_LONGEST_TITLE = 63  # of an alert


class WandbRun:
    """A W&B run.

    Args:
        config: where it goes.
        subject: what it shows.
        mode: online raises where the server does not answer.
        scratch: where W&B keeps its files; None for the run folder.
        patience_seconds: to wait for a server that does not take everything: the artifacts that the run was made of,
            and, at the end, what is left; at most half a minute of it at the beginning. A job that was asked to stop
            has little time.

    Attributes:
        known: the last step that W&B holds; -1 for none.
    """

    def __init__(
        self,
        config: TrackingConfig,
        subject: Subject,
        mode: Literal["online", "offline"],
        scratch: Path | None = None,
        patience_seconds: float = 60.0,
    ) -> None:
        import wandb

        self._config, self._subject, self._online = config, subject, mode == "online"
        self._patience_seconds = patience_seconds
        identity = run_id(subject.folder, subject.job)
        self.known = -1 if self._online else last_offline_step(subject.folder, identity)
        training = subject.job == "training"
        common = wandb.setup(wandb.Settings(silent=True)).settings
        if not training:  # an agent of a sweep wants one run of the process, with its own id: the training's
            common.sweep_id = None
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            name=subject.name if training else f"{subject.name} evaluation",
            group=config.group or subject.name,
            job_type="train" if training else "evaluate",
            tags=config.tags,
            notes=config.notes,
            id=identity,
            resume="allow" if self._online else None,
            mode=mode,
            dir=str(scratch or subject.folder),
            config=about(subject),
            settings=wandb.Settings(
                silent=True,
                reinit="create_new",  # by default a run that was not ended well would be given out again, as this one
                console="off",
                disable_git=True,  # run.json says the commit
                disable_code=True,
                base_url=base_url(),
                init_timeout=min(30.0, patience_seconds),
                finish_timeout=patience_seconds,
                finish_timeout_raises=True,
            ),
        )
        if self._online:
            self.known = self._run.starting_step - 1
        self._run.define_metric("nimg")
        self._run.define_metric("*", step_metric="nimg")

    def scalars(self, values: Mapping[str, float], nimg: int) -> None:
        """See :class:`advgen.runtime.tracking.Mirror`, as of the methods below."""
        self._show(nimg, {**values, "nimg": nimg})

    def picture(self, name: str, path: Path, nimg: int) -> None:
        """A picture."""
        import wandb

        if nimg > self.known:
            self._show(nimg, {name: wandb.Image(str(path)), "nimg": nimg})

    def catch_up(self) -> None:
        """What is missing."""
        self.show(rows(self._subject.folder, self._subject.job, self.known))

    def show(self, found: Iterable[Row]) -> int:
        """Show whole rows; returns how many."""
        import wandb

        count = 0
        for row in found:
            pictures = {name: wandb.Image(str(path)) for name, path in row.pictures.items()}
            self._show(row.step, {**row.values, **pictures, "nimg": row.nimg})
            self.known = row.step
            count += 1
        return count

    def checkpoints(self, paths: Sequence[Path]) -> None:
        """Checkpoints that stay, and what the run was made of, as artifacts; W&B knows again what it has."""
        kind = self._config.artifacts
        if kind == "disabled":
            return
        if self._online:  # offline W&B records no inputs; `advgen sync` does
            self._use(kind)
        for path in paths:
            artifact = checkpoint_artifact(self._subject, self._run.id, path, kind)
            self._run.log_artifact(artifact, aliases=["latest", f"nimg-{int(path.name)}"])

    def _use(self, kind: Literal["references", "files"]) -> None:
        """Name what the run was made of. The client waits for its server without end: so another thread does."""
        failed: list[Exception] = []

        def use() -> None:
            try:
                for artifact in inputs(self._subject, kind):
                    self._run.use_artifact(artifact)
            except Exception as error:
                failed.append(error)

        using = threading.Thread(target=use, name="inputs", daemon=True)
        using.start()
        using.join(self._patience_seconds)
        if using.is_alive():
            raise TimeoutError(f"the server took no artifact in {self._patience_seconds:g} s")
        if failed:
            raise failed[0]

    def alert(self, title: str, text: str) -> None:
        """A message to a person."""
        self._run.alert(title[:_LONGEST_TITLE], text, wait_duration=timedelta(minutes=5))

    def preempting(self) -> None:
        """To be started again."""
        self._run.mark_preempting()

    def close(self, exit_code: int = 0) -> None:
        """The end; raises where the server takes no more."""
        self._run.finish(exit_code)

    def _show(self, step: int, values: Mapping[str, Any]) -> None:
        if step > self.known:
            self._run.log(dict(values), step=step)


def open_run(config: TrackingConfig, subject: Subject) -> WandbRun:
    """A run online, or offline where the recipe says so, there is no key, or the server does not answer."""
    if config.wandb == "auto" and has_key():
        try:
            return WandbRun(config, subject, "online")
        except Exception as error:
            told = "W&B cannot be reached, so its records stay here (`advgen sync` sends them): %s"
            _log.warning(told, reason_of(error))
    return WandbRun(config, subject, "offline")


def run_id(folder: Path, job: Job, *, new: bool = False) -> str:
    """The W&B id of a run folder's job, made once; ``new`` makes another one.

    Under one of W&B's agents a training has the agent's id: W&B's client takes no other one there.
    """
    path = folder / ("wandb-id" if job == "training" else f"wandb-id-{job}")
    known = path.read_text().strip() if path.exists() and not new else None
    given = os.environ.get("WANDB_RUN_ID") if job == "training" and os.environ.get("WANDB_SWEEP_ID") else None
    wanted = given or known or secrets.token_hex(6)
    if wanted != known:
        write_text(path, wanted + "\n")
    return wanted


def about(subject: Subject) -> dict[str, Any]:
    """A W&B run's configuration: the recipe, where it comes from, and of an evaluation the training that it is of.

    What may be a key or password of a store stays here: W&B's pages are read by others.
    """
    provenance = subject.folder / "run.json"
    session = json.loads(provenance.read_text()) if provenance.is_file() else {}
    found: dict[str, Any] = {**subject.recipe, "data": without_keys(subject.recipe.get("data", {})), "run": session}
    if subject.job == "evaluation":
        found["training_run"] = run_id(subject.folder, "training")
    return found


def last_offline_step(folder: Path, identity: str) -> int:
    """The last step in the offline files of a run; -1 for none. A file that a kill tore counts up to there."""
    from wandb.util import get_core_path

    for path in sorted((folder / "wandb").glob(f"offline-run-*/run-{identity}.wandb"), reverse=True):
        command = [get_core_path(), "leet", "inspect", "--json", "--no-observability", "--run-file", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as reader:
            assert reader.stdout is not None
            last = ""
            for line in reader.stdout:
                if '"type":"history"' in line:
                    last = line
        if last:
            return int(json.loads(last)["history"]["item"]["_step"])
    return -1


def last_session(folder: Path, identity: str) -> Literal["online", "offline"] | None:
    """How the newest session of a run that left files in its folder spoke to W&B; None for no session."""
    kept = {path.name.removeprefix("offline-"): path.name for path in (folder / "wandb").glob(f"*run-*-{identity}")}
    if not kept:
        return None
    return "offline" if kept[max(kept)].startswith("offline-") else "online"


def base_url() -> str:
    """Of the server, as W&B's client finds it: in the environment, or where `wandb login --host` has written it."""
    import wandb

    return os.environ.get("WANDB_BASE_URL") or wandb.setup(wandb.Settings(silent=True)).settings.base_url


def has_key() -> bool:
    """Whether W&B would find a key for its server: in the environment or in ~/.netrc, where its login writes it.

    Without one its client asks the person at the terminal, and waits.
    """
    if os.environ.get("WANDB_API_KEY"):
        return True
    servers = {urlsplit(base_url()).netloc}
    if servers == {"api.forge.coreweave.com"}:  # W&B's own; keys were written under its older name
        servers.add("api.wandb.ai")
    place = os.environ.get("NETRC")
    try:
        return not servers.isdisjoint(netrc.netrc(Path(place).expanduser() if place else None).hosts)
    except (OSError, netrc.NetrcParseError):
        return False
