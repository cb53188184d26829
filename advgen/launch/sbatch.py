"""What a job is handed in with: options of sbatch, the script's arguments, and the file that the script reads first.

The scripts (``slurm/train.sbatch``, ``slurm/stage.sbatch``) are the same for all runs, and a person may hand them in.
Nothing that a user wrote becomes part of a shell's text without quotes.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from advgen.config import Recipe
from advgen.launch.cluster import Cluster, Resources
from advgen.launch.plan import Job
from advgen.launch.settings import CHECKOUT
from advgen.launch.state import LaunchFolder


@dataclass(frozen=True)
class Order:
    """A job as sbatch takes it.

    Attributes:
        options: of sbatch.
        script: and its arguments.
        environment: of the job, beside what the submitting shell has.
        comment: tells the job from all others in the queue.
        tasks: of a job array that shares one run's stage (slurm/stage.sbatch tells each its share); 1 for all others.
    """

    options: tuple[str, ...]
    script: tuple[str, ...]
    environment: dict[str, str]
    comment: str
    tasks: int

    def command(self, after: str | None, each: bool = False) -> list[str]:
        """The whole command for a job that begins when job ``after`` has ended well; None: when it can.

        ``each``: of two job arrays, every task waits for the one of its own number alone.
        """
        kind = "aftercorr" if each else "afterok"
        waits = () if after is None else (f"--dependency={kind}:{after}", "--kill-on-invalid-dep=yes")
        return ["sbatch", "--parsable", *self.options, *waits, *self.script]


def order(job: Job, cluster: Cluster, run: Path, members: str | None = None) -> Order:
    """How a stage's job is handed in.

    Args:
        job: the stage.
        cluster: to which.
        run: the run folder; of a job array the sweep's, whose ``launch/members.txt`` names the run folders.
        members: of a job array, in sbatch's words, such as ``0-5%2``; None for a job that is none.
    """
    folder = LaunchFolder(run / "launch")
    comment = f"advgen:{run.resolve()}:{job.stage}:{job.inputs[:12]}"
    log = str(folder.log(job.stage, "\0")).replace("%", "%%")  # to sbatch a % begins a pattern
    options = [f"--job-name={run.name}-{job.stage}", f"--comment={comment}", "--export=ALL"]
    tasks = cluster.evaluate_tasks if members is None and job.stage == "evaluate" else 1
    array = members if tasks == 1 else f"0-{tasks - 1}"
    options.append(f"--output={log.replace(chr(0), '%j' if array is None else '%A_%a')}")
    options += [] if array is None else [f"--array={array}"]
    options += _resources(getattr(cluster, job.stage), cluster)
    if job.many:
        options.append(f"--signal=B:USR1@{cluster.warn_seconds}")
        script = (str(CHECKOUT / "slurm" / "train.sbatch"),)
    else:
        script = (str(CHECKOUT / "slurm" / "stage.sbatch"), job.stage)
    environment = {"MAX_FRUITLESS": str(cluster.max_fruitless)}
    if members is None:
        script = (*script, str(folder.recipe))
        environment["ADVGEN_RUN"] = str(run)
    else:
        environment["ADVGEN_MEMBERS"] = str(folder.members)
    return Order(tuple(options), script, environment, comment, tasks)


def _resources(wanted: Resources, cluster: Cluster) -> list[str]:
    named = {
        "partition": wanted.partition or cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "nodes": wanted.nodes,
        "ntasks-per-node": wanted.ranks_per_node,
        "cpus-per-task": wanted.cpus_per_rank,
        # A node's, and not a task's own: ranks on a node reach each other's memory only if they see all its GPUs.
        "gpus-per-node": wanted.gpus_per_node or None,
        "mem": None if wanted.memory_gib_per_node is None else f"{wanted.memory_gib_per_node}G",
        "time": wanted.time,
    }
    return [f"--{name}={value}" for name, value in named.items() if value is not None] + list(cluster.options)


def setup_file(cluster: Cluster, recipe: Recipe, program: tuple[str, ...]) -> str:
    """The file that the scripts source first: modules, variables, the command.

    Args:
        cluster: whose.
        recipe: whose shards are copied to the nodes where the cluster has a place for them.
        program: the command that stands for ``advgen`` where neither the cluster names one nor there is a container.
    """
    lines = ["# Written by `advgen submit`; slurm/train.sbatch and slurm/stage.sbatch source it first."]
    lines += [f"module load {shlex.quote(name)}" for name in cluster.modules]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in cluster.environment.items()]
    command = cluster.program or (program if cluster.container is None else ("advgen",))
    box = cluster.container
    if box is not None and box.tool == "apptainer":
        mounts = [part for mount in box.mounts for part in ("--bind", mount)]
        # --nv hands in the GPUs' driver where there are any.
        command = ("apptainer", "exec", "--nv", *mounts, box.image, *command)
    lines.append(_array("program", command))
    if box is not None and box.tool == "pyxis":
        mounts = [f"--container-mounts={','.join(box.mounts)}"] if box.mounts else []
        lines.append(_array("srun_options", (f"--container-image={box.image}", *mounts)))
    if cluster.node_scratch is not None:
        copied = [cluster.node_scratch]
        for flag, each in (("train", recipe.data.train), ("held_out", recipe.data.held_out)):
            if each is not None and "://" not in each.shards:
                copied += [f"--data.{flag.replace('_', '-')}.shards", each.shards]
        lines.append(_array("local_shards", tuple(copied)))
    return "\n".join(lines) + "\n"


def _array(name: str, words: tuple[str, ...]) -> str:
    return f"{name}=({shlex.join(words)})"


def printable(order: Order, stage: str, after: str | None, each: bool = False) -> str:
    """A line of shell that hands the job in, keeps its number as ``$STAGE``, and has it wait for ``$AFTER``.

    ``each``: as of :meth:`Order.command`.
    """
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in order.environment.items())
    command = shlex.join(order.command("@" if after else None, each)).replace(":@", f':"${after}"', 1)
    return f"{stage}=$({variables} {command})"
