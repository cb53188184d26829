"""Ranks that come to differ are found out before a checkpoint hides it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.distributed.runs import environment, make_shards, torchrun, write_recipe

# A defective device does this. (A lower bit might be rounded away before anybody looks.)
PROGRAM = """
import sys
from pathlib import Path
import torch
from advgen.build import build_trainer
from advgen.config import load_recipe
from advgen.errors import AgreedError
from advgen.runtime.preemption import StopRequest
from pipelines.terminal import TrainingBar

class Watch(TrainingBar):
    def step(self, status):
        if trainer.world.rank == 1 and trainer.clock.step == 2:
            weight = trainer.networks["generator"].get_parameter("blocks.4.dense.weight")
            weight.data.view(-1).view(torch.int32)[5] ^= 1 << 12

trainer, world = build_trainer(load_recipe(Path(sys.argv[1])))
try:
    trainer.run(Watch(quiet=True), StopRequest())
except AgreedError as error:
    sys.stdout.write(f"rank {world.rank}: {error}\\n")  # in one piece: both ranks write to one pipe
    sys.stdout.flush()
    world.close()
else:
    sys.exit("nothing was noticed")
"""


ALIGNED = """
import sys
import torch
from advgen.runtime.config import TrainingConfig
from advgen.runtime.world import World

world = World(TrainingConfig(device="cpu"))
torch.manual_seed(world.rank)
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
network[1].running_mean.normal_()
network[1].num_batches_tracked += world.rank
own = {name: value.clone() for name, value in network.state_dict().items()}
before = world.differing(network.state_dict())
world.align({"network": network})
after = world.differing(network.state_dict())
kept = all(torch.equal(value, own[name]) for name, value in network.state_dict().items())
last = network[0].weight.is_contiguous(memory_format=torch.channels_last)
sys.stdout.write(f"rank {world.rank}: {before} {after} {kept} {last}\\n")
sys.stdout.flush()
world.close()
"""


def test_what_ranks_compute_for_themselves_is_made_the_same(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(ALIGNED)
    command = [sys.executable, *torchrun(2), "program.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    differ = ["0.weight", "0.bias", "1.running_mean", "1.num_batches_tracked"]
    assert sorted(done.stdout.splitlines()) == [f"rank {rank}: {differ} [] {rank == 0} True" for rank in (0, 1)]


def test_one_bit_of_one_weight(tmp_path: Path) -> None:
    make_shards(tmp_path)
    write_recipe(tmp_path / "recipe.yaml")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, *torchrun(2), "program.py", "recipe.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    for rank in (0, 1):
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"rank {rank}:")]
        assert "'generator." in line
        assert "are not the same on all processes at 64 images" in line
        assert "the last good one is runs/run/checkpoints/000000000000" in line
    assert [path.name for path in (tmp_path / "runs/run/checkpoints").glob("[0-9]*")] == ["000000000000"]
