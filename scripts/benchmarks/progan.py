"""Recipes of a ProGAN that trains at one resolution alone, for benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advgen.config import Recipe, load_recipe
from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.shards import write_shards
from advgen.data.sources import open_source
from tests.distributed.runs import write_images


def paper_widths(most: int) -> dict[str, Any]:
    """Channels as in the paper, whose most are 512: the most up to 32 pixels, then halved with each doubling."""
    return {"fmap_max": most, "fmap_base": 16 * most}


def demo_widths(first: int, resolution: int) -> dict[str, Any]:
    """Channels as in the demo, whose first are 64: so many up to 8 pixels, then halved with each doubling."""
    rows = [4 << i for i in range(resolution.bit_length() - 2)]
    return {"channels": {r: max(1, first * 8 // max(r, 8)) for r in rows}, "latent_size": first}


def progan_recipe(
    folder: Path,
    resolution: int,
    batch: int,
    widths: Mapping[str, Any],
    *,
    steps: int = 1_000_000,
    flags: Sequence[str] = (),
) -> Recipe:
    """A recipe whose only phase is that of ``resolution``; its shards are made where they are not there yet.

    Args:
        folder: where recipe, shards and runs are.
        resolution: in pixels.
        batch: images a step.
        widths: of the networks, as keys of the game.
        steps: of the whole run.
        flags: as for `advgen train`.
    """
    shards = folder / f"shards-{resolution}"
    if not shards.exists():
        write_images(folder / f"images-{resolution}", resolution=resolution)
        source = open_source(FolderImages(path=str(folder / f"images-{resolution}")))
        write_shards(source, shards, resolution=resolution, channels=3, config=ShardingConfig())
    lengths = {4 << i: 0.0 for i in range(resolution.bit_length() - 2)}
    recipe: dict[str, Any] = {
        "name": f"bench-{resolution}",
        "runs": str(folder / "runs"),
        "data": {"resolution": resolution, "train": {"shards": str(shards)}},
        "game": {
            "kind": "progan",
            "minibatch_group": 4,
            "batch_size": batch,
            "batch_size_by_resolution": {},
            "rampup_kimg": 0,
            "stabilize_kimg_by_resolution": {**lengths, resolution: steps * batch / 1000},
            "fade_kimg": 0,
            **widths,
        },
        "training": {"threads": 1, "checkpoint_kimg": 1e6, "sample_kimg": 1e6},
        "tracking": {"wandb": "disabled"},
    }
    path = folder / f"recipe-{resolution}.yaml"
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return load_recipe(path, flags)
