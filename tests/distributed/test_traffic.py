"""The counter of scripts/benchmarks/scaling_traffic.py against collectives whose number and bytes are known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from advgen.launch.scaling import Collective, Work
from scripts.benchmarks.scaling import PERIOD, works_of
from scripts.benchmarks.scaling_traffic import WRITER, Sent, overlap, readiness
from tests.distributed.runs import ROOT, environment, torchrun

# Run by each of two processes. DDP's first bucket is of 1 MiB: the layers of 90,300 gradients make two buckets.
KNOWN = """
import json, os, sys, threading
import torch
import torch.distributed as dist
from torch.profiler import record_function
from advgen.runtime.collectives import Gather
from scripts.benchmarks.scaling_traffic import collectives, new_profile

dist.init_process_group("gloo")
world, writers = dist.group.WORLD, dist.new_group(backend="gloo")
network = torch.nn.Sequential(*[torch.nn.Linear(300, 300) for _ in range(4)])
wrapped = torch.nn.parallel.DistributedDataParallel(network, bucket_cap_mb=1, init_sync=True)
for _ in range(2):  # buckets are cut anew after the first pass
    wrapped(torch.ones(2, 300)).sum().backward()
images = torch.ones(3, 5, requires_grad=True)
prof = new_profile()
prof.start()
with record_function("at:player backward"):
    wrapped(torch.ones(2, 300)).sum().backward()
with record_function("at:player backward"):
    Gather.apply(images, world).square().sum().backward()
dist.all_reduce(torch.ones(7, dtype=torch.float64))
dist.broadcast(torch.ones(11, dtype=torch.uint8), 0)
dist.all_gather_into_tensor(torch.empty(8), torch.ones(4))
dist.reduce_scatter_tensor(torch.empty(4), torch.ones(8))
parts = [torch.empty(33) for _ in range(2)]
thread = threading.Thread(target=lambda: dist.all_gather(parts, torch.ones(33), group=writers))
thread.start()
thread.join()
prof.stop()
sent, places = collectives(prof, 2)
if dist.get_rank() == 0:
    print(json.dumps({"sent": [[each.at, each.kind, each.size] for each in sent], "times": [
        [each.asked, each.start, each.end] for each in sent], "passes": places["player backward"]}))
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # as the program does, and for its reason (pipelines.__main__.program)
"""


@pytest.mark.slow
def test_every_collective_is_counted_once_with_its_bytes_and_its_caller(tmp_path: Path) -> None:
    script = tmp_path / "known.py"
    script.write_text(KNOWN)
    command = [sys.executable, *torchrun(2), str(script)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert Counter(map(tuple, told["sent"])) == {
        # What DDP makes of it is all of its gradients once; how many buckets is its own affair.
        ("player backward", "all_reduce", 4 * 3 * 90_300): 1,
        ("player backward", "all_reduce", 4 * 90_300): 1,
        ("batch statistics", "all_gather", 4 * 2 * 15): 1,
        ("batch statistics", "all_reduce", 4 * 2 * 15): 1,  # of the gather's gradient
        ("else", "all_reduce", 56): 1,
        ("else", "broadcast", 11): 1,
        ("else", "all_gather", 32): 1,
        ("else", "all_reduce", 32): 1,  # gloo has no reduce-scatter of its own
        ("checkpoint writer", "all_gather", 264): 1,
    }
    assert all(asked <= start <= end for asked, start, end in told["times"])
    assert len(told["passes"]) == 2


def test_overlap() -> None:
    def reduced(asked: float, start: float, end: float) -> Sent:
        return Sent("player backward", "all_reduce", 8, asked, start, end)

    # From 2 to 6 beside computation; the last is called for at 8 and takes until 10: 4 of 6 seconds are hidden.
    assert overlap([reduced(2.0, 2.0, 6.0), reduced(8.0, 8.0, 10.0)], [(0.0, 10.0)]) == pytest.approx((4 / 6, 0.2, 0.8))
    # One that waits for the one before it hides only what lies before the last call.
    assert overlap([reduced(2.0, 2.0, 9.0), reduced(8.0, 9.0, 10.0)], [(0.0, 10.0)]) == pytest.approx((6 / 8, 0.2, 0.8))


def test_readiness() -> None:
    bucket = Sent("player backward", "all_reduce", 8, 13.0, 13.5, 14.0)
    assert readiness(bucket, [(0.0, 4.0), (12.0, 16.0)]) == pytest.approx(0.25)
    assert readiness(bucket, [(0.0, 4.0)]) == 1.0


def test_what_was_counted_becomes_the_model_s_works() -> None:
    def counted(at: str, kind: str, size: int, ready: float) -> dict[str, Any]:
        return {"at": at, "kind": kind, "size": size, "ready": ready}

    sent = [counted("a backward", "all_reduce", 100, 0.8), counted("a update", "all_gather", 90, 1.0)]
    sent += [counted("votes", "all_reduce", 8, 1.0), counted("checkpoint", "all_reduce", 64, 1.0)]
    sent += [counted(WRITER, "all_gather", 1000, 1.0)]
    times = {"a backward": [2.0, 4.0], "a update": [1.0, 1.0], "votes": [0.1], "checkpoint": [9.0]}
    assert works_of({"places": times, "sent": sent}) == [
        Work(0.75, [Collective("all_reduce", 100, 0.8, PERIOD)]),
        Work(0.25, [Collective("all_gather", 90, 1.0, PERIOD)]),
        Work(0.0, [Collective("all_reduce", 8, 1.0, PERIOD)]),
    ]
