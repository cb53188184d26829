"""A recipe as a managed job of SkyPilot: one task a stage, in order, each on machines of its own.

The recipe's relative paths are those of a bucket, which is mounted on all machines. The format is SkyPilot's task YAML;
a pipeline is several tasks in one file, after a document with its name.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from advgen.config import Recipe
from advgen.launch.plan import Job
from advgen.launch.secrets import check_names, check_variables
from advgen.launch.settings import CHECKOUT
from advgen.launch.yaml_text import documents
from advgen.strict_config import configuration

RECIPE = Path("/advgen/recipe.yaml")
_BUCKET = "/advgen/bucket"


@configuration
class Cloud:
    """What is rented."""

    kind: Literal["cloud"]
    """Tells these settings from those of other machines."""
    bucket: str
    """Where shards and runs lie, as s3://my-bucket/advgen or gs://my-bucket; it must exist."""
    nodes: int = 1
    """Machines that train."""
    accelerators: str = "A100:8"
    """GPUs of each, in the words of `sky show-gpus`: NAME:COUNT."""
    metrics_accelerators: str | None = None
    """The same for the machine that takes metrics, of which they use one; null for those of training, as some clouds
    rent no smaller machine with the same. Other stages take none."""
    spot: bool = True
    """Take machines that may be taken back at any time, at a fraction of the price; the job goes on on others."""
    infra: str | None = None
    """Where, as aws/us-east-1 or gcp; null for the cheapest that the credentials allow."""
    cpus: int = 8
    """Cores of each machine, at least."""
    memory_gib: int = 32
    """Memory of each machine, at least."""
    disk_gib: int = 256
    """Disk of each machine: the installation takes 10, and what is read and written of the bucket is kept there."""
    restarts: int = 3
    """A stage that ended with an error is begun again so often; machines that are taken back do not count."""
    secrets: tuple[str, ...] = ()
    """Names of variables that the jobs get from the shell that submits, as WANDB_API_KEY."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of every stage, as NCCL_DEBUG; no secrets."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(s3|gs|r2|cos|oci|nebius)://[A-Za-z0-9._/-]+", self.bucket):
            raise ValueError("bucket must be an address such as s3://my-bucket/advgen, without a password")
        for name in ("accelerators", "metrics_accelerators"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[A-Za-z0-9_.-]+:[1-9][0-9]*", value):
                raise ValueError(f"{name} must be NAME:COUNT, as H100:8")
        for name in ("nodes", "cpus", "memory_gib", "disk_gib"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.restarts < 0:
            raise ValueError("restarts must not be negative")
        check_names(self.secrets)
        check_variables(self.environment)

    @property
    def ranks(self) -> int:
        """Processes that train, one a GPU."""
        return self.nodes * int(self.accelerators.partition(":")[2])


def pipeline(recipe: Recipe, jobs: Sequence[Job], cloud: Cloud, recipe_file: Path) -> str:
    """The file for ``sky jobs launch``.

    Args:
        recipe: whose stages.
        jobs: planned with the recipe at :data:`RECIPE`.
        cloud: what is rented.
        recipe_file: the recipe on this machine.
    """
    # Relative to where sky is called, as SkyPilot takes it.
    mounts: dict[str, Any] = {
        str(RECIPE): os.path.relpath(recipe_file),
        _BUCKET: {"source": cloud.bucket, "mode": "MOUNT_CACHED"},
    }
    tasks: list[dict[str, Any]] = [{"name": recipe.name}]
    for job in jobs:
        task: dict[str, Any] = {
            "name": f"{recipe.name}-{job.stage}",
            "workdir": os.path.relpath(CHECKOUT),
            "num_nodes": cloud.nodes if job.many else 1,
            "resources": _resources(job, cloud),
            "file_mounts": mounts,
            "envs": dict(cloud.environment),
            "secrets": {name: None for name in cloud.secrets},
            "setup": _setup(shares=job.many and cloud.nodes > 1),
            "run": _train(recipe, job, cloud.nodes) if job.many else _alone(job),
        }
        tasks.append({key: value for key, value in task.items() if value not in ({}, None)})
    return documents(tasks)


def command(file: Path, recipe: Recipe, cloud: Cloud) -> list[str]:
    """What hands the file in. Secrets are named; SkyPilot reads their values from the environment."""
    named = [word for name in cloud.secrets for word in ("--secret", name)]
    return ["sky", "jobs", "launch", "--yes", "--detach-run", "--name", recipe.name, *named, str(file)]


def _resources(job: Job, cloud: Cloud) -> dict[str, Any]:
    gpus = {"train": cloud.accelerators, "evaluate": cloud.metrics_accelerators or cloud.accelerators}.get(job.stage)
    wanted = {
        "infra": cloud.infra,
        "accelerators": gpus,
        "cpus": f"{cloud.cpus}+",
        "memory": f"{cloud.memory_gib}+",
        "disk_size": cloud.disk_gib,
        "use_spot": cloud.spot,
        "job_recovery": {"max_restarts_on_errors": cloud.restarts},
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _setup(shares: bool) -> str:
    lines = [
        "set -e",
        "# The machines' own Python may be older than 3.11.",
        "python3 -m pip install --quiet --user uv",
        'export PATH="$HOME/.local/bin:$PATH"',
        "uv python install 3.12",
        "PYTHON=$(uv python find 3.12) ./scripts/setup.sh",
    ]
    if shares:
        lines.append("command -v sshfs >/dev/null || { sudo apt-get update && sudo apt-get install --yes sshfs; }")
    return "\n".join(lines) + "\n"


def _alone(job: Job) -> str:
    lines = ["set -e", "advgen=$PWD/.venv/bin/advgen", f"cd {_BUCKET}", f'"$advgen" {shlex.join(job.arguments)}']
    return "\n".join(lines) + "\n"


def _train(recipe: Recipe, job: Job, nodes: int) -> str:
    lines = [
        "set -e",
        'export PATH="$PWD/.venv/bin:$PATH"',
        "export NODES=$SKYPILOT_NUM_NODES NODE_RANK=$SKYPILOT_NODE_RANK PROCESSES=$SKYPILOT_NUM_GPUS_PER_NODE",
        'MASTER_ADDR=$(head -n 1 <<<"$SKYPILOT_NODE_IPS")',
        "export MASTER_ADDR",
        f"runs={shlex.quote(f'{_BUCKET}/{recipe.runs}')}",
    ]
    if nodes > 1:
        lines += [
            "# The ranks write one checkpoint together, and mounts of a bucket see each other's files late: all",
            "# machines write into the first one's folder, and the first one into the bucket.",
            'mkdir -p "$runs"',
            'if [ "$NODE_RANK" != 0 ]; then',
            '    shared=$(cloud/share.sh "$MASTER_ADDR" "$runs" "$HOME/advgen-runs")',
            "    runs=$shared",
            "fi",
        ]
    lines += [
        f'export ADVGEN_RUN="$runs/{recipe.name}"',
        "node=$PWD/cloud/node.sh",
        f"cd {_BUCKET}",
        f'exec "$node" {shlex.join(job.arguments[1:])} --runs "$runs"',
    ]
    return "\n".join(lines) + "\n"
