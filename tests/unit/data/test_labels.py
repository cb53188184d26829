from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from advgen.data.config import FolderImages
from advgen.data.labels import read_table
from advgen.data.sources import open_source
from advgen.data.splitting import split
from advgen.errors import UserError
from tests.unit.data.make import folder_of


def csv_of(*rows: str) -> bytes:
    return "\n".join(("File,Label,Group", *rows)).encode()


def test_tables_of_all_forms_say_the_same() -> None:
    pairs = [["a/1.png", 2], ["a/2.png", 0], ["b.png", 1]]
    forms = [
        ("dataset.json", json.dumps({"labels": pairs}).encode()),
        ("dataset.json", json.dumps({"labels": dict(pairs)}).encode()),
        ("x.JSON", json.dumps(pairs).encode()),
        ("x.csv", csv_of("a/1.png,2,g", "a/2.png,0,", "b.png,1,h")),
        ("x.csv", b"\xef\xbb\xbf" + b"label,path\r\n2,a/1.png\r\n0,a/2.png\r\n1,b.png\r\n"),
    ]
    for name, data in forms:
        labels = read_table(name, data)
        assert labels.classes == ("0", "1", "2") and dict(labels.label) == dict(pairs), name
    named = read_table("x.csv", csv_of("1.png,cat,", "2.png,ant,", "3.png,cat,"))
    assert named.classes == ("ant", "cat") and named.label["3.png"] == 1
    assert read_table("x.csv", forms[3][1]).group == {"a/1.png": "g", "b.png": "h"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.json", b"{", "is no readable table"),
        ("x.json", b"[" * 100_000, "is no readable table"),
        ("x.json", b"3", "is no dataset.json"),
        ("x.json", b'{"labels": [["a.png"]]}', "is no pair of file and label"),
        ("x.json", b'{"labels": [["a.png", 1.5]]}', "the label of a.png is 1.5"),
        ("x.json", b'{"labels": [["a.png", 9999999]]}', "has label 9999999"),
        ("x.json", b'{"labels": []}', "holds no labels"),
        ("x.json", b'{"labels": [["../a.png", 1]]}', "leads out of it"),
        ("x.csv", b"name,colour\na.png,1\n", "must name the columns file and label"),
        ("x.csv", csv_of("a.png,1,", "a.png,2,"), "a.png stands there twice, with labels '1' and '2'"),
        ("x.csv", csv_of("a.png,1,", ",2,"), "line 3 lacks its file"),
        ("x.csv", csv_of("a.png,x,"), "gives 1 classes"),
        ("x.csv", b"\xff\xfe\x00", "is no readable table"),
    ],
)
def test_what_is_no_table_is_told(name: str, data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_table(name, data)


def test_a_table_lies_in_the_archive_or_beside_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "d", 6)
    table = json.dumps({"labels": [[f"{n}.png", n % 2] for n in (0, 1, 2, 3, 9)]})
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
        archive.writestr("dataset.json", table)
    (tmp_path / "beside.json").write_text(table)
    inside = open_source(FolderImages(path=str(tmp_path / "d.zip"), labels="dataset.json"))
    beside = open_source(FolderImages(path=str(folder), labels=str(tmp_path / "beside.json")))
    for source in (inside, beside):
        assert [item.label for item in source.items] == [0, 1, 0, 1]
        told = {bad.name: bad.reason for bad in source.rejected}
        assert told.keys() == {"4.png", "5.png", "9.png"}
        assert "no label" in told["4.png"] and "there is no such image" in told["9.png"]
    with pytest.raises(UserError, match="the labels' table cannot be read"):
        open_source(FolderImages(path=str(folder), labels="nowhere.csv"))


@pytest.mark.parametrize("by_group", [False, True])
def test_a_split_goes_by_names_alone(tmp_path: Path, by_group: bool) -> None:
    folder = folder_of(tmp_path / "d", 300, classes=30)
    source = open_source(FolderImages(path=str(folder)))
    parts = split(source, 0.3, by_group=by_group)
    names = {side: {item.name for item in part.items} for side, part in parts.items()}
    assert names["train"] | names["validation"] == {item.name for item in source.items}
    assert not names["train"] & names["validation"] and 0.15 < len(names["validation"]) / 300 < 0.45
    groups = {side: {name.split("/")[0] for name in each} for side, each in names.items()}
    assert bool(groups["train"] & groups["validation"]) != by_group
    for path in list(folder.rglob("*.png"))[:100]:
        path.unlink()
    fewer = split(open_source(FolderImages(path=str(folder))), 0.3, by_group=by_group)
    assert {item.name for item in fewer["validation"].items} <= names["validation"], "no sample changes sides"
