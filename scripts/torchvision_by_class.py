"""MNIST or CIFAR-10 as PNG, one folder a class; torchvision downloads them.

    python scripts/torchvision_by_class.py mnist data/mnist-images

OUT/train and OUT/test are then sources of `advgen shard` with --labels folders. What torchvision downloads stays in
OUT/download, where it looks first: a machine without a network can be given the files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torchvision.datasets import CIFAR10, MNIST

DATASETS = {"mnist": MNIST, "cifar10": CIFAR10}


def main(name: str, out: Path) -> None:
    """Write ``out/{train,test}/<class>/<number>.png``; a digit's class is its number."""
    for part in ("train", "test"):
        images = DATASETS[name](str(out / "download"), train=part == "train", download=True)
        for number, (image, label) in enumerate(images):
            folder = out / part / (str(label) if name == "mnist" else images.classes[label])
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number:05d}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument("out", type=Path, help="folder to write")
    given = parser.parse_args()
    main(given.name, given.out)
