"""A recipe as a shell script for machines that somebody has at hand: torchrun on each of them, and nothing else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Literal

from advgen.config import Recipe
from advgen.launch.plan import Job, data_sets
from advgen.launch.secrets import check_variables
from advgen.strict_config import configuration


@configuration
class Machines:
    """Which machines."""

    kind: Literal["machines"]
    """Tells these settings from those of other machines."""
    addresses: tuple[str, ...]
    """Of the machines, by which they reach one another; the first one is where the ranks meet."""
    processes: int = 8
    """Ranks on each, one a GPU."""
    port: int = 29500
    """Of the first machine, free."""
    checkout: str
    """The folder of this repository on each machine, set up by `scripts/setup.sh`."""
    folder: str
    """The folder that the recipe's relative paths are of; all machines see the same one (NFS, say)."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables on all machines, as NCCL_SOCKET_IFNAME; no secrets."""

    def __post_init__(self) -> None:
        if not self.addresses or not all(re.fullmatch(r"[A-Za-z0-9.:_-]+", each) for each in self.addresses):
            raise ValueError("addresses must be names or addresses of machines, at least one")
        if len(set(self.addresses)) < len(self.addresses):
            raise ValueError("addresses: one stands there twice; each machine is one")
        if self.processes < 1 or not 1 <= self.port < 1 << 16:
            raise ValueError("processes must be at least 1, and port 1 to 65535")
        for name in ("checkout", "folder"):
            if not Path(getattr(self, name)).is_absolute():
                raise ValueError(f"{name} must begin with /")
        check_variables(self.environment)

    @property
    def ranks(self) -> int:
        """Processes that train."""
        return len(self.addresses) * self.processes


def script(recipe: Recipe, jobs: Sequence[Job], machines: Machines, recipe_file: Path) -> str:
    """The script, to be started on each machine with the machine's number.

    Args:
        recipe: whose stages.
        jobs: of which the stages are taken.
        machines: which.
        recipe_file: the recipe, as the machines see it.
    """
    count = len(machines.addresses)
    shards = ":".join(each.shards for each in data_sets(recipe) if "://" not in each.shards)
    variables = {
        "NODES": str(count),
        "MASTER_ADDR": machines.addresses[0],
        "MASTER_PORT": str(machines.port),
        "PROCESSES": str(machines.processes),
        "STAGES": " ".join(job.stage for job in jobs),
        "SHARDS": shards,
        "ADVGEN_RUN": str(recipe.folder),
        **machines.environment,
    }
    ranks = f"{count} machine{'s' * (count > 1)} with {machines.processes} processes each"
    lines = [
        "#!/usr/bin/env bash",
        f"# Written by `advgen submit`: {recipe.name} on {ranks}. On each, with its number:",
        "#",
        *(f"#   {address}: bash SCRIPT {number}" for number, address in enumerate(machines.addresses)),
        "#",
        "# Started again, it goes on. SIGTERM makes all machines write a checkpoint, and this one leave.",
        "set -euo pipefail",
        "",
        f'export NODE_RANK="${{1:?give the number of this machine, 0 to {count - 1}}}"',
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        f"export PATH={shlex.quote(machines.checkout + '/.venv/bin')}:$PATH",
        f"cd -- {shlex.quote(machines.folder)}",
        f"exec {shlex.quote(machines.checkout + '/cloud/stages.sh')} {shlex.quote(str(recipe_file))}",
    ]
    return "\n".join(lines) + "\n"
