"""Settings of a SLURM cluster: ``slurm/clusters/NAME.yaml``, checked key by key."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Literal

from advgen.launch.secrets import check_variables
from advgen.launch.settings import load_settings
from advgen.strict_config import configuration

MOST_TASKS = 1000
"""Of a job array, by SLURM's own default (MaxArraySize - 1)."""
_TIME = re.compile(r"(\d+-)?\d{1,3}(:\d{2}){0,2}")
# What advgen gives sbatch itself; another value beside it would be one of two.
_OWNED = (
    *("account", "array", "begin", "chdir", "comment", "constraint", "cpus-per-task", "dependency", "error", "export"),
    *("gpus-per-node", "job-name", "kill-on-invalid-dep", "mem", "nodes", "ntasks", "ntasks-per-node", "open-mode"),
    *("output", "parsable", "partition", "qos", "requeue", "no-requeue", "signal", "test-only", "time", "wait", "wrap"),
)


@configuration
class Resources:
    """What a stage's job asks for. Only training takes more than one rank."""

    nodes: int = 1
    """Machines."""
    ranks_per_node: int = 1
    """Processes on each; one a GPU."""
    gpus_per_node: int = 0
    """GPUs on each."""
    cpus_per_rank: int = 1
    """Cores of each process: the step's own, and those of data.read_threads."""
    memory_gib_per_node: int | None = None
    """Memory on each node; null leaves it to the cluster."""
    time: str = "1:00:00"
    """Wall time as sbatch takes it: minutes, hours:minutes:seconds, days-hours:minutes:seconds. Training that needs
    more goes on in another one."""
    partition: str | None = None
    """Another partition than the cluster's."""

    def __post_init__(self) -> None:
        for name in ("nodes", "ranks_per_node", "cpus_per_rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.gpus_per_node < 0 or (self.memory_gib_per_node is not None and self.memory_gib_per_node < 1):
            raise ValueError("gpus_per_node must not be negative, and memory_gib_per_node be at least 1")
        if not _TIME.fullmatch(self.time):
            raise ValueError("time must be like 90 (minutes), 4:00:00 or 2-00:00:00; quote it")

    @property
    def ranks(self) -> int:
        """All processes."""
        return self.nodes * self.ranks_per_node

    @property
    def seconds(self) -> int:
        """The wall time in seconds; to sbatch 90 are minutes, 90:00 minutes and seconds, 1-12 days and hours."""
        days, _, rest = self.time.rpartition("-")
        parts = [int(part) for part in rest.split(":")]
        if days:
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        elif len(parts) == 3:
            hours, minutes, seconds = parts
        else:
            hours, minutes, seconds = 0, *(*parts, 0)[:2]
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


@configuration
class Container:
    """An image that the program runs in."""

    image: str
    """A file, or what the tool takes for one."""
    tool: Literal["apptainer", "pyxis"] = "apptainer"
    """apptainer starts it in each rank; pyxis is srun's own --container-image, for enroot."""
    mounts: tuple[str, ...] = ()
    """Folders to be seen within, as /data or /data:/inside."""


@configuration
class Cluster:
    """How jobs are to be handed in."""

    partition: str | None = None
    """The partition (queue); null for the cluster's own default."""
    account: str | None = None
    """To whom the time is charged."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have, as a100&nvlink."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, as --exclusive or --mail-type=FAIL."""
    shard: Resources = Resources(time="4:00:00")
    """For writing shards; it takes all cores of its one process."""
    train: Resources = Resources(time="4:00:00")
    """For training."""
    evaluate: Resources = Resources()
    """For the metrics."""
    evaluate_tasks: int = 1
    """Evaluation as a job array of so many tasks, task i of n taking every n-th of the recipe's evaluation.checkpoints.
    Tasks without one end at once. In a sweep the members' evaluations are the tasks."""
    report: Resources = Resources(time="0:15:00")
    """For the report."""
    warn_seconds: int = 180
    """Training is asked to write its checkpoint so long before the wall time; SLURM may ask a minute earlier."""
    max_fruitless: int = 3
    """Restarts one after the other that train nothing new; then the job gives up."""
    modules: tuple[str, ...] = ()
    """Environment modules to load."""
    container: Container | None = None
    """Where the program runs, if not in the environment that it is submitted from."""
    program: tuple[str, ...] = ()
    """The command that stands for `advgen` on the nodes; empty for this very installation, which they must see."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of every job, as NCCL_SOCKET_IFNAME. No secrets: what is exported where `advgen submit` runs reaches
    the jobs without being written anywhere."""
    network_gbit_per_rank: float | None = None
    """Speed of the network for each rank in Gbit/s: that of a card shared by 8 ranks is an eighth. `advgen submit` then
    also says how long training takes if all gradients go at this speed and no computation hides it."""
    node_scratch: str | None = None
    """A folder on each node's own disk to which the shards are copied before training; null reads them where they
    lie."""

    def __post_init__(self) -> None:
        check_variables(self.environment)
        for option in self.options:
            if not re.fullmatch(r"--[a-z][a-z-]*(=.*)?", option, re.DOTALL):
                raise ValueError(f"options: write {option!r} as --name or --name=value")
            if option[2:].split("=")[0] in _OWNED:
                raise ValueError(f"options: {option} is set by advgen; use the keys of this file")
        for stage in ("shard", "evaluate", "report"):
            if getattr(self, stage).ranks != 1:
                raise ValueError(f"{stage}: is one process; leave nodes and ranks_per_node out")
        if not 30 <= self.warn_seconds < self.train.seconds:
            raise ValueError("warn_seconds must be at least 30 and less than train.time")
        if self.network_gbit_per_rank is not None and self.network_gbit_per_rank <= 0:
            raise ValueError("network_gbit_per_rank must be positive")
        if self.max_fruitless < 1 or not 1 <= self.evaluate_tasks <= MOST_TASKS:
            raise ValueError(f"max_fruitless must be at least 1, evaluate_tasks 1 to {MOST_TASKS}")


def load_cluster(name: str) -> Cluster:
    """The settings of a cluster (:func:`advgen.launch.settings.load_settings`)."""
    return load_settings(Cluster, name, "slurm/clusters")
