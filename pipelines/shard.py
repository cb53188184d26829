"""``advgen shard SOURCE OUT``: images into WebDataset shards."""

from __future__ import annotations

import argparse
from pathlib import Path

from advgen.data.config import FolderImages
from advgen.data.shards import write_shards
from advgen.data.sources import open_source
from advgen.errors import UserError
from pipelines.terminal import console, counting


def main(argv: list[str]) -> int:
    """Shard a folder or .zip of images."""
    parser = argparse.ArgumentParser(
        prog="advgen shard",
        description="Write the images of a folder or .zip (PNG, JPEG, WebP) into WebDataset tars with a manifest. "
        "Images of the right size are stored as they are; others are cropped at the centre and resized (Lanczos).",
    )
    parser.add_argument("source", help="folder (searched through) or .zip of images")
    parser.add_argument("out", type=Path, help="folder of shards to write")
    parser.add_argument("--resolution", type=int, required=True, help="pixels a side, a power of two")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3, help="1 grey, 3 colour (default)")
    parser.add_argument(
        "--labels", choices=("none", "folders"), default="none", help="classes from first-level folders"
    )
    parser.add_argument("--shard-samples", type=int, default=1000, help="images in a shard (default 1000)")
    parser.add_argument(
        "--on-bad-image", choices=("stop", "skip"), default="stop", help="for images that do not decode"
    )
    given = parser.parse_args(argv)
    if given.resolution < 4 or given.resolution & (given.resolution - 1):
        raise UserError(f"--resolution {given.resolution}: must be a power of two and at least 4.")
    if given.shard_samples < 1:
        raise UserError(f"--shard-samples {given.shard_samples}: must be at least 1.")
    source = open_source(FolderImages(path=given.source, labels=given.labels))
    with counting("images") as progress:
        manifest = write_shards(
            source,
            given.out,
            resolution=given.resolution,
            channels=given.channels,
            shard_samples=given.shard_samples,
            on_bad=given.on_bad_image,
            progress=progress,
        )
    skipped = f", {len(manifest.skipped)} skipped (listed in the manifest)" if manifest.skipped else ""
    console.print(f"{given.out}: {manifest.samples:,} images in {len(manifest.shards)} shards{skipped}")
    return 0
