"""Tars and zips that nobody vouches for."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from advgen.data import listing
from advgen.data.config import FolderImages
from advgen.data.decode import BadImage
from advgen.data.sources import open_source
from advgen.data.tars import members
from advgen.errors import UserError
from pipelines.__main__ import main
from tests.unit.data.make import encoded, picture, shards_of


def tar_of(path: Path, files: dict[str, bytes], **fields: object) -> Path:
    """A tar; ``fields`` are set on the last entry's header."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, (name, data) in enumerate(files.items(), 1):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            for field, value in fields.items() if number == len(files) else ():
                setattr(entry, field, value)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "a/../../b.png", "..\\b.png", "c:b.png"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = encoded(picture(0))
    tar_of(tmp_path / "a.tar", {"fine.png": data, name: data})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), data)
    for place in ("a.tar", "a.zip"):
        with pytest.raises(UserError, match="leads out of it"):
            open_source(FolderImages(path=str(tmp_path / place)))
        assert main(["shard", str(tmp_path / place), str(tmp_path / "out"), "--resolution", "8"]) == 2
        assert "leads out of it" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_entries_of_a_wrong_size_are_refused(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"a.png": encoded(picture(0)), "b.png": encoded(picture(1))})
    whole = path.read_bytes()
    second = whole.index(b"b.png")
    # The size is 11 octal digits at byte 124 of a header, the sum of all its bytes 6 digits at byte 148.
    header = bytearray(whole[second : second + 512])
    header[124:136] = b"%011o\0" % (1 << 32)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    path.write_bytes(whole[:second] + header + whole[second + 512 :])
    with pytest.raises(UserError, match=r"a\.tar: b\.png says it has 4,294,967,296 bytes, but the file ends before"):
        list(members(path))
    path.write_bytes(whole[: second + 512 + 20])
    with pytest.raises(UserError, match=r"a\.tar: "):
        list(members(path))


def test_what_tarfile_takes_for_the_end_is_not_one(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"a.png": encoded(picture(0)), "b.png": encoded(picture(1))})
    whole = path.read_bytes()
    second = whole.index(b"b.png")
    for damaged, message in (
        (b"x" * 512 + whole[512:], "is no readable uncompressed tar file"),
        (whole[:second] + b"x" * 512 + whole[second + 512 :], f"something that is no entry follows byte {second:,}"),
        (whole[:second] + bytes(512) + whole[second + 512 :], "something that is no entry follows"),
        (whole + whole, "or was put together from several tars"),
        (whole[:second], "ends without a tar's end mark"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            list(members(path))
    path.write_bytes(whole)
    assert len(list(members(path))) == 2


def test_links_and_devices_are_not_read(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"a.png": encoded(picture(0))})
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo("secret.png")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    assert [member.name for member in members(path)] == ["a.png"]


def test_a_zip_that_grows_without_end_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_BYTES", 1 << 20)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(8 << 20))
    source = open_source(FolderImages(path=str(path)))
    with source.place.opened() as read, pytest.raises(BadImage, match="says it is larger than 1,048,576 bytes"):
        read("a.png")
    data = bytearray(path.read_bytes())
    assert len(data) < 1 << 17
    # The directory at the end says the entry is small; its size stands at byte 24 of the record.
    record = data.index(b"PK\x01\x02")
    data[record + 24 : record + 28] = struct.pack("<I", 1000)
    path.write_bytes(data)
    source = open_source(FolderImages(path=str(path)))
    with source.place.opened() as read, pytest.raises(BadImage):
        read("a.png")


def test_a_picture_of_too_many_pixels_is_told_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    Image.new("1", (9_000, 9_000)).save(tmp_path / "images" / "bomb.png")
    command = ["shard", str(tmp_path / "images"), str(tmp_path / "out"), "--resolution", "8"]
    assert main(command) == 2
    assert "bomb.png says it has 9000 x 9000 pixels" in " ".join(capsys.readouterr().err.split())


def test_shards_of_shards_keep_images_and_classes(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 20, 6, classes=2)
    source = open_source(FolderImages(path=str(tmp_path / "shards"), labels="cls"))
    assert len(source) == 20 and source.classes == ("0", "1")
    wanted = open_source(FolderImages(path=str(tmp_path / "images"), labels="folders"))
    with source.place.opened() as read, wanted.place.opened() as read_file:
        found = {read(item.files[0]): item.label for item in source.items}
        assert found == {read_file(item.files[0]): item.label for item in wanted.items}
    one = open_source(FolderImages(path=str(tmp_path / "shards" / manifest.shards[0].name)))
    assert len(one) == 6
