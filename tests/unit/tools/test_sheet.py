from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.manifest import dump_manifest
from advgen.data.shards import load_manifest, write_shards
from advgen.data.sources import open_source
from advgen.tools.sheet import verify, write_sheet
from pipelines.__main__ import main
from tests.unit.data.make import folder_of, picture, shards_of
from tests.unit.data.servers import serving


def test_whole_shards(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    manifest = shards_of(tmp_path, 10, 4, classes=2)
    verdict = verify(tmp_path / "shards")
    assert verdict.manifest == manifest and verdict.wrong == []
    assert verdict.classes == [("class0", 5), ("class1", 5)] and sum(count for *_, count in verdict.bytes) == 10
    assert main(["verify", str(tmp_path / "shards"), "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "class1" in capsys.readouterr().out and (tmp_path / "sheet.png").exists()


def test_what_is_wrong_is_told_all_at_once(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    folder = folder_of(tmp_path / "images", 9)
    (folder / "7.png").write_bytes((folder / "2.png").read_bytes())
    source = open_source(FolderImages(path=str(folder)))
    config = ShardingConfig(shard_samples=3, duplicates="keep", shuffle_seed=None)
    manifest = write_shards(source, tmp_path / "s", resolution=8, channels=3, config=config)
    assert verify(tmp_path / "s").wrong == []
    assert verify(tmp_path / "s").remarks == ["1 images have the same bytes as an earlier one, as was allowed"]
    assert main(["verify", str(tmp_path / "s")]) == 0 and "as was allowed" in capsys.readouterr().out
    silent = replace(manifest, duplicates="reject")  # nor is it in sets of before it was recorded
    assert silent.digest == manifest.digest
    (tmp_path / "s" / "manifest.json").write_text(dump_manifest(silent))
    path = tmp_path / "s" / manifest.shards[1].name
    data = bytearray(path.read_bytes())
    data[512:552] = bytes(40)
    path.write_bytes(data)
    wrong = "\n".join(verify(tmp_path / "s").wrong)
    assert "shard-000001.tar: is damaged (SHA-256 differs)" in wrong
    assert "shard-000001.tar:00000003 (made from 3.png) is no image" in wrong
    assert "shard-000002.tar:00000007 (made from 7.png) has the same bytes as" in wrong
    (tmp_path / "s" / "shard-000000.tar").unlink()
    assert main(["verify", str(tmp_path / "s")]) == 2
    assert "shard-000000.tar: is missing" in capsys.readouterr().err


def test_manifests_of_before_duplicates_were_recorded_are_read(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 3, 3)
    path = tmp_path / "shards" / "manifest.json"
    old = json.loads(path.read_text())
    del old["duplicates"]
    path.write_text(json.dumps(old))
    assert load_manifest(tmp_path / "shards") == manifest


def test_levels_are_decoded_and_counted(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 6, 3, size=128)
    assert [level.raw for level in manifest.levels] == [False, True] and verify(tmp_path / "shards").wrong == []
    told: list[tuple[int, int]] = []
    verify(tmp_path / "shards", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12)

    def forged(number: int, name: str, data: bytes, index: bytes | None = None, **changes: object) -> str:
        """What verify says when a level's file is another one, and the manifest says it was always so."""
        level = manifest.levels[number]
        (tmp_path / "shards" / name).write_bytes(data)
        if index is not None:
            (tmp_path / "shards" / name).with_suffix(".idx").write_bytes(index)
            changes["index_sha256"] = hashlib.sha256(index).hexdigest()
        first = replace(level.shards[0], bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), **changes)
        levels = list(manifest.levels)
        levels[number] = replace(level, shards=(first, *level.shards[1:]))
        (tmp_path / "shards" / "manifest.json").write_text(dump_manifest(replace(manifest, levels=tuple(levels))))
        return "\n".join(verify(tmp_path / "shards").wrong)

    tar, array = (level.shards[0].name for level in manifest.levels)
    whole = (tmp_path / "shards" / tar).read_bytes()
    assert f"{tar}:00000000 (made from 0.png) is no image" in forged(0, tar, whole[:512] + bytes(99) + whole[611:])
    lines = (tmp_path / "shards" / tar).with_suffix(".idx").read_bytes().splitlines(keepends=True)
    assert "it lists 2 samples, the manifest says 3" in forged(0, tar, whole, b"".join(lines[:2]))
    other = forged(0, tar, whole, b"".join([lines[1], lines[0], lines[2]]))
    assert f"{tar}: holds other samples than shard-000000.tar" in other
    forged(0, tar, whole, b"".join(lines))
    out = io.BytesIO()
    np.save(out, np.zeros((2, 3, 32, 32), np.uint8))
    assert f"{array}: holds uint8 [2, 3, 32, 32], not uint8 [3, 3, 32, 32]" in forged(1, array, out.getvalue())
    assert f"{array}: is no array" in forged(1, array, b"no array")


def test_a_damaged_index_hides_nothing_else(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    manifest = shards_of(tmp_path, 9, 3)
    (tmp_path / "shards" / manifest.shards[0].name).with_suffix(".idx").write_text("[]\n")
    (tmp_path / "shards" / manifest.shards[2].name).unlink()
    assert main(["verify", str(tmp_path / "shards"), "--sheet", str(tmp_path / "sheet.png")]) == 2
    told = capsys.readouterr()
    assert "shard-000000.idx: is damaged" in told.err and "shard-000002.tar: is missing" in told.err
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert (pixels[2:98, 2:98] == 255).all() and (pixels[2:98, 296:390] != 255).any()


def test_shards_at_an_address_are_verified(tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    manifest = shards_of(tmp_path, 6, 3, size=64)
    with serving(tmp_path / "shards") as server:
        assert main(["verify", server.address, "--sheet", str(tmp_path / "sheet.png")]) == 0
        assert server.address in capsys.readouterr().out
    path = tmp_path / "shards" / manifest.shards[1].name
    data = path.read_bytes()
    path.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])
    monkeypatch.setenv("HOME", str(tmp_path / "home2"))
    with serving(tmp_path / "shards") as server:
        assert main(["verify", server.address]) == 2
        assert "shard-000001.tar: has another content" in capsys.readouterr().err


def test_the_sheet_shows_samples_of_all_shards(tmp_path: Path) -> None:
    shards_of(tmp_path, 6, 2)
    write_sheet(tmp_path / "shards", tmp_path / "sheet.png", columns=3, rows=2, side=8)
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert pixels.shape == (2 * 10 + 2, 3 * 10 + 2, 3)
    assert (pixels[12:20, 22:30] == picture(5)).all()
