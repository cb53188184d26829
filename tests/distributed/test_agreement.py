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
