"""Runs that W&B keeps, read through the public methods of its API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from advgen.errors import UserError


class RemoteRun(Protocol):
    """What is asked of a run that W&B keeps; ``wandb.apis.public.Run`` has it."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    def scan_history(self) -> Iterator[Mapping[str, Any]]:
        """Every logged record, oldest first."""
        ...


def remote_runs(path: str, filters: Mapping[str, Any]) -> Iterator[tuple[RemoteRun, list[Mapping[str, Any]]]]:
    """The runs of a project, each with every record that was logged, oldest first.

    Args:
        path: ``entity/project``.
        filters: in W&B's own form, such as ``{"group": "a name"}``.

    Raises:
        UserError: no key, no such project, or W&B does not answer.
    """
    import requests
    import wandb

    try:
        for run in wandb.Api().runs(path, filters=dict(filters)):
            yield run, list(run.scan_history())  # read here, where a failure of the network is known as one
    except (wandb.Error, ValueError, requests.RequestException) as error:
        raise UserError(
            f"--wandb {path}: cannot be read ({error}). Check the name, the key (`wandb login`) and the network."
        ) from None
