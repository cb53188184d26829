from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from webdataset.compat import WebDataset

from advgen.data.config import FolderImages
from advgen.data.decode import decode
from advgen.data.shards import Manifest, read_index, verify_shards, write_shards
from advgen.data.sources import open_source
from advgen.errors import UserError
from tests.unit.data.make import encoded, folder_of, picture, shards_of


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
@pytest.mark.parametrize("classes", [0, 3])
def test_stock_webdataset_reads_everything_back(tmp_path: Path, classes: int) -> None:
    manifest = shards_of(tmp_path, 23, 10, classes=classes)
    assert [shard.samples for shard in manifest.shards] == [10, 10, 3]
    images = FolderImages(path=str(tmp_path / "images"), labels="folders" if classes else "none")
    wanted = list(open_source(images))
    urls = [str(tmp_path / "shards" / shard.name) for shard in manifest.shards]
    found = list(WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [image.key for image in wanted]
    assert [sample["png"] for sample in found] == [image.bytes for image in wanted]
    assert [int(s["cls"]) if "cls" in s else None for s in found] == [image.label for image in wanted]
    assert [c.count for c in manifest.classes] == ([8, 8, 7] if classes else [])


def test_the_index_leads_to_the_bytes(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 7, 3, classes=2)
    wanted = list(open_source(FolderImages(path=str(tmp_path / "images"), labels="folders")))
    entries = [(shard, entry) for shard in manifest.shards for entry in read_index(tmp_path / "shards", shard)]
    for (shard, entry), image in zip(entries, wanted, strict=True):
        data = (tmp_path / "shards" / shard.name).read_bytes()[entry.offset : entry.offset + entry.size]
        assert (data, entry.key, entry.label, entry.name) == (image.bytes, image.key, image.label, image.name)


def test_equal_images_give_equal_bytes_on_any_threads(tmp_path: Path) -> None:
    source = open_source(FolderImages(path=str(folder_of(tmp_path / "images", 20, size=24))))
    made = [
        write_shards(source, tmp_path / f"t{n}", resolution=8, channels=1, shard_samples=6, threads=n)
        for n in (0, 1, 3)
    ]
    assert made[0] == made[1] == made[2]
    assert made[0].digest == Manifest.load(tmp_path / "t3").digest
    assert (tmp_path / "t0" / "manifest.json").read_bytes() == (tmp_path / "t3" / "manifest.json").read_bytes()
    assert verify_shards(tmp_path / "t0") == made[0]


def test_jpeg_is_kept_and_small_images_are_counted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    jpeg = encoded(picture(0, 16), "JPEG")
    (tmp_path / "images" / "0.jpeg").write_bytes(jpeg)
    (tmp_path / "images" / "1.png").write_bytes(encoded(picture(1, 4)))
    source = open_source(FolderImages(path=str(tmp_path / "images")))
    manifest = write_shards(source, tmp_path / "s", resolution=16, channels=3, shard_samples=9)
    data = (tmp_path / "s" / manifest.shards[0].name).read_bytes()
    first, second = read_index(tmp_path / "s", manifest.shards[0])
    assert data[first.offset : first.offset + first.size] == jpeg
    assert decode(data[second.offset : second.offset + second.size], 3).shape == (3, 16, 16)
    assert manifest.enlarged == 1


def test_bad_images_stop_or_are_listed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "images", 4)
    jpeg = encoded(picture(9, 32), "JPEG")
    (folder / "1b.jpg").write_bytes(jpeg[: len(jpeg) * 2 // 3])
    source = open_source(FolderImages(path=str(folder)))
    with pytest.raises(UserError, match=r"1b\.jpg cannot be decoded .*Remove it.*--on-bad-image skip"):
        write_shards(source, tmp_path / "s", resolution=8, channels=3, shard_samples=2)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    manifest = write_shards(source, tmp_path / "s", resolution=8, channels=3, shard_samples=2, on_bad="skip")
    assert manifest.samples == 4
    assert [skipped.name for skipped in manifest.skipped] == ["1b.jpg"]
    for path in folder.glob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="no image can be decoded"):
        source = open_source(FolderImages(path=str(folder)))
        write_shards(source, tmp_path / "t", resolution=8, channels=3, shard_samples=2, on_bad="skip")


def test_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    source = open_source(FolderImages(path=str(folder_of(tmp_path / "images", 6))))

    def interrupt(done: int, total: int) -> None:
        assert total == 6
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(source, tmp_path / "s", resolution=8, channels=3, shard_samples=2, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_an_existing_folder_is_repaired_or_refused(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 6, 2)
    broken = tmp_path / "shards" / manifest.shards[1].name
    broken.write_bytes(b"")
    assert shards_of(tmp_path, 6, 2) == manifest == verify_shards(tmp_path / "shards")
    with pytest.raises(UserError, match="holds other shards"):
        shards_of(tmp_path, 7, 2)
    with pytest.raises(UserError, match="holds shards of 8 px"):
        shards_of(tmp_path, 6, 2, size=16)
    assert verify_shards(tmp_path / "shards") == manifest
    source = open_source(FolderImages(path=str(tmp_path / "images")))
    with pytest.raises(UserError, match="is no folder of shards"):
        write_shards(source, tmp_path / "images", resolution=8, channels=3, shard_samples=2)


def test_verify_names_the_shard(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 6, 2)
    path = tmp_path / "shards" / manifest.shards[1].name
    data = path.read_bytes()
    path.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])
    with pytest.raises(UserError, match=r"shard-000001\.tar: its content changed"):
        verify_shards(tmp_path / "shards")
    path.write_bytes(data[:-1])
    with pytest.raises(UserError, match=r"shard-000001\.tar: has"):
        verify_shards(tmp_path / "shards")
    path.unlink()
    with pytest.raises(UserError, match=r"shard-000001\.tar: is missing"):
        verify_shards(tmp_path / "shards")
    path.write_bytes(data)
    (tmp_path / "shards" / "shard-000001.idx").write_text("[]\n")
    with pytest.raises(UserError, match=r"shard-000001\.idx: is damaged"):
        verify_shards(tmp_path / "shards")


def test_manifests_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no manifest.json"):
        Manifest.load(tmp_path)
    shards_of(tmp_path, 2, 2)
    path = tmp_path / "shards" / "manifest.json"
    good = json.loads(path.read_text())
    for change, message in (
        ("{", "cannot be read"),
        ("[]", "is no manifest"),
        (json.dumps({**good, "version": 2}), "format version 2"),
        (json.dumps({**good, "samples": "2"}), "samples"),
        (json.dumps({**good, "samples": 3}), "was edited"),
        (json.dumps({k: v for k, v in good.items() if k != "shards"}), "shards"),
    ):
        path.write_text(change)
        with pytest.raises(UserError, match=message):
            Manifest.load(tmp_path / "shards")


def test_images_of_one_shard_are_the_pictures(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 3, 3)
    data = (tmp_path / "shards" / manifest.shards[0].name).read_bytes()
    for number, entry in enumerate(read_index(tmp_path / "shards", manifest.shards[0])):
        pixels = decode(data[entry.offset : entry.offset + entry.size], 3)
        assert (pixels == np.moveaxis(picture(number), -1, 0)).all()
