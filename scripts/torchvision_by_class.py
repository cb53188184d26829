"""MNIST or CIFAR-10 as PNG, one folder a class; torchvision downloads them.

    python scripts/torchvision_by_class.py mnist data/mnist-images
    python scripts/torchvision_by_class.py mnist data/mnist-padded --pad 2   # 32 pixels, none of them new

OUT/train and OUT/test are then sources of `advgen shard` with --labels folders. What torchvision downloads stays in
OUT/download, where it looks first: a machine without a network can be given the files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import ImageOps
from torchvision.datasets import CIFAR10, MNIST

DATASETS = {"mnist": MNIST, "cifar10": CIFAR10}


def main(name: str, out: Path, pad: int = 0) -> None:
    """Write ``out/{train,test}/<class>/<number>.png``; a digit's class is its number; ``pad`` black pixels around."""
    for part in ("train", "test"):
        images = DATASETS[name](str(out / "download"), train=part == "train", download=True)
        for number, (image, label) in enumerate(images):
            folder = out / part / (str(label) if name == "mnist" else images.classes[label])
            folder.mkdir(parents=True, exist_ok=True)
            ImageOps.expand(image, pad).save(folder / f"{number:05d}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--pad", type=int, default=0, help="so many black pixels on each side")
    given = parser.parse_args()
    main(given.name, given.out, given.pad)
