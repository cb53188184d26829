from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from advgen.clock import Clock
from advgen.errors import UserError
from advgen.runtime import checkpoint as module
from advgen.runtime.checkpoint import (
    Checkpoint,
    StoredMoments,
    lasting_checkpoints,
    latest_checkpoint,
    list_checkpoints,
    phase_ended,
    prune_checkpoints,
    read_about,
    read_checkpoint,
)
from advgen.runtime.engine import Piece

FILES = ("networks.safetensors", "optimizers-00000-of-00001.safetensors", "state.json")


def checkpoint(nimg: int = 640, ended: int | None = None, seed: int = 0) -> Checkpoint:
    random = torch.Generator().manual_seed(seed)
    networks = {
        "g.weight": torch.randn(4, 3, 3, 3, generator=random).contiguous(memory_format=torch.channels_last),
        "g.scale": torch.tensor([1e-45, float("inf"), -0.0, 0.1]),  # a subnormal, an infinity, a signed nothing
        "d.count": torch.tensor(7),
        "g_ema.weight": torch.randn(4, generator=random).half(),
    }
    clock = Clock(step=40, nimg=nimg, samples=2 * nimg, phase=1, phase_step=4, held_nimg=nimg)
    return Checkpoint(clock, networks, {"game.kind": "x", "seed": 3}, {"log.jsonl": 99}, ended)


def pieces() -> dict[str, Piece]:
    values = torch.arange(5.0).exp()
    return {"d/d.weight/exp_avg": Piece(values), "d/d.weight/step": Piece(torch.tensor(3.0))}


def write_checkpoint(folder: Path, written: Checkpoint) -> Path:
    return module.write_checkpoint(folder, written, pieces())


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    integers = {torch.float32: torch.int32, torch.float16: torch.int16}.get(one.dtype, one.dtype)
    return one.dtype == other.dtype and torch.equal(one.contiguous().view(integers), other.contiguous().view(integers))


def test_what_is_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    written = checkpoint(ended=2)
    path = write_checkpoint(tmp_path, written)
    assert path.name == "000000000640"
    assert (tmp_path / "latest").read_text() == "000000000640\n"
    read = read_checkpoint(path)
    assert replace(read, networks={}) == replace(written, networks={})
    moments = {name: piece.values for name, piece in pieces().items()}
    for ours, theirs in ((read.networks, written.networks), (StoredMoments(path).tensors(), moments)):
        assert set(ours) == set(theirs)
        assert all(same_bits(ours[name], theirs[name]) for name in theirs)
    assert read_about(path) == {"game.kind": "x", "seed": 3}
    assert phase_ended(path) == 2


def test_a_checkpoint_without_moments_is_one(tmp_path: Path) -> None:
    path = module.write_checkpoint(tmp_path, checkpoint(nimg=0, ended=-1), {})
    assert StoredMoments(path).tensors() == {}
    assert phase_ended(path) == -1


def test_nothing_in_it_is_a_pickle(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, checkpoint())
    assert sorted(file.name for file in path.iterdir()) == sorted((*FILES, "complete.json"))
    for file in path.iterdir():
        data = file.read_bytes()
        if file.suffix == ".json":
            json.loads(data)
        else:  # safetensors: the header's length, and the header as JSON, whose tensors fill the rest of the file
            length = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + length])
            header.pop("__metadata__", None)
            assert max(entry["data_offsets"][1] for entry in header.values()) == len(data) - 8 - length


@pytest.mark.parametrize("name", [*FILES, "complete.json"])
def test_a_torn_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    path = write_checkpoint(tmp_path, checkpoint())
    (path / name).unlink()
    with pytest.raises(UserError, match=f"{path.name}: is not a complete checkpoint .*Remove this folder"):
        read_checkpoint(path)


