from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from advgen.data.config import FolderImages
from advgen.data.folders import new_folder
from advgen.data.sources import open_source
from advgen.errors import UserError
from tests.unit.data.make import folder_of


def test_natural_order_and_no_labels(tmp_path: Path) -> None:
    folder_of(tmp_path / "d", 11)
    (tmp_path / "d" / ".DS_Store").write_bytes(b"x")
    images = open_source(FolderImages(path=str(tmp_path / "d"))).items
    assert [image.name for image in images] == [f"{n}.png" for n in range(11)]
    assert [image.key for image in images] == [f"{n:08d}" for n in range(11)]
    assert {image.label for image in images} == {None}


def test_zip_gives_what_its_folder_gives(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "d", 12, classes=3)
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(path, path.relative_to(folder).as_posix())
        archive.writestr("__MACOSX/class0/._1.png", b"x")
    from_folder = open_source(FolderImages(path=str(folder), labels="folders"))
    from_zip = open_source(FolderImages(path=str(tmp_path / "d.zip"), labels="folders"))
    assert from_zip.items == from_folder.items
    with from_zip.place.opened() as read, from_folder.place.opened() as read_file:
        assert [read(i.files[0]) for i in from_zip.items] == [read_file(i.files[0]) for i in from_folder.items]
    assert from_zip.classes == ("class0", "class1", "class2")
    assert all(f"class{image.label}" == image.name.split("/")[0] for image in from_zip.items)


def test_linked_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    folder_of(tmp_path / "elsewhere", 3)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "d")
    assert len(open_source(FolderImages(path=str(tmp_path / "d")))) == 3


def test_errors_name_the_place_and_the_way_out(tmp_path: Path) -> None:
    def message(path: Path, labels: str = "none") -> str:
        with pytest.raises(UserError) as caught:
            open_source(FolderImages(path=str(path), labels=labels))  # type: ignore[arg-type]
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "does not exist. Give a folder or .zip" in message(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "is empty" in message(tmp_path / "empty")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").touch()
    assert "no PNG, JPEG or WebP image (its 1 files: .txt)" in message(tmp_path / "text")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    assert "no readable .zip" in message(tmp_path / "bad.zip")
    assert "neither a folder nor" in message(tmp_path / "text" / "a.txt")
    assert "lies in no sub-folder" in message(folder_of(tmp_path / "flat", 2), "folders")
    assert "only one class" in message(folder_of(tmp_path / "one", 2, classes=1), "folders")


def test_a_new_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("whole")
        killed = folder.with_name(folder.name.replace(folder.name.split(".")[-2], "99999999"))
    killed.mkdir()
    with new_folder(tmp_path / "out", replace=True) as folder:
        (folder / "a").write_text("anew")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "anew"
