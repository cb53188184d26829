"""What an engine leaves behind when a phase ends: nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.runs import environment, make_shards, write_recipe

# In a process of its own: DeepSpeed's process group must not stay in that of the tests.
PROGRAM = """
import gc, json, sys, threading, weakref
import torch.distributed as dist
import advgen.trainer as trainer_module
from advgen.build import build_trainer
from advgen.config import load_recipe
from advgen.runtime.preemption import StopRequest
from pathlib import Path
from pipelines.terminal import TrainingBar

made, groups, alive = [], [], []
build = trainer_module.build_engines

def watched(*arguments):
    gc.collect()
    alive.append(sum(reference() is not None for reference in made))
    engines = build(*arguments)
    made.extend(weakref.ref(part) for engine in engines.values() for part in (engine, engine._module))
    groups.append(len(dist.distributed_c10d._world.pg_map) if dist.is_initialized() else 0)
    return engines

trainer_module.build_engines = watched
trainer, _ = build_trainer(load_recipe(Path(sys.argv[1])))
trainer.run(TrainingBar(quiet=True), StopRequest())
gc.collect()
left = []
for name, network in trainer.networks.items():
    for path, parameter in network.named_parameters():
        whole = parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size()
        hooks = [*(parameter._post_accumulate_grad_hooks or ()), *(parameter._backward_hooks or ())]
        if hooks or vars(parameter) or parameter.grad is not None or not whole:
            left.append(f"{name}.{path}")
print(json.dumps({
    "alive": [*alive, sum(reference() is not None for reference in made)],
    "threads": [thread.name for thread in threading.enumerate()],
    "groups": groups,
    "left": left,
}))
"""


@pytest.mark.parametrize(
    "engine", ["ddp", "zero0", pytest.param("zero1", marks=pytest.mark.slow), "zero2", "zero2_offload"]
)
def test_five_phases_leave_nothing_behind(tmp_path: Path, engine: str) -> None:
    make_shards(tmp_path)
    recipe = write_recipe(tmp_path / "recipe.yaml", training__engine=engine)
    command = [sys.executable, "-c", PROGRAM, str(recipe)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["alive"] == [0] * 6, "engines that outlive their phase"
    assert found["threads"] == ["MainThread"]
    assert len(set(found["groups"])) == 1, "process groups made at phase changes"
    assert found["left"] == [], "hooks, attributes, gradients or shared buffers on parameters"
