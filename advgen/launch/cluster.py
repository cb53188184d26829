"""Settings of a SLURM cluster: ``slurm/clusters/NAME.yaml``, checked key by key."""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path
from typing import Literal

from advgen.errors import UserError
from advgen.strict_config import configuration, parse, read_yaml

# Beside the reader's own files, those of the checkout.
CHECKOUT = Path(__file__).parents[2] / "slurm"

# What stands in a generated file is read by others: a name like these never does.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|COOKIE", re.IGNORECASE)
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
    node_scratch: str | None = None
    """A folder on each node's own disk to which the shards are copied before training; null reads them where they
    lie."""

    def __post_init__(self) -> None:
        for name in self.environment:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"environment: {name!r} is no name of a variable")
            if _SECRET.search(name):
                raise ValueError(
                    f"environment: {name} looks like a secret, and this would be written into files. Export it in the "
                    "shell that runs `advgen submit`; the jobs get it from there"
                )
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
        if self.max_fruitless < 1:
            raise ValueError("max_fruitless must be at least 1")


def load_cluster(name: str) -> Cluster:
    """The settings of a cluster: ``slurm/clusters/NAME.yaml`` here or in the checkout, or a path that ends in .yaml.

    Raises:
        UserError: no such cluster, with those that there are; every mistake in the file.
    """
    if name.endswith((".yaml", ".yml")):
        return parse(Cluster, read_yaml(Path(name)), name)
    folders = dict.fromkeys((Path("slurm/clusters").resolve(), CHECKOUT / "clusters"))
    for folder in folders:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return parse(Cluster, read_yaml(path), str(path))
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise UserError(
        f"--cluster {name}: there is no slurm/clusters/{name}.yaml. Known: {', '.join(known) or 'none'}. "
        "Copy one of them and fill in yours."
    )
