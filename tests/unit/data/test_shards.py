from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from webdataset.compat import WebDataset

from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.decode import decode
from advgen.data.folders import exclusive
from advgen.data.manifest import Entry, Manifest, Shard, dump_manifest, read_index
from advgen.data.shards import load_manifest, verify_shards, write_shards
from advgen.data.sources import Source, open_source
from advgen.errors import UserError
from tests.unit.data.make import encoded, folder_of, picture, shards_of


def sharded(source: Source, out: Path, resolution: int, **options) -> Manifest:
    channels = options.pop("channels", 3)
    progress = options.pop("progress", None)
    config = ShardingConfig(**{"shuffle_seed": None, **options})
    return write_shards(source, out, resolution=resolution, channels=channels, config=config, progress=progress)


def index_of(folder: Path, shard: Shard) -> list[Entry]:
    return read_index(lambda name, _: (folder / name).read_bytes(), shard, str(folder))


def image_of(data: bytes, entry: Entry) -> bytes:
    offset, size = entry.spans[0]
    return data[offset : offset + size]


def contents(source: Source) -> list[bytes]:
    with source.place.opened() as read:
        return [read(item.files[0]) for item in source.items]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
@pytest.mark.parametrize("classes", [0, 3])
def test_stock_webdataset_reads_everything_back(tmp_path: Path, classes: int) -> None:
    manifest = shards_of(tmp_path, 23, 10, classes=classes)
    assert [shard.samples for shard in manifest.shards] == [10, 10, 3]
    images = FolderImages(path=str(tmp_path / "images"), labels="folders" if classes else "none")
    source = open_source(images)
    wanted = source.items
    urls = [str(tmp_path / "shards" / shard.name) for shard in manifest.shards]
    found = list(WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [image.key for image in wanted]
    assert [sample["png"] for sample in found] == contents(source)
    assert [int(s["cls"]) if "cls" in s else None for s in found] == [image.label for image in wanted]
    assert [c.count for c in manifest.classes] == ([8, 8, 7] if classes else [])


def test_the_index_leads_to_the_bytes(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 7, 3, classes=2)
    source = open_source(FolderImages(path=str(tmp_path / "images"), labels="folders"))
    entries = [(shard, entry) for shard in manifest.shards for entry in index_of(tmp_path / "shards", shard)]
    for (shard, entry), image, wanted in zip(entries, source.items, contents(source), strict=True):
        data = image_of((tmp_path / "shards" / shard.name).read_bytes(), entry)
        assert (data, entry.key, entry.label, entry.name) == (wanted, image.key, image.label, image.name)


@pytest.mark.parametrize("resolution", [8, 64])
def test_equal_images_give_equal_bytes_on_any_number_of_processes(tmp_path: Path, resolution: int) -> None:
    source = open_source(FolderImages(path=str(folder_of(tmp_path / "images", 410, size=24))))
    made = [sharded(source, tmp_path / f"t{n}", resolution, channels=1, shard_samples=60, workers=n) for n in (1, 3)]
    assert made[0] == made[1] and made[0].digest == load_manifest(tmp_path / "t3").digest
    names = sorted(path.relative_to(tmp_path / "t1") for path in (tmp_path / "t1").rglob("*") if path.is_file())
    assert len(names) == 3 + 2 * 7 + (7 if resolution == 64 else 0)
    for name in names:
        assert (tmp_path / "t1" / name).read_bytes() == (tmp_path / "t3" / name).read_bytes()
    assert verify_shards(tmp_path / "t1") == made[0]


def test_jpeg_is_kept_and_small_images_are_counted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    jpeg = encoded(picture(0, 16), "JPEG")
    (tmp_path / "images" / "0.jpeg").write_bytes(jpeg)
    (tmp_path / "images" / "1.png").write_bytes(encoded(picture(1, 4)))
    source = open_source(FolderImages(path=str(tmp_path / "images")))
    manifest = sharded(source, tmp_path / "s", 16)
    data = (tmp_path / "s" / manifest.shards[0].name).read_bytes()
    first, second = index_of(tmp_path / "s", manifest.shards[0])
    assert image_of(data, first) == jpeg
    assert decode(image_of(data, second), 3).shape == (3, 16, 16)
    assert manifest.enlarged == 1


def test_bad_images_stop_or_are_listed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "images", 4)
    jpeg = encoded(picture(9, 32), "JPEG")
    (folder / "1b.jpg").write_bytes(jpeg[: len(jpeg) * 2 // 3])
    (folder / "9.png").write_bytes((folder / "2.png").read_bytes())
    source = open_source(FolderImages(path=str(folder)))
    with pytest.raises(UserError, match=r"9\.png has the same bytes as 2\.png\. .*--on-bad skip, or --duplicates keep"):
        sharded(source, tmp_path / "s", 8)
    with pytest.raises(UserError, match=r"1b\.jpg cannot be decoded .*Remove it.*--on-bad skip"):
        sharded(source, tmp_path / "s", 8, duplicates="keep")
    assert not (tmp_path / "s").exists()
    manifest = sharded(source, tmp_path / "s", 8, on_bad="skip")
    assert (manifest.samples, manifest.rejected) == (4, 2)
    told = [json.loads(line) for line in (tmp_path / "s" / "rejected.jsonl").read_text().splitlines()]
    assert [each["name"] for each in told] == ["9.png", "1b.jpg"] and "same bytes" in told[0]["reason"]
    for path in folder.glob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="no image can be used"):
        sharded(open_source(FolderImages(path=str(folder))), tmp_path / "t", 8, on_bad="skip")


def test_interrupted_writing_goes_on(tmp_path: Path) -> None:
    source = open_source(FolderImages(path=str(folder_of(tmp_path / "images", 60, size=12))))

    def interrupt(done: int, total: int) -> None:
        assert total == 60
        if done == 45:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sharded(source, tmp_path / "s", 8, shard_samples=15, progress=interrupt)
    partial = tmp_path / ".s.partial"
    before = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.tar")}
    assert list(before) and not (tmp_path / "s").exists() and not list(partial.glob("*.tmp"))
    told: list[int] = []
    manifest = sharded(source, tmp_path / "s", 8, shard_samples=15, progress=lambda done, total: told.append(done))
    assert told[0] == 15 * len(before)
    for name, moment in before.items():
        assert (tmp_path / "s" / name).stat().st_mtime_ns == moment
    assert manifest == sharded(source, tmp_path / "t", 8, shard_samples=15) == verify_shards(tmp_path / "s")
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == sorted(p.name for p in (tmp_path / "t").iterdir())
    assert not partial.exists()


def test_unfinished_work_of_other_images_or_settings_is_not_used(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "images", 9)
    (folder / "8.png").write_bytes(b"")
    for resolution in (8, 16):
        with pytest.raises(UserError, match=r"8\.png is empty"):
            sharded(open_source(FolderImages(path=str(folder))), tmp_path / "s", resolution, shard_samples=3)
        assert len(list((tmp_path / ".s.partial").glob("*.done"))) == 2
    for number in range(9):
        (folder / f"{number}.png").write_bytes(encoded(picture(50 + number, 8)))
    source = open_source(FolderImages(path=str(folder)))
    assert sharded(source, tmp_path / "s", 16, shard_samples=3) == sharded(source, tmp_path / "t", 16, shard_samples=3)


def test_an_existing_folder_is_repaired_or_refused(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 6, 2)
    broken = tmp_path / "shards" / manifest.shards[1].name
    broken.write_bytes(b"")
    assert shards_of(tmp_path, 6, 2) == manifest == verify_shards(tmp_path / "shards")
    for count, size in ((7, 8), (6, 16)):
        with pytest.raises(UserError, match="holds other shards"):
            shards_of(tmp_path, count, 2, size=size)
    assert verify_shards(tmp_path / "shards") == manifest
    source = open_source(FolderImages(path=str(tmp_path / "images")))
    with pytest.raises(UserError, match="is no folder of shards"):
        sharded(source, tmp_path / "images", 8)


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    source = open_source(FolderImages(path=str(folder_of(tmp_path / "images", 4))))
    with exclusive(tmp_path / "s", "shards"), pytest.raises(UserError, match="another process is writing"):
        sharded(source, tmp_path / "s", 8)


def test_samples_are_shuffled_over_the_shards(tmp_path: Path) -> None:
    source = open_source(FolderImages(path=str(folder_of(tmp_path / "images", 60, classes=3)), labels="folders"))
    manifest = sharded(source, tmp_path / "s", 8, shuffle_seed=1, shard_samples=20)
    for shard in manifest.shards:
        assert {entry.label for entry in index_of(tmp_path / "s", shard)} == {0, 1, 2}
    other = sharded(source, tmp_path / "t", 8, shuffle_seed=2, shard_samples=20)
    assert other.digest != manifest.digest and other.samples == manifest.samples


def test_verify_names_the_shard(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 6, 2)
    path = tmp_path / "shards" / manifest.shards[1].name
    data = path.read_bytes()
    path.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])
    with pytest.raises(UserError, match=r"shard-000001\.tar: is damaged"):
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
        load_manifest(tmp_path)
    shards_of(tmp_path, 2, 2)
    path = tmp_path / "shards" / "manifest.json"
    good = json.loads(path.read_text())
    for change, message in (
        ("{", "cannot be read"),
        ("[]", "is no manifest"),
        (json.dumps({**good, "version": 1}), "format version 1"),
        (json.dumps({**good, "samples": "2"}), "samples"),
        (json.dumps({**good, "samples": 3}), "was edited"),
        (json.dumps({k: v for k, v in good.items() if k != "shards"}), "shards"),
    ):
        path.write_text(change)
        with pytest.raises(UserError, match=message):
            load_manifest(tmp_path / "shards")


def test_images_of_one_shard_are_the_pictures(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 3, 3)
    data = (tmp_path / "shards" / manifest.shards[0].name).read_bytes()
    for number, entry in enumerate(index_of(tmp_path / "shards", manifest.shards[0])):
        pixels = decode(image_of(data, entry), 3)
        assert (pixels == np.moveaxis(picture(number), -1, 0)).all()


def test_a_manifest_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 2, 2)
    forged = replace(manifest, shards=(replace(manifest.shards[0], name="../images/0.png"),))
    (tmp_path / "shards" / "manifest.json").write_text(dump_manifest(forged))
    with pytest.raises(UserError, match="leads out of the folder"):
        load_manifest(tmp_path / "shards")