def test_without_its_last_file_it_does_not_count(tmp_path: Path) -> None:
    older = write_checkpoint(tmp_path, checkpoint(nimg=320))
    newer = write_checkpoint(tmp_path, checkpoint(nimg=640))
    assert latest_checkpoint(tmp_path) == newer
    (newer / "complete.json").unlink()
    assert list_checkpoints(tmp_path) == [older]
    assert latest_checkpoint(tmp_path) == older


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, name: str, place: float) -> None:
    path = write_checkpoint(tmp_path, checkpoint())
    data = bytearray((path / name).read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    (path / name).write_bytes(bytes(data))
    with pytest.raises(UserError, match=rf"{name}: is damaged \(its checksum differs\).*Remove this folder"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"clock": {}}'])
def test_a_damaged_state_is_no_traceback(tmp_path: Path, content: str) -> None:
    path = write_checkpoint(tmp_path, checkpoint())
    (path / "state.json").write_text(content)
    for read in (read_about, phase_ended, read_checkpoint):
        with pytest.raises(UserError, match=r"state\.json: is damaged .*Remove this folder"):
            read(path)
    (path / "complete.json").write_text(content)
    with pytest.raises(UserError, match="is not a complete checkpoint"):
        read_checkpoint(path)


def test_names_sort_as_numbers(tmp_path: Path) -> None:
    for nimg in (1_000_000, 99_968, 0, 12_000_000_000):
        write_checkpoint(tmp_path, checkpoint(nimg=nimg))
    assert [int(path.name) for path in list_checkpoints(tmp_path)] == [0, 99_968, 1_000_000, 12_000_000_000]


def test_what_a_killed_run_left_is_ignored_and_removed(tmp_path: Path) -> None:
    whole = write_checkpoint(tmp_path, checkpoint(nimg=320))
    half = tmp_path / ".000000000640.4242.tmp"
    half.mkdir()
    for file in whole.iterdir():  # as if killed between the last file and the renaming
        (half / file.name).write_bytes(file.read_bytes())
    (tmp_path / ".latest.4242.tmp").write_text("0000")
    (tmp_path / "notes").mkdir()
    assert list_checkpoints(tmp_path) == [whole]
    module.sweep(tmp_path)
    prune_checkpoints(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [whole.name, "latest", "notes"]


@pytest.mark.parametrize("fails_at", ["save_file", "sync_file", "sha256", "write_json", "os.replace"])
def test_a_failure_while_writing_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    before = write_checkpoint(tmp_path, checkpoint(nimg=320))

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full) if fails_at == "os.replace" else patch.setattr(module, fails_at, full)
        with pytest.raises(OSError, match="No space left"):
            write_checkpoint(tmp_path, checkpoint(nimg=640))
    assert sorted(path.name for path in tmp_path.iterdir()) == [before.name, "latest"]
    assert latest_checkpoint(tmp_path) == before
    read_checkpoint(before)


def test_a_resumed_run_writes_the_same_place_again(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, checkpoint(seed=0))
    path = write_checkpoint(tmp_path, checkpoint(seed=1))
    assert list_checkpoints(tmp_path) == [path]
    assert same_bits(read_checkpoint(path).networks["g.weight"], checkpoint(seed=1).networks["g.weight"])


def test_the_newest_and_all_phase_ends_are_kept(tmp_path: Path) -> None:
    ends = {0: -1, 30: 0, 60: 1}
    for nimg in range(0, 100, 10):
        write_checkpoint(tmp_path, checkpoint(nimg=nimg, ended=ends.get(nimg)))
        prune_checkpoints(tmp_path, keep=2)
        within = [n for n in range(0, nimg + 1, 10) if n not in ends]
        assert [int(path.name) for path in list_checkpoints(tmp_path)] == sorted(
            {n for n in ends if n <= nimg} | set(within[-2:])
        )
    assert (tmp_path / "latest").read_text() == "000000000090\n"


def test_those_that_stay_are_named_also_where_one_cannot_be_read(tmp_path: Path) -> None:
    """Trackers are told of them at the end of a training, which a damaged one is not to stop."""
    assert lasting_checkpoints(tmp_path) == []
    ends = {8: -1, 16: 0, 24: None, 32: 1, 40: None}
    paths = [write_checkpoint(tmp_path, checkpoint(nimg, ended)) for nimg, ended in ends.items()]
    assert lasting_checkpoints(tmp_path) == [paths[0], paths[1], paths[3], paths[4]]
    (paths[1] / "state.json").write_text("{")
    assert lasting_checkpoints(tmp_path) == [paths[0], paths[3], paths[4]]


def test_where_there_is_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "nowhere") == []
    assert latest_checkpoint(tmp_path) is None
    with pytest.raises(UserError, match="is not a complete checkpoint"):
        read_checkpoint(tmp_path / "nowhere")


