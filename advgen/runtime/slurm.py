"""One process a rank under srun: what torch wants to know, from what SLURM tells each task."""

from __future__ import annotations

import hashlib
import re
from collections.abc import MutableMapping

from advgen.errors import UserError

# Step numbers from here on are not steps of srun: the batch script, an interactive shell, and their like.
_FIRST_SPECIAL_STEP = 0xFFFFFFF0
# Below the ports that Linux gives to outgoing connections (32768 on), above those of well-known services.
PORTS = range(20_000, 32_000)


def adopt_task(environment: MutableMapping[str, str]) -> bool:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT in a task of srun.

    Nothing is done outside srun, in a step of one task, and where a launcher (torchrun, accelerate) or a person has
    set RANK or WORLD_SIZE: ``WORLD_SIZE=1`` lets the tasks of a step train alone, each its own run.

    Args:
        environment: of this process.

    Returns:
        Whether the process is now a rank among others.

    Raises:
        UserError: SLURM's variables contradict one another.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment or not _is_task(environment):
        return False
    size, rank, local = (_number(environment, f"SLURM_{name}") for name in ("STEP_NUM_TASKS", "PROCID", "LOCALID"))
    if size == 1:
        return False
    if rank >= size:
        raise UserError(f"SLURM_PROCID={rank} is not below SLURM_STEP_NUM_TASKS={size}. Start the ranks by srun anew.")
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    here = _number(environment, "SLURM_NODEID")
    # Bound to a device of its own (--gpus-per-task=1), a task sees that one alone, as number 0.
    own_device = "," not in environment.get("CUDA_VISIBLE_DEVICES", ",")
    environment["RANK"], environment["WORLD_SIZE"] = str(rank), str(size)
    environment.setdefault("LOCAL_RANK", "0" if own_device else str(local))
    environment.setdefault("LOCAL_WORLD_SIZE", str(tasks_on(environment.get("SLURM_STEP_TASKS_PER_NODE", ""), here)))
    environment.setdefault("MASTER_ADDR", first_host(nodes))
    environment.setdefault("MASTER_PORT", str(port_of(environment)))
    return True


def first_host(nodes: str) -> str:
    """The first of a host list such as ``gpu[07-09,11],login1``: ``gpu07``.

    Raises:
        UserError: it is none.
    """
    first = re.match(r"(?:[^,\[\]]|\[[^\[\]]*\])+(?=,|$)", nodes)
    host = "" if first is None else re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group())
    if not host or re.search(r"[^\w.-]", host):
        raise UserError(f"SLURM_STEP_NODELIST={nodes!r} is no list of hosts. Set MASTER_ADDR to rank 0's host.")
    return host


def tasks_on(counts: str, node: int) -> int:
    """Tasks on a node, by its number, from counts such as ``4(x3),2``: 4 on nodes 0 to 2, then 2; 1 if none say."""
    expanded: list[int] = []
    for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", counts):
        expanded += [int(number)] * int(times or 1)
    return expanded[node] if node < len(expanded) else 1


def port_of(environment: MutableMapping[str, str]) -> int:
    """A port that depends on job, step and restart: two jobs on a node, or a requeued one, hardly ever share one."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    place = "/".join(environment.get(name, "0") for name in names)
    return PORTS[int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") % len(PORTS)]


def _is_task(environment: MutableMapping[str, str]) -> bool:
    step = environment.get("SLURM_STEP_ID", "")
    return "SLURM_PROCID" in environment and step.isdecimal() and int(step) < _FIRST_SPECIAL_STEP


def _number(environment: MutableMapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        raise UserError(f"{name}={text!r} is no number, though this is a task of srun. Set RANK, WORLD_SIZE yourself.")
    return int(text)
