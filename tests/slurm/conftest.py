"""A real SLURM of two nodes on this machine, in a folder of its own, for as long as the tests run."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.distributed.runs import environment, free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "scancel", "sinfo")

CONFIG = """
ClusterName=advgen
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
ReturnToService=2
SlurmdTimeout=60
KillWait=5
MinJobAge=3600
MpiDefault=none
SwitchType=switch/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=4 RealMemory=4000 State=UNKNOWN
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=n0,n1 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes=n0,n1 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Cluster:
    """A running SLURM: commands take ``environment``."""

    folder: Path
    environment: dict[str, str]

    def ask(self, *command: str, where: Path | None = None) -> str:
        """Output of a command that must succeed."""
        done = subprocess.run(command, cwd=where, env=self.environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def idle(self) -> bool:
        """Whether both nodes wait for work."""
        command = ["sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D"]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout.strip() == "2"

    def job(self, number: str) -> dict[str, str]:
        """What SLURM knows of a job."""
        words = self.ask("scontrol", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Until the condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"a SLURM of one's own needs root, and {missing} (Debian: apt-get install slurm-wlm munge)")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o711)  # munged wants its socket within reach of all
    ports = {name: free_port() for name in ("control", "first", "second")}
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(CONFIG.format(host=host, folder=folder, **ports))
    for name in ("state", "spool.n0", "spool.n1"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(1024))
    kept = {name: value for name, value in environment().items() if not name.startswith("SLURM")}
    made = Cluster(folder, {**kept, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")})
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with (folder / f"{Path(command[0]).name}-{len(daemons)}.out").open("wb") as out:
            daemons.append(subprocess.Popen(command, env=made.environment, stdout=out, stderr=out))

    names = {name: f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")}
    try:
        start("munged", "--foreground", f"--socket={folder}/munge.sock", *names.values())
        wait_for((folder / "munge.sock").exists, "munged listens", 20)
        start("slurmctld", "-D")
        start("slurmd", "-D", "-N", "n0")
        start("slurmd", "-D", "-N", "n1")
        wait_for(made.idle, f"both nodes are idle; see {folder}", 60)
        yield made
        subprocess.run(["scancel", "--user=root", "--full"], env=made.environment, capture_output=True)
        wait_for(made.idle, "no job is left", 60)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
    shutil.rmtree(folder)
