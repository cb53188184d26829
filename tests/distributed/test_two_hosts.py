"""Two hosts, made of network namespaces with a cable between them, train through torchrun; then the cable is cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.ranks import newest, same
from tests.distributed.runs import environment, make_shards, write_recipe

pytestmark = pytest.mark.slow

COLLECTIVE_LIMIT = 15.0
END_LIMIT = COLLECTIVE_LIMIT + 30.0  # torchrun's agents notice after their worker has, and take a while to leave
LONG: dict[str, Any] = {
    "game__stabilize_kimg": 1.5,
    "game__fade_kimg": 1.5,
    "training__checkpoint_kimg": 0.4,
    "training__collective_timeout_seconds": COLLECTIVE_LIMIT,
}


class Hosts:
    """Two namespaces, each with one end of a virtual cable."""

    def __init__(self, name: str) -> None:
        self.names = [f"{name}a", f"{name}b"]
        self.addresses = ["10.213.77.1", "10.213.77.2"]
        for host in self.names:
            _ip("netns", "add", host)
        _ip("link", "add", "cable", "netns", self.names[0], "type", "veth", "peer", "cable", "netns", self.names[1])
        for host, address in zip(self.names, self.addresses, strict=True):
            _ip("-n", host, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _ip("-n", host, "link", "set", device, "up")

    def give_up_early(self) -> None:
        """Let the kernel give a dead connection up after 13 seconds instead of 15 minutes."""
        for host in self.names:
            _ip("netns", "exec", host, "sysctl", "-q", "-w", "net.ipv4.tcp_retries2=5")

    def plug(self, state: str) -> None:
        """``down`` cuts the cable; ``up`` mends it."""
        _ip("-n", self.names[0], "link", "set", "cable", state)

    def remove(self) -> None:
        """Take everything away."""
        for host in self.names:
            _ip("netns", "delete", host)

    def train(self, folder: Path, recipe: Path, port: int, rendezvous: str) -> list[subprocess.Popen[str]]:
        """One node of one process on each host, as a person would type it there."""
        nodes = []
        for rank, (host, address) in enumerate(zip(self.names, self.addresses, strict=True)):
            if rendezvous == "static":
                meet = (f"--node-rank={rank}", f"--master-addr={self.addresses[0]}", f"--master-port={port}")
            else:
                # Both hosts bear this machine's name, from which torchrun would guess who keeps the rendezvous.
                keeper = f"--rdzv-conf=is_host={int(rank == 0)}"
                endpoint = f"--rdzv-endpoint={self.addresses[0]}:{port}"
                meet = ("--rdzv-backend=c10d", endpoint, "--rdzv-id=run", keeper, f"--local-addr={address}")
            launch = ("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", *meet)
            command = [sys.executable, *launch, "-m", "pipelines", "train", recipe.name]
            nodes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", host, *command],
                    cwd=folder,
                    env={**environment(), "GLOO_SOCKET_IFNAME": "cable"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return nodes


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip (Debian: iproute2)")
    name = f"advgen{os.getpid()}"
    try:
        made = Hosts(name)
    except subprocess.CalledProcessError as error:
        for host in ("a", "b"):
            subprocess.run(["ip", "netns", "delete", name + host], capture_output=True)
        pytest.skip(f"network namespaces are not permitted here: {error.stderr.decode().strip()}")
    try:
        yield made
    finally:
        made.remove()


def ends(nodes: list[subprocess.Popen[str]], limit: float) -> list[tuple[str, str]]:
    """Output and errors of both nodes, which must end within ``limit`` seconds."""
    until = time.monotonic() + limit
    try:
        return [node.communicate(timeout=max(0.1, until - time.monotonic())) for node in nodes]
    finally:
        for node in nodes:
            if node.poll() is None:
                node.kill()
                node.communicate()


@pytest.mark.parametrize("rendezvous", ["static", "c10d"])
def test_two_hosts_whose_cable_is_cut(tmp_path: Path, hosts: Hosts, rendezvous: str) -> None:
    if rendezvous == "c10d":  # torchrun's agent reads from it without a limit of its own; a static one is not asked
        hosts.give_up_early()
    make_shards(tmp_path)
    quiet = write_recipe(tmp_path / "quiet.yaml", name="quiet", **LONG)
    cut = write_recipe(tmp_path / "cut.yaml", name="cut", **LONG)
    nodes = hosts.train(tmp_path, quiet, 29400, rendezvous)
    told = ends(nodes, 240)
    assert [node.returncode for node in nodes] == [0, 0], told
    assert "training on cpu, 2 processes" in told[0][0] + told[1][0]

    nodes = hosts.train(tmp_path, cut, 29401, rendezvous)
    until = time.monotonic() + 120
    while newest(tmp_path / "runs" / "cut") <= 2000:
        assert time.monotonic() < until, "no checkpoint in two minutes"
        assert all(node.poll() is None for node in nodes)
        time.sleep(0.05)
    hosts.plug("down")
    began = time.monotonic()
    told = ends(nodes, END_LIMIT)
    took = time.monotonic() - began
    assert all(node.returncode for node in nodes), told
    lost = [errors.count("another process of this run has ended, or did not answer") for _, errors in told]
    assert lost == [1, 1], (took, told)

    hosts.plug("up")
    nodes = hosts.train(tmp_path, cut, 29402, rendezvous)
    told = ends(nodes, 240)
    assert [node.returncode for node in nodes] == [0, 0], told
    same(tmp_path / "runs" / "quiet", tmp_path / "runs" / "cut")
    print(f"{rendezvous}: both sides ended {took:.1f} s after the cut")
