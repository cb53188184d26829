"""What tests of several folders share: tiny shards and a tiny recipe. Torch is not imported here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.shards import write_shards
from advgen.data.sources import open_source


def write_images(folder: Path, count: int, size: int = 16, seed: int = 0) -> Path:
    """Smooth random PNGs, the same for the same arguments."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    for number in range(count):
        coarse = Image.fromarray(random.randint(0, 256, (4, 4, 3)).astype(np.uint8))
        coarse.resize((size, size), Image.Resampling.BILINEAR).save(folder / f"{number:03d}.png")
    return folder


def tiny_shards(folder: Path, count: int, seed: int = 0) -> Path:
    """Shards of ``count`` images of 16x16 pixels at ``folder``, made once."""
    if not folder.exists():
        source = open_source(
            FolderImages(path=str(write_images(folder.with_name(folder.name + "-images"), count, 16, seed)))
        )
        config = ShardingConfig(shard_samples=16, shuffle_seed=None, duplicates="keep")
        write_shards(source, folder, resolution=16, channels=3, config=config)
    return folder


def tiny_recipe(folder: Path, **changes: Any) -> Path:
    """Write ``folder/recipe.yaml``: ProGAN at 16x16 in 26 steps of 8 images, a few seconds on one core.

    Shards of 40 images, 16 held-out ones and the runs lie in ``folder`` too; all paths are absolute. The run folder is
    ``folder/runs/tiny``. Phases end after 48, 80, 128, 160 and 208 images.

    Args:
        folder: where; may hold an earlier tiny recipe, which is replaced while its shards and runs stay.
        changes: merged into the recipe, mappings key by key: ``tiny_recipe(folder, seed=1, game={"hold_steps": 2})``.
    """
    recipe: dict[str, Any] = {
        "name": "tiny",
        "seed": 0,
        "runs": str(folder / "runs"),
        "data": {
            "resolution": 16,
            "train": {"shards": str(tiny_shards(folder / "shards", 40))},
            "held_out": {"shards": str(tiny_shards(folder / "held-out", 16, seed=1))},
        },
        "game": {
            "kind": "progan",
            "latent_size": 8,
            "channels": {4: 8, 8: 8, 16: 4},
            "batch_size": 8,
            "stabilize_kimg": 0.048,
            "fade_kimg": 0.032,
            "rampup_kimg": 0,
            "hold_steps": 1,
            "minibatch_group": 4,
        },
        "training": {
            "device": "cpu",
            "threads": 1,
            "log_every_steps": 1,
            "checkpoint_kimg": 0.032,
            "sample_kimg": 0.1,
            "sample_rows": 2,
            "sample_columns": 4,
        },
        "evaluation": {"samples": 16, "batch_size": 8, "cache": str(folder / "cache")},
        "tracking": {"wandb": "disabled"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(merged(recipe, changes), sort_keys=False))
    return path


def merged(values: Mapping[Any, Any], changes: Mapping[Any, Any]) -> dict[Any, Any]:
    """``values`` with ``changes`` on top, nested mappings key by key."""
    result = dict(values)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
