"""Two machines under torchrun by the script that ``advgen submit --on machines`` writes; here both are this one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.distributed.ranks import newest, same
from tests.distributed.runs import ROOT, environment, free_port, make_shards, run_advgen, write_recipe

pytestmark = pytest.mark.slow

LONG: dict[str, Any] = {
    "game__stabilize_kimg": 0.5,
    "game__fade_kimg": 0.5,
    "training__checkpoint_kimg": 0.1,
    "training__collective_timeout_seconds": 60.0,
    "evaluation": {"metrics": []},
}
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a checkout with this one's scripts, and a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("machines")
    make_shards(folder)
    programs = folder / "checkout" / ".venv" / "bin"
    programs.mkdir(parents=True)
    (folder / "checkout" / "cloud").symlink_to(ROOT / "cloud")
    for name, module in (("advgen", "pipelines"), ("torchrun", "torch.distributed.run")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    write_recipe(folder / "quiet.yaml", name="quiet", **LONG)
    done = run_advgen(folder, "train", "quiet.yaml", launcher=(*TORCHRUN, str(free_port())))
    assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def started(place: Path, *command: str, log: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in a file; killed at the end if it is still there."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, cwd=place, env={**environment(), "PAUSE_SECONDS": "1", **more}, stdout=file, stderr=file
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()


def until_checkpoint(run: Path, log: Path) -> None:
    end = time.monotonic() + 240
    while newest(run) <= 0:
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


def submit(place: Path, name: str, **changes: Any) -> Path:
    recipe = write_recipe(place / f"{name}.yaml", name=name, **{**LONG, **changes})
    settings = {"kind": "machines", "addresses": ["127.0.0.1", "localhost"], "processes": 1, "port": free_port()}
    settings |= {"checkout": str(place / "checkout"), "folder": str(place)}
    (place / "two.yaml").write_text(yaml.safe_dump(settings))
    done = run_advgen(place, "submit", recipe.name, "--on", "machines", "--cluster", "two.yaml")
    assert done.returncode == 0, done.stderr
    return place / "runs" / name / "launch" / "machines.sh"


def test_a_machine_goes_away_and_comes_back(place: Path) -> None:
    script = str(submit(place, "stopped"))
    run, logs = place / "runs" / "stopped", [place / "stopped-0.log", place / "stopped-1.log"]
    with started(place, "bash", script, "0", log=logs[0]) as first:
        with started(place, "bash", script, "1", log=logs[1]) as second:
            until_checkpoint(run, logs[0])
            second.send_signal(signal.SIGTERM)
            assert second.wait(timeout=120) == 143, logs[1].read_text()
        assert first.poll() is None
        stopped = newest(run)
        with started(place, "bash", script, "1", log=logs[1]) as second:
            assert first.wait(timeout=400) == 0, logs[0].read_text()
            assert second.wait(timeout=60) == 0, logs[1].read_text()
    assert f"going on from runs/stopped/checkpoints/{stopped:012d}" in logs[0].read_text()
    assert "cloud/node.sh: restart 1, 0 in a row without a newer checkpoint" in logs[0].read_text()
    same(place / "runs" / "quiet", run)
    assert (run / "report.html").stat().st_size > 10_000


def test_bad_input_ends_all_at_once(place: Path) -> None:
    script = str(submit(place, "bad", data__train={"shards": "nowhere"}))
    log = place / "bad.log"
    settings = {"STAGES": "train", "NODES": "1", "PROCESSES": "1"}
    text = Path(script).read_text()
    for name, value in settings.items():
        text = "\n".join(
            f"export {name}={value}" if line.startswith(f"export {name}=") else line for line in text.split("\n")
        )
    Path(script).write_text(text)
    with started(place, "bash", script, "0", log=log) as process:
        assert process.wait(timeout=240) == 2, log.read_text()
    assert "nowhere: no shards there" in log.read_text()
    assert "cloud/node.sh: restart" not in log.read_text()


def test_a_run_folder_seen_over_ssh(place: Path, tmp_path: Path) -> None:
    """``cloud/share.sh``: machine 1 has nothing of machine 0 but SSH, and the checkpoint is one."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in ("sshd", "sshfs", "fusermount3") if shutil.which(name, path=path) is None]
    if missing or os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip(f"needs root, /dev/fuse, and {missing} (Debian: apt-get install openssh-server sshfs)")
    Path("/run/sshd").mkdir(exist_ok=True)
    port, key, mounted = str(free_port()), tmp_path / "key", tmp_path / "runs"
    for name in ("key", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    config = {"Port": port, "ListenAddress": "127.0.0.1", "HostKey": tmp_path / "host", "PidFile": "none"}
    config |= {"AuthorizedKeysFile": tmp_path / "key.pub", "StrictModes": "no", "UsePAM": "no"}
    config |= {"PermitRootLogin": "prohibit-password", "Subsystem": "sftp internal-sftp"}
    (tmp_path / "config").write_text("".join(f"{name} {value}\n" for name, value in config.items()))
    server = shutil.which("sshd", path=path)
    assert server is not None
    recipe = write_recipe(place / "shared.yaml", name="shared", **LONG)
    both = {"NODES": "2", "MASTER_PORT": str(free_port()), "PATH": f"{place / 'checkout/.venv/bin'}:{path}"}
    both |= {"ADVGEN_RUN": str(place / "runs/shared")}
    node, logs = str(ROOT / "cloud" / "node.sh"), [place / "shared-0.log", place / "shared-1.log"]
    with started(tmp_path, server, "-D", "-e", "-f", str(tmp_path / "config"), log=tmp_path / "sshd.log"):
        told = subprocess.run(
            [ROOT / "cloud" / "share.sh", "127.0.0.1", place / "runs", mounted],
            env={**os.environ, "SSH_PORT": port, "SSH_KEY": str(key)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (told.returncode, told.stdout) == (0, f"{mounted}\n"), told.stderr
        try:
            assert (mounted / "quiet" / "config.yaml").is_file()
            with (
                started(place, node, recipe.name, log=logs[0], NODE_RANK="0", **both) as first,
                started(place, node, recipe.name, "--runs", str(mounted), log=logs[1], NODE_RANK="1", **both) as second,
            ):
                assert first.wait(timeout=400) == 0, logs[0].read_text()
                assert second.wait(timeout=60) == 0, logs[1].read_text()
        finally:
            subprocess.run(["fusermount3", "-u", mounted], check=True)
    same(place / "runs" / "quiet", place / "runs" / "shared")
