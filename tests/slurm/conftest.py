"""A real SLURM of two nodes on this machine, in a folder of its own, for as long as the tests run."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.runs import environment, free_port, write_images
from tests.slurm.cluster import CONFIG, PROGRAMS, Cluster, wait_for
from tests.slurm.place import SETTINGS, Place


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing or os.geteuid() != 0:
        why = f"a SLURM of one's own needs root, and {missing} (Debian: apt-get install slurm-wlm munge)"
        if os.environ.get("ADVGEN_REQUIRE_SLURM") == "1":
            pytest.fail(why)  # where the tests are meant to run, a skip would look like success
        pytest.skip(why)
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("submitted")
    write_images(made / "images")
    write_images(made / "held-out-images", 32, seed=8)
    (made / "here.yaml").write_text(SETTINGS)
    return made


@pytest.fixture
def place(folder: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    monkeypatch.chdir(folder)
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    return Place(folder, cluster, capsys)
