"""A process that hangs is ended by its own watchdog, and says where it hung."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist

from advgen.errors import UserError
from advgen.runtime.faults import HUNG, lost_contact
from advgen.runtime.world import _fingerprint, check_device
from tests.e2e.conftest import environment

PROGRAM = """
import time
from advgen.runtime.faults import Watchdog

def waits_for_ever():
    time.sleep(60)

with Watchdog(1.0, "runs/x: rank 1") as watchdog:
    for _ in range(15):
        time.sleep(0.1)
        watchdog.beat()
    waits_for_ever()
"""


def test_a_process_that_hangs_ends_itself() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment(), capture_output=True, text=True, timeout=50
    )
    assert done.returncode == HUNG == 71
    assert time.monotonic() - began < 40
    assert "runs/x: rank 1 has made no step for 1 s and ends itself" in done.stderr
    assert "in waits_for_ever" in done.stderr


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (dist.DistNetworkError("The client socket has timed out"), True),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (UserError("no space"), False),
        (ValueError("gloo"), False),
    ],
    ids=str,
)
def test_which_errors_mean_that_another_process_is_gone(error: Exception, lost: bool) -> None:
    told = lost_contact(error, 15.0)
    assert (told is not None) == lost
    if told is not None:
        assert "did not answer for 15 s" in str(told)
        assert told.exit_code == 75


def test_each_rank_has_a_gpu_of_its_own() -> None:
    check_device("1", 2)
    for rank, devices in (("2", 2), ("0", 0), ("x", 2)):
        with pytest.raises(UserError, match=f"LOCAL_RANK={rank}: this host has {devices} GPUs"):
            check_device(rank, devices)


def test_a_fingerprint_changes_with_any_bit_and_any_exchange() -> None:
    values = torch.randn(7, generator=torch.Generator().manual_seed(0))
    known = {tuple(_fingerprint(values).tolist())}
    for place in range(7):
        for bit in range(32):
            other = values.clone()
            other.view(torch.int32)[place] ^= (1 << bit) - (1 << 32 if bit == 31 else 0)
            known.add(tuple(_fingerprint(other).tolist()))
    known.add(tuple(_fingerprint(values.flip(0)).tolist()))
    assert len(known) == 1 + 7 * 32 + 1
    for tensor in (torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.int64), torch.ones(2, 2).double()):
        assert torch.equal(_fingerprint(tensor), _fingerprint(tensor.clone()))
