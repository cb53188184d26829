from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.shards import write_shards
from advgen.data.sources import open_source
from advgen.tools.sheet import verify, write_sheet
from pipelines.__main__ import main
from tests.unit.data.make import folder_of, picture, shards_of


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


def test_the_sheet_shows_samples_of_all_shards(tmp_path: Path) -> None:
    shards_of(tmp_path, 6, 2)
    write_sheet(tmp_path / "shards", tmp_path / "sheet.png", columns=3, rows=2, side=8)
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert pixels.shape == (2 * 10 + 2, 3 * 10 + 2, 3)
    assert (pixels[12:20, 22:30] == picture(5)).all()
