"""Small real runs through the command line, for tests that compare them."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from advgen.runtime.checkpoint import StoredMoments

ROOT = Path(__file__).parents[2]


def write_images(folder: Path, count: int = 96, resolution: int = 16, seed: int = 7) -> None:
    """Smooth random pictures, the same every time."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        small = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((resolution, resolution), Image.Resampling.BICUBIC).save(folder / f"{index:04d}.png")


def write_recipe(path: Path, **changes: Any) -> Path:
    """A growing GAN from 4 to 16 pixels as a recipe; ``changes`` are dotted keys with double underscores."""
    recipe: dict[str, Any] = {
        "name": "run",
        "seed": 3,
        "data": {"resolution": 16, "train": {"shards": "shards"}},
        "game": {
            "kind": "progan",
            "latent_size": 8,
            "channels": {4: 8, 8: 8, 16: 4},
            "minibatch_group": 4,
            "learning_rate": 0.001,
            "rampup_kimg": 0,
            "batch_size": 16,
            "stabilize_kimg": 0.064,
            "fade_kimg": 0.064,
            "hold_steps": 1,
        },
        "training": {"threads": 1, "device": "cpu", "log_every_steps": 1},
        "tracking": {"wandb": "disabled"},
    }
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = recipe
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = copy.deepcopy(value)
    path.write_text(json.dumps(recipe, indent=1))  # JSON is YAML
    return path


def make_shards(folder: Path, resolution: int = 16) -> None:
    """``shards`` in ``folder``, by the command line."""
    write_images(folder / "images", resolution=resolution)
    # In the source's order: cases in float32 are chosen where rounding is not amplified, which depends on the data.
    options = ("--shard-samples", "40", "--shuffle-seed", "None")
    advgen(folder, "shard", "images", "shards", "--resolution", str(resolution), *options)


def make_labelled_shards(folder: Path, resolution: int = 16) -> None:
    """``labelled`` in ``folder``: 48 pictures of each of two classes."""
    for index, name in enumerate(("cats", "dogs")):
        write_images(folder / "labelled-images" / name, 48, resolution, seed=7 + index)
    options = ("--labels", "folders", "--shard-samples", "40")
    advgen(folder, "shard", "labelled-images", "labelled", "--resolution", str(resolution), *options)


def make_paired_shards(folder: Path, resolution: int = 16) -> None:
    """``paired`` in ``folder``: pictures with label maps of four classes and instance maps of sixteen ids."""
    write_images(folder / "paired-images", 48, resolution)
    draw = np.random.default_rng(5)
    for name in ("label-maps", "instance-maps"):
        (folder / name).mkdir()
    for index in range(48):
        labels = draw.integers(0, 4, (4, 4), dtype=np.uint8)
        maps = {"label-maps": labels, "instance-maps": np.arange(16, dtype=np.uint16).reshape(4, 4) + 900}
        for name, values in maps.items():
            large = values.repeat(resolution // 4, 0).repeat(resolution // 4, 1)
            Image.fromarray(large).save(folder / name / f"{index:04d}.png")
    maps = ("--label-maps", "label-maps", "--label-map-classes", "4", "--instance-maps", "instance-maps")
    options = (*maps, "--shard-samples", "20")
    advgen(folder, "shard", "paired-images", "paired", "--resolution", str(resolution), *options)


# What a recipe changes to train on them.
LABELLED: dict[str, Any] = {"data__train": {"shards": "labelled"}, "data__classes": 2}
POINTS: dict[str, Any] = {
    "data": {"points": {"kind": "grid25"}, "resolution": 1, "channels": 2},
    "evaluation": {"metrics": ["modes", "high_quality"]},
}
SPRINKLER: dict[str, Any] = {
    "data": {"points": {"kind": "sprinkler"}, "resolution": 1, "channels": 1},
    "evaluation": {"metrics": []},
}
LINEAR: dict[str, Any] = {
    "data": {"points": {"kind": "linear_gaussian"}, "resolution": 1, "channels": 3},
    "evaluation": {"metrics": []},
}
PAIRED: dict[str, Any] = {
    "data__train": {"shards": "paired"},
    "data__label_map_classes": 4,
    "data__instance_maps": True,
}


def environment() -> dict[str, str]:
    """One thread a process, nothing inherited from a launcher."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run_advgen(folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a stage in ``folder``, whatever comes of it."""
    command = [sys.executable, *launcher, "-m", "pipelines", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)


def advgen(folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> None:
    """Run a stage in ``folder``; a failure shows its output."""
    done = run_advgen(folder, *arguments, launcher=launcher)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accelerate(processes: int) -> tuple[str, ...]:
    """Launch by accelerate, on a free port. Without ``--multi_gpu`` it starts one process, whatever the number."""
    flags = ("--multi_gpu", f"--num_processes={processes}", f"--main_process_port={free_port()}")
    return ("-m", "accelerate.commands.launch", *flags)


def torchrun(processes: int) -> tuple[str, ...]:
    """Launch on gloo processes of this machine, with a free port of their own."""
    return ("-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone")


def final_tensors(run: Path) -> dict[str, np.ndarray]:
    """Every tensor of the newest checkpoint."""
    newest = max(path.parent for path in (run / "checkpoints").glob("[0-9]*/complete.json"))
    return {
        **{f"networks/{name}": value for name, value in load_file(newest / "networks.safetensors").items()},
        **{f"optimizers/{name}": value.numpy() for name, value in StoredMoments(newest).tensors().items()},
    }


def logged(run: Path) -> list[dict[str, Any]]:
    """The scalar records of a log."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "scalars"]
