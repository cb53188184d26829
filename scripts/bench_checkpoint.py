"""How long a checkpoint of the paper-size ProGAN stops the training, and how long it is written beside it.

    python scripts/bench_checkpoint.py

Networks, averages and moments are those of the last phase of `pipelines/recipes/progan-celebahq-1024.yaml`; the
optimizers have made a step of zero gradients (a real one takes minutes on a CPU). What is timed is what the trainer
does between two steps: equal on all ranks, finite, copied. The rest is a thread's.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from advgen.build import build_trainer  # noqa: E402
from advgen.clock import Clock  # noqa: E402
from advgen.config import load_recipe  # noqa: E402
from advgen.runtime.engine import NoMoments  # noqa: E402
from advgen.runtime.engines import build_engines, collect_state  # noqa: E402
from tests.distributed.runs import make_shards  # noqa: E402

TIMES = 5


def multiplications(seconds: float) -> float:
    """Products of 512x512 matrices a second, as a stand-in for a training that goes on."""
    factor, count, began = torch.ones(512, 512), 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        torch.mm(factor, factor)
        count += 1
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_shards(folder, resolution=1024)
        flags = ["--data.train.shards", str(folder / "shards"), "--runs", str(folder / "runs")]
        flags += ["--training.device", "cpu", "--training.threads", "1", "--tracking.wandb", "disabled"]
        recipe = load_recipe(ROOT / "pipelines/recipes/progan-celebahq-1024.yaml", flags)
        trainer, world = build_trainer(recipe)
        last = trainer.timeline.phases[-1]
        engines = build_engines(last, trainer.networks, world, recipe.training, NoMoments())
        for engine in engines.values():
            for parameter in engine.parameters.values():
                parameter.grad = torch.zeros_like(parameter)
            engine.update(0.0)
        trainer.journal.open()
        alone = multiplications(3.0)
        stalls, written, beside = [], [], []
        for number in range(TIMES):
            trainer.clock = replace(Clock(), nimg=number + 1, phase=len(trainer.timeline.phases) - 1, phase_step=1)
            began = time.perf_counter()
            trainer._save(collect_state(engines.values()), ended=None)
            stalls.append(time.perf_counter() - began)
            beside.append(multiplications(1.0))
            trainer._saver.wait()
            written.append(time.perf_counter() - began)
            if trainer._saver.failure is not None:
                raise trainer._saver.failure
        newest = max((trainer.folder.checkpoints).glob("0*"))
        size = sum(path.stat().st_size for path in newest.iterdir())
        trainer.journal.close()
    print(
        f"torch {torch.__version__}, 1 thread; checkpoint of {size / 1e6:.0f} MB, {TIMES} times: training stands still "
        f"for {statistics.median(stalls):.2f} s (at most {max(stalls):.2f}); whole after "
        f"{statistics.median(written):.1f} s (at most {max(written):.1f}); meanwhile "
        f"{statistics.median(beside) / alone:.0%} of the speed"
    )


if __name__ == "__main__":
    main()
