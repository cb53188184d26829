"""What a task of srun makes of SLURM's variables."""

from __future__ import annotations

import pytest

from advgen.errors import UserError
from advgen.runtime.slurm import PORTS, adopt_task, first_host, port_of, tasks_on

# As slurmstepd 22.05 sets them in task 3 of `srun -N2 --ntasks-per-node=2`.
TASK = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "n[0-1]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}


def test_a_task_becomes_a_rank() -> None:
    environment = dict(TASK)
    assert adopt_task(environment)
    assert environment["MASTER_PORT"] == str(port_of(TASK))
    added = {name: environment[name] for name in environment.keys() - TASK.keys() - {"MASTER_PORT"}}
    place = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert added == {**place, "MASTER_ADDR": "n0"}


def test_a_person_may_say_where_the_ranks_meet() -> None:
    environment = {**TASK, "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4711"}
    assert adopt_task(environment)
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("10.0.0.7", "4711")


@pytest.mark.parametrize(
    "others",
    [
        {"RANK": "0", "WORLD_SIZE": "2"},  # a worker of torchrun
        {"WORLD_SIZE": "1"},  # each for itself
        {"SLURM_STEP_ID": "4294967291"},  # the batch script
        {"SLURM_STEP_ID": "4294967290"},  # a shell of salloc
        {"SLURM_STEP_ID": ""},
        {"SLURM_STEP_NUM_TASKS": "1"},
    ],
    ids=str,
)
def test_left_alone(others: dict[str, str]) -> None:
    environment = {**TASK, **others}
    before = dict(environment)
    assert not adopt_task(environment)
    assert environment == before


@pytest.mark.parametrize(("devices", "local_rank"), [("2", "0"), ("GPU-8f2a", "0"), ("0,1", "1"), (None, "1")], ids=str)
def test_a_device_of_its_own_is_number_0(devices: str | None, local_rank: str) -> None:
    environment = dict(TASK) if devices is None else {**TASK, "CUDA_VISIBLE_DEVICES": devices}
    adopt_task(environment)
    assert environment["LOCAL_RANK"] == local_rank


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"SLURM_PROCID": "4"}, "SLURM_PROCID=4 is not below SLURM_STEP_NUM_TASKS=4"),
        ({"SLURM_LOCALID": "x"}, "SLURM_LOCALID='x' is no number"),
        ({"SLURM_STEP_NODELIST": "n[0-1"}, "is no list of hosts"),
        ({"SLURM_STEP_NODELIST": "$(reboot)"}, "is no list of hosts"),
    ],
    ids=str,
)
def test_contradictions(wrong: dict[str, str], text: str) -> None:
    with pytest.raises(UserError) as raised:
        adopt_task({**TASK, **wrong})
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n0", "n0"),
        ("n[0-3,7]", "n0"),
        ("gpu[07-09,11],login1", "gpu07"),
        ("r[1-2]c[08,10-11]-ib", "r1c08-ib"),
        ("a.example.org,b", "a.example.org"),
    ],
)
def test_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_tasks_on_a_node() -> None:
    assert [tasks_on("4(x3),2", node) for node in range(5)] == [4, 4, 4, 2, 1]


def test_ports_differ_by_job_step_and_restart() -> None:
    places = [(job, step, restart) for job in range(20) for step in range(3) for restart in range(3)]
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    ports = [port_of({name: str(n) for name, n in zip(names, place, strict=True)}) for place in places]
    assert all(port in PORTS for port in ports)
    assert len(set(ports)) > 0.97 * len(ports)
