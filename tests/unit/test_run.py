"""What ``advgen run`` does with the data of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advgen.config import load_recipe, method_of
from advgen.data.config import FolderImages, PairedImages
from advgen.data.shards import load_manifest
from advgen.errors import UserError
from advgen.runtime.run_folder import RunFolder
from pipelines import run
from tests.helpers import tiny_recipe, tiny_shards, write_images
from tests.unit.data.servers import serving
from tests.unit.report.runs import make_small_run, metric


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Inputs of the stages of a run; those after the shards do nothing."""
    seen: dict[str, Any] = {}

    def stage(log: object, name: str, inputs: object, action: Callable[[], object]) -> None:
        seen[name] = inputs
        if name.startswith("shards"):
            action()

    monkeypatch.setattr(run, "_stage", stage)
    monkeypatch.setattr(run, "sha256", lambda path: "")
    return seen


def test_mixed_sets_are_sharded_and_training_depends_on_them(tmp_path: Path, stages: dict[str, Any]) -> None:
    images = write_images(tmp_path / "more", 8, seed=3)
    mix = [{"shards": str(tmp_path / "mixed"), "images": {"kind": "folder", "path": str(images)}}]
    assert run.main([str(tiny_recipe(tmp_path, data={"mix": mix}))]) == 0
    digests = [load_manifest(tmp_path / name).digest for name in ("shards", "held-out", "mixed")]
    assert stages["train"]["data"] == digests and stages["evaluate"]["data"] == digests[:2]


def test_remote_shards_are_read_and_never_written(tmp_path: Path, stages: dict[str, Any]) -> None:
    shards = tiny_shards(tmp_path / "there" / "shards", 16)
    with serving(tmp_path / "there") as server:
        address = f"{server.address}/shards"
        remote = {"folder": str(tmp_path / "fetched"), "tries": 1}
        assert run.main([str(tiny_recipe(tmp_path, data={"train": {"shards": address}, "remote": remote}))]) == 0
        assert stages["train"]["data"][0] == load_manifest(shards).digest
        made = {"shards": address, "images": {"kind": "folder", "path": str(tmp_path)}}
        with pytest.raises(UserError, match="only written to folders of this machine"):
            run.main([str(tiny_recipe(tmp_path, data={"train": made, "remote": remote}))])


def test_the_report_sets_a_run_against_those_that_the_recipe_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("ours", 3.0), ("base-1", 4.0), ("base-2", 5.0)):
        make_small_run(Path("runs") / name, metrics=[metric(value)])
    tiny = load_recipe(tiny_recipe(tmp_path))
    recipe = replace(tiny, name="ours", runs="runs", compare_with=("runs/base-*", "runs/ours"))
    others = run._others(recipe)
    assert [each.path for each in others] == [Path("runs/base-1"), Path("runs/base-2")]
    assert method_of(recipe) == method_of(replace(recipe, compare_with=()))
    ours = RunFolder(recipe.folder)
    assert list(run._compare([ours, *others])) == [Path("runs/ours/compare.html")]
    assert all(name in (ours.path / "compare.html").read_text() for name in ("ours", "base-1", "base-2"))
    with pytest.raises(UserError, match="names no run folder"):
        run._others(replace(recipe, compare_with=("runs/gone",)))


def test_whatever_images_are_made_from_counts(tmp_path: Path) -> None:
    for name in ("images", "labels", "instances", "lines"):
        write_images(tmp_path / name, 2)
    paired = PairedImages(
        path=str(tmp_path / "images"),
        label_maps=str(tmp_path / "labels"),
        label_map_classes=4,
        instance_maps=str(tmp_path / "instances"),
        line_art=str(tmp_path / "lines"),
    )
    table = tmp_path / "table.csv"
    table.write_text("file,label\n")
    folder = FolderImages(path=str(tmp_path / "images"), labels=str(table))
    before = run._content(paired), run._content(folder)
    assert (run._content(paired), run._content(folder)) == before
    table.write_text("file,label\n000.png,0\n")
    assert run._content(folder) != before[1]
    for name in ("labels", "instances", "lines"):
        known = run._content(paired)
        (tmp_path / name / "001.png").write_bytes(b"changed")
        assert run._content(paired) != known
