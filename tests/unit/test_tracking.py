from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from advgen.images import save_png
from advgen.runtime.config import TrackingConfig
from advgen.runtime.tracking import JsonLines, NoMirror, Wandb, _has_key, open_mirror


def records(path: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ----------------------------------------------------------------------------------------------------------- log files
def test_lines_are_there_after_sync_and_close(tmp_path: Path) -> None:
    path = tmp_path / "samples" / "index.jsonl"
    log = JsonLines(path)
    log.write({"a": 1})
    assert log.sync() == path.stat().st_size == len('{"a": 1}\n')
    log.write({"a": 2, "text": "é\n"})
    log.close()
    assert records(path) == [{"a": 1}, {"a": 2, "text": "é\n"}]


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    for number in range(3):
        log.write({"n": number})
    length = log.sync()
    log.write({"n": 3})
    log.write({"n": 4})
    log.close()
    with path.open("a") as file:
        file.write('{"n": 5')  # torn by a kill

    again = JsonLines(path)
    again.cut(length)
    again.write({"n": 33})
    assert again.sync() == path.stat().st_size
    again.close()
    assert [record["n"] for record in records(path)] == [0, 1, 2, 33]


def test_cutting_also_forgets_what_is_not_on_the_disk_yet(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.write({"n": 1})
    log.cut(0)
    log.write({"n": 2})
    log.close()
    assert records(tmp_path / "log.jsonl") == [{"n": 2}]


def test_a_log_that_was_removed_is_not_filled_with_nothing(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.cut(1000)
    log.write({"n": 1})
    log.close()
    assert records(tmp_path / "log.jsonl") == [{"n": 1}]


# ----------------------------------------------------------------------------------------------------------------- W&B
def test_the_key_is_looked_for_where_wandb_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    assert not _has_key()
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine example.org login me password secret\n")
    netrc.chmod(0o600)
    assert not _has_key()
    netrc.write_text("machine api.wandb.ai login user password secret\n")
    assert _has_key()
    netrc.write_text("machine machine machine")
    assert not _has_key()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert _has_key()


def test_disabled_means_no_wandb(tmp_path: Path) -> None:
    mirror = open_mirror(TrackingConfig(wandb="disabled"), tmp_path, "name", {})
    assert isinstance(mirror, NoMirror)
    mirror.scalars({"a": 1.0}, 0)
    mirror.picture("a", tmp_path / "nowhere.png", 0)
    mirror.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("setting", ["offline", "auto"])
def test_offline_runs_lie_in_the_run_folder_under_one_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """Real W&B without a network: both sessions of a run are kept, and carry the run folder's one id."""
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    folder.mkdir()
    save_png(folder / "sheet.png", torch.zeros(8, 8, 3, dtype=torch.uint8))
    identities = []
    for session in range(2):
        mirror = open_mirror(TrackingConfig(wandb=setting, project="p"), folder, "name", {"seed": 3})  # type: ignore[arg-type]
        assert isinstance(mirror, Wandb)
        mirror.scalars({"d/loss": 0.5}, 640 * (session + 1))
        mirror.picture("samples", folder / "sheet.png", 640)
        mirror.close()
        identities.append((folder / "wandb-id").read_text())
    assert identities[0] == identities[1]
    assert re.fullmatch(r"[0-9a-f]{12}\n", identities[0])
    runs = [path for path in (folder / "wandb").glob("offline-run-*") if path.is_dir()]
    assert len(runs) == 2
    assert all((path / f"run-{identities[0].strip()}.wandb").stat().st_size > 0 for path in runs)
    assert list((folder / "wandb").glob("offline-run-*/files/media/images/samples_*.png"))
    assert sorted(path.name for path in folder.iterdir()) == ["sheet.png", "wandb", "wandb-id"]


def test_an_evaluation_is_a_run_of_its_own_beside_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "run"
    folder.mkdir()
    for job in ("training", "evaluation", "evaluation"):
        mirror = open_mirror(TrackingConfig(wandb="offline", project="p"), folder, "name", {}, job)  # type: ignore[arg-type]
        mirror.scalars({"fid/64": 3.0}, 640)
        mirror.close()
    identities = [(folder / name).read_text().strip() for name in ("wandb-id", "wandb-id-evaluation")]
    assert len(set(identities)) == 2
    # Two within a second are told apart by a number behind the id.
    runs = sorted(path.name.split("-")[3] for path in (folder / "wandb").glob("offline-run-*"))
    assert runs == sorted([identities[0], identities[1], identities[1]])