def test_a_kill_while_an_old_checkpoint_is_removed_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nimg in (100, 200, 300):
        write_checkpoint(tmp_path, checkpoint(nimg))

    class Killed(BaseException):
        pass

    def half(path: Path, **_: object) -> None:
        (path / module.STATE).unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", half)
        with pytest.raises(Killed):
            module.prune_checkpoints(tmp_path, keep=1)
    found = module.list_checkpoints(tmp_path)
    assert [path.name for path in found] == [module.name_of(200), module.name_of(300)]
    other = module.temporary_of(tmp_path, 400)  # another rank has begun the next one
    other.mkdir()
    module.prune_checkpoints(tmp_path, keep=1)
    assert [path.name for path in module.list_checkpoints(tmp_path)] == [module.name_of(300)]
    assert other.is_dir()
    module.sweep(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("cuts", [[0, 60], [0, 7, 8, 31, 60], [0, 59, 60]], ids=str)
def test_ranges_of_several_ranks_are_put_together(tmp_path: Path, cuts: list[int]) -> None:
    whole = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    name, size = "g/net.weight@2/exp_avg", len(cuts) - 1  # an @ in a name is no range
    parts = []
    for rank, (start, end) in enumerate(pairwise(cuts)):
        mine = {name: Piece(whole.flatten()[start:end], start, (3, 4, 5))}
        if rank == 0:
            mine["g/net.weight@2/step"] = Piece(torch.tensor(4.0))
        parts.append(module.write_part(module.temporary_of(tmp_path, 640), rank, size, mine))
    moments = StoredMoments(module.finish_checkpoint(tmp_path, checkpoint(), parts))
    assert list(moments.names()) == [name, "g/net.weight@2/step"]
    assert torch.equal(moments.read(name), whole)
    assert moments.read("g/net.weight@2/step") == 4
    for start in range(0, 60, 7):
        for count in (1, 8, 60 - start):
            count = min(count, 60 - start)
            assert torch.equal(moments.read_range(name, start, count), whole.flatten()[start : start + count])
    module.verify_checkpoint(tmp_path / module.name_of(640))


def test_damaged_ones_are_passed_over_and_named(tmp_path: Path) -> None:
    paths = [write_checkpoint(tmp_path, checkpoint(nimg=nimg)) for nimg in (100, 200, 300)]
    (paths[2] / "networks.safetensors").write_bytes(b"short")
    (paths[1] / "state.json").unlink()
    found, wrong = module.newest_whole(tmp_path)
    assert found == paths[0]
    assert len(wrong) == 2
    assert "000000000300/networks.safetensors: is damaged" in wrong[0]
    assert "000000000200: is not a complete checkpoint" in wrong[1]


def test_one_in_so_many_and_the_best_are_kept(tmp_path: Path) -> None:
    for nimg in range(5, 100, 10):
        write_checkpoint(tmp_path, checkpoint(nimg=nimg))
        prune_checkpoints(tmp_path, keep=1, every=30, best=45)
    assert [int(path.name) for path in list_checkpoints(tmp_path)] == [5, 35, 45, 65, 95]
