"""Nothing is silently dropped: every file of a source is a sample, or is rejected by its name, or counted."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advgen.data.config import FolderImages, PairedImages, ShardingConfig
from advgen.data.listing import natural
from advgen.data.manifest import read_index
from advgen.data.shards import load_manifest, write_shards
from advgen.data.sources import Source, open_source
from advgen.errors import UserError
from pipelines.__main__ import main
from tests.unit.data.make import encoded, folder_of, picture, shards_of
from tests.unit.data.test_tars import tar_of


def reasons(source: Source) -> dict[str, str]:
    assert len({bad.name for bad in source.rejected}) == len(source.rejected)
    return {bad.name: bad.reason for bad in source.rejected}


def names(source: Source) -> list[str]:
    return [item.name for item in source.items]


def paired(folder: Path, **options: Any) -> PairedImages:
    return PairedImages(path=str(folder / "img"), label_maps=str(folder / "lab"), label_map_classes=9, **options)


def pairs_of(folder: Path, count: int, sub: str = "") -> Path:
    for number in range(count):
        for part, pixels in (("img", picture(number)), ("lab", np.full((8, 8), number, np.uint8))):
            path = folder / part / sub.format(number % 2) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(pixels))
    return folder


def test_files_of_other_kinds_are_rejected_or_counted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "d", 3)
    for name in ("x.bmp", "x.TIFF", "x.gif", "inner.zip", "inner.tar", "notes.txt", "l.csv", ".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    source = open_source(FolderImages(path=str(folder)))
    told = reasons(source)
    assert told.keys() == {"x.bmp", "x.TIFF", "x.gif", "inner.zip", "inner.tar"} and source.others == 4
    assert "convert it to PNG" in told["x.bmp"] and "is an archive" in told["inner.tar"]
    with pytest.raises(UserError, match="is an archive among other files"):
        write_shards(source, tmp_path / "s", resolution=8, channels=3)
    manifest = write_shards(source, tmp_path / "s", resolution=8, channels=3, config=ShardingConfig(on_bad="skip"))
    assert (manifest.samples, manifest.rejected) == (3, 5)
    assert len((tmp_path / "s" / "rejected.jsonl").read_text().splitlines()) == 5


def test_two_images_of_one_stem_are_no_pair(tmp_path: Path) -> None:
    pairs_of(tmp_path, 4)
    (tmp_path / "img" / "1.jpg").write_bytes(encoded(picture(9), "JPEG"))
    (tmp_path / "img" / "9.bmp").write_bytes(b"x")
    (tmp_path / "lab" / "7.png").write_bytes(encoded(np.zeros((8, 8), np.uint8)))
    (tmp_path / "lab" / "palette.json").write_bytes(b"x")
    source = open_source(paired(tmp_path))
    assert names(source) == ["img/0.png", "img/2.png", "img/3.png"] and source.others == 1
    told = reasons(source)
    assert told.keys() == {"1", "7", "img/9.bmp"}
    assert told["1"] in (f"stands for several files: img/1.{a}, img/1.{b}" for a, b in (("png", "jpg"), ("jpg", "png")))


def test_pairs_have_classes_from_folders_or_a_table(tmp_path: Path) -> None:
    pairs_of(tmp_path, 6, "class{}")
    by_folder = open_source(paired(tmp_path, labels="folders"))
    assert by_folder.classes == ("class0", "class1")
    assert [item.label for item in by_folder.items] == [0, 0, 0, 1, 1, 1]
    rows = ["file,label", *(f"class{n % 2}/{n}.png,{n % 3}" for n in range(5)), "class0/99.png,1"]
    (tmp_path / "l.csv").write_text("\n".join(rows))
    by_table = open_source(paired(tmp_path, labels=str(tmp_path / "l.csv")))
    assert [item.label for item in by_table.items] == [0, 2, 1, 1, 0]
    assert reasons(by_table).keys() == {"img/class1/5.png", "class0/99.png"}
    command = ["shard", str(tmp_path / "img"), str(tmp_path / "s"), "--resolution", "8", "--labels", "folders"]
    assert main([*command, "--label-maps", str(tmp_path / "lab"), "--label-map-classes", "6"]) == 0
    manifest = load_manifest(tmp_path / "s")
    assert [each.count for each in manifest.classes] == [3, 3] and manifest.parts == ("image", "label_map")


def test_names_that_stand_twice_in_an_archive(tmp_path: Path) -> None:
    files = [("a.png", 1), ("a.png", 2), ("b.png", 3)]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, number in files:
            entry, data = tarfile.TarInfo(name), encoded(picture(number))
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", encoded(picture(1)))
        archive.writestr("b.png", encoded(picture(3)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", encoded(picture(2)))
    for place, start in (("a.tar", "a/"), ("a.zip", "")):
        source = open_source(FolderImages(path=str(tmp_path / place)))
        assert names(source) == [f"{start}b.png"]
        assert reasons(source) == {f"{start}a.png": "stands there 2 times"}


def test_links_of_a_tar_are_rejected(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"a.png": encoded(picture(0))})
    with tarfile.open(path, "a") as archive:
        for kind, name in ((tarfile.SYMTYPE, "s.png"), (tarfile.LNKTYPE, "h.png"), (tarfile.DIRTYPE, "folder")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "a.png"
            archive.addfile(entry)
    source = open_source(FolderImages(path=str(path)))
    assert names(source) == ["a/a.png"] and reasons(source).keys() == {"a/s.png", "a/h.png"}


def test_what_cannot_be_opened_or_is_no_file_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "d", 4, classes=2)
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(folder)
        server.bind("socket.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("class1"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    source = open_source(FolderImages(path=str(folder)))
    assert names(source) == ["class0/0.png", "class0/2.png"]
    told = reasons(source)
    assert told.keys() == {"pipe.png", "socket.png", "gone.png", "class1"}
    assert "Permission denied" in told["class1"] and "is a pipe" in told["pipe.png"]


def test_own_sets_are_read_without_their_levels_and_maps(tmp_path: Path) -> None:
    shards_of(tmp_path, 10, 4, size=128)
    (tmp_path / "shards" / "r0064" / "x.txt").touch()
    assert len(open_source(FolderImages(path=str(tmp_path / "shards")))) == 10
    folder_of(tmp_path / "shards", 1)  # a contact sheet, say
    source = open_source(FolderImages(path=str(tmp_path / "shards")))
    assert len(source) == 10 and reasons(source) == {"0.png": "lies beside tars of images, and is not read"}
    (tmp_path / "shards" / "shard-000001.tar").unlink()
    with pytest.raises(UserError, match=r"shard-000001\.tar: is missing"):
        open_source(FolderImages(path=str(tmp_path / "shards")))
    pairs_of(tmp_path / "p", 6)
    for out in ("p/s/train", "p/s/validation"):
        write_shards(open_source(paired(tmp_path / "p")), tmp_path / out, resolution=8, channels=3)
    source = open_source(FolderImages(path=str(tmp_path / "p" / "s")))
    assert len(source) == 12 and source.rejected == () and source.others == 12


def test_shards_among_their_images_are_none_of_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "d", 5)
    for _ in range(2):  # a finished folder is checked
        assert main(["shard", str(folder), str(folder / "shards"), "--resolution", "8"]) == 0
    source = open_source(FolderImages(path=str(folder)))
    assert names(source) == [f"{n}.png" for n in range(5)] and source.rejected == ()
    pairs_of(tmp_path, 5)
    maps = ["--label-maps", str(tmp_path / "lab"), "--label-map-classes", "6"]
    for _ in range(2):
        assert main(["shard", str(tmp_path / "img"), str(tmp_path / "img" / "s"), "--resolution", "8", *maps]) == 0


def test_of_several_images_of_a_key_the_plain_one_is_taken(tmp_path: Path) -> None:
    files = {name: encoded(picture(n)) for n, name in enumerate(("a.seg.png", "a.png", "b.JPG", "b.seg.png"))}
    tar_of(tmp_path / "a.tar", {**files, "a.cls": b"0", "b.cls": b"1"})
    source = open_source(FolderImages(path=str(tmp_path / "a.tar"), labels="cls"))
    assert names(source) == ["a/a.png", "a/b.JPG"] and [item.label for item in source.items] == [0, 1]
    assert reasons(source).keys() == {"a/a.seg.png", "a/b.seg.png"} and source.others == 0


def test_images_that_stand_twice_are_found_before_the_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "d", 40)
    for number in range(20, 40):
        (folder / f"{number}.png").write_bytes((folder / f"{number - 20}.png").read_bytes())
    from advgen.data import duplicates

    calls, find = [], duplicates.find_duplicates
    monkeypatch.setattr(duplicates, "find_duplicates", lambda source: calls.append(len(source)) or find(source))
    flags = ["--resolution", "8", "--validation", "0.5", "--on-bad", "skip"]
    assert main(["shard", str(folder), str(tmp_path / "s"), *flags]) == 0
    assert calls == [40]
    found: set[str] = set()
    for side in ("train", "validation"):
        for shard in load_manifest(tmp_path / "s" / side).shards:
            entries = read_index(lambda name, _, side=side: (tmp_path / "s" / side / name).read_bytes(), shard, "")
            found |= {entry.name for entry in entries}
    assert found == {f"{n}.png" for n in range(20)}
    lines = (tmp_path / "s" / "train" / "rejected.jsonl").read_text().splitlines()
    assert len(lines) == 20 and (tmp_path / "s" / "validation" / "rejected.jsonl").read_text() == ""
    assert json.loads(lines[0])["reason"] == "has the same bytes as 0.png"


def test_numbers_of_thousands_of_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "9" * 5000
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for number, name in enumerate((f"{long}.png", "b.png")):
            entry, data = tarfile.TarInfo(name), encoded(picture(number))
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    assert len(open_source(FolderImages(path=str(tmp_path / "a.tar")))) == 2
    folder = folder_of(tmp_path / "d", 2)
    (folder / "l.csv").write_text(f"file,label\n0.png,{long}\n1.png,2\n")
    command = ["shard", str(folder), str(tmp_path / "s"), "--resolution", "8", "--labels", "l.csv"]
    assert main(command) == 2 and "has label 999999999... (5,000 digits)" in capsys.readouterr().err
    (folder / "l.csv").write_text(f"file,label\n0.png,{'0' * 5000}1\n1.png,0\n")
    assert main(command) == 0
    assert sorted(["10", "9", "a", "09", "1a", "²"], key=natural) == ["1a", "09", "9", "10", "a", "²"]


def test_names_that_are_no_utf8_are_split(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "d", 10)
    (folder / os.fsdecode(b"\xff\xfe.png")).write_bytes(encoded(picture(30)))
    assert main(["shard", str(folder), str(tmp_path / "s"), "--resolution", "8", "--validation", "0.5"]) == 0
    assert sum(load_manifest(tmp_path / "s" / side).samples for side in ("train", "validation")) == 11
    folder_of(tmp_path / "c" / "a", 1)
    folder_of(tmp_path / "c" / os.fsdecode(b"\xff"), 1)
    with pytest.raises(UserError, match=r"the folder '\\udcff' has a name that is no UTF-8"):
        open_source(FolderImages(path=str(tmp_path / "c"), labels="folders"))


def test_names_that_look_like_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x[" / "b]"
    assert main(["shard", str(folder_of(tmp_path / "d", 2)), str(out), "--resolution", "8"]) == 0
    assert f"{out}: 2 images" in capsys.readouterr().out


def test_reasons_are_told_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path / "d", 4)
    for number in (8, 9):
        (folder / f"{number}.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "notes.txt").touch()
    assert main(["shard", str(folder), str(tmp_path / "s"), "--resolution", "8", "--on-bad", "skip"]) == 0
    out = capsys.readouterr().out
    assert "2 left out: each has the same bytes as ..." in out and "1 other files are no pictures" in out


def test_an_empty_side_is_told_before_anything_is_written(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    folder = folder_of(tmp_path / "d", 2)
    command = ["shard", str(folder), str(tmp_path / "s"), "--resolution", "8", "--validation", "0.000001"]
    assert main(command) == 2
    assert "no sample falls to validation" in capsys.readouterr().err and not (tmp_path / "s").exists()


def test_a_full_disk_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from advgen.data.tars import TarWriter

    def full(self: TarWriter, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = folder_of(tmp_path / "d", 2)
    with monkeypatch.context() as patch:
        patch.setattr(TarWriter, "_write", full)
        assert main(["shard", str(folder), str(tmp_path / "s"), "--resolution", "8"]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 's'}: cannot be written (No space left on device)" in told and "goes on" in told
    assert not list(tmp_path.rglob("*.tmp"))
    assert main(["shard", str(folder), str(tmp_path / "s"), "--resolution", "8"]) == 0


def test_nothing_is_said_of_the_time_left_before_the_first_image(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    from pipelines import terminal

    counting = terminal.Counting("images", None)
    monkeypatch.setattr(counting, "_told", -100.0)
    counting(0, 900)
    monkeypatch.setattr(counting, "_told", -100.0)
    counting(3, 900)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "images: 0 of 900" and "left" in second
