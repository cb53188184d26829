"""Ranks that die, hang or run out of disk, numbers that are none: an end within a limit, and nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advgen.data.stream import ImageStream
from tests.distributed.ranks import ended, finish, same, start_ranks, wait_for_checkpoint
from tests.distributed.runs import advgen, make_shards, run_advgen, write_recipe

LONG: dict[str, Any] = {
    "game__stabilize_kimg": 2.0,
    "game__fade_kimg": 2.0,
    "training__checkpoint_kimg": 0.4,
    "training__collective_timeout_seconds": 15.0,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    make_shards(folder)
    return folder


@pytest.mark.slow
def test_a_rank_that_dies_or_hangs_ends_the_others_and_the_run_goes_on(place: Path) -> None:
    finish(place, write_recipe(place / "quiet.yaml", name="quiet", **LONG))
    recipe = write_recipe(place / "hurt.yaml", name="hurt", **LONG)
    run = place / "runs" / "hurt"
    for above, number, limit in ((0, signal.SIGKILL, 10), (1500, signal.SIGSTOP, 15 + 10)):
        ranks = start_ranks(place, recipe)
        wait_for_checkpoint(ranks, run, above)
        ranks[1].send_signal(number)
        began = time.monotonic()
        _, errors = ranks[0].communicate(timeout=limit + 30)
        assert time.monotonic() - began < limit
        assert ranks[0].returncode == 75, errors
        assert errors.count("another process of this run has ended, or did not answer") == 1
        assert "Traceback" not in errors
        assert "rank 0 ends at step" in (run / "logs" / "rank-00000.log").read_text()
        ranks[1].kill()
        ranks[1].communicate()
    finish(place, recipe)
    same(place / "runs" / "quiet", run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_to_one_rank_stops_all_with_a_checkpoint(place: Path, number: signal.Signals) -> None:
    name = f"asked-{number.name}"
    ranks = start_ranks(place, write_recipe(place / f"{name}.yaml", name=name, **LONG))
    run = place / "runs" / name
    wait_for_checkpoint(ranks, run)
    ranks[1].send_signal(number)
    codes = []
    for rank in ranks:
        _, errors = rank.communicate(timeout=60)
        codes.append(rank.returncode)
        assert "Traceback" not in errors
    assert codes == [85, 143 if number == signal.SIGTERM else 85]


@pytest.mark.parametrize("fault", ["missing", pytest.param("cut", marks=pytest.mark.slow)])
def test_a_shard_that_is_lost_ends_all_ranks_soon(place: Path, fault: str) -> None:
    shards = place / f"{fault}-shards"
    advgen(place, "shard", "images", shards.name, "--resolution", "16", "--shard-samples", "8")
    data = {"data__train": {"shards": shards.name}, "data__cache_mib": 0, "data__shuffle_block_shards": 1}
    changes = {**LONG, **data, "training__sample_rows": 1, "training__collective_timeout_seconds": 300.0}
    recipe = write_recipe(place / f"{fault}.yaml", name=fault, **changes)
    stream = ImageStream(shards, seed=3, resolution=16, channels=3, block_shards=1)
    last = stream.manifest.shards[int(stream.index_of(np.array([len(stream) - 1]))[0]) // 8].name
    if fault == "missing":
        (shards / last).unlink()  # asked for at the end of the first epoch
    ranks = start_ranks(place, recipe)
    if fault == "cut":
        wait_for_checkpoint(ranks, place / "runs" / fault)
        os.truncate(shards / last, 0)
    told = ended(ranks, 60)
    assert all(rank.returncode in (2, 75) for rank in ranks) and 2 in [rank.returncode for rank in ranks], told
    assert any(last in text for text in told), told
    assert not any("Traceback" in text for text in told), told


def test_time_is_up(place: Path) -> None:
    recipe = write_recipe(place / "short.yaml", name="short", **{**LONG, "game__stabilize_kimg": 50.0})
    done = run_advgen(place, "train", recipe.name, "--max-minutes", "0.05")
    assert done.returncode == 85, done.stderr
    assert "stopped; the same command goes on from here" in done.stdout
    assert (place / "runs" / "short" / "checkpoints" / "latest").is_file()


def test_a_loss_that_is_not_finite_stops_with_its_place(place: Path) -> None:
    wild = {"game__learning_rate": 1e30, "game__reset_optimizers": False}
    recipe = write_recipe(place / "wild.yaml", name="wild", **wild)
    done = run_advgen(place, "train", recipe.name)
    assert done.returncode == 2
    assert "loss or gradient is not finite at step" in done.stderr
    assert "phase 'train 4x4'" in done.stderr
    assert "The last good checkpoint is runs/wild/checkpoints/000000000000" in done.stderr
    skipping = write_recipe(place / "skipping.yaml", name="skipping", **wild)
    done = run_advgen(place, "train", skipping.name, "--on-nonfinite", "skip:3")
    assert done.returncode == 2
    assert "the update number 4 in a row" in done.stderr
    assert "update 3 of at most 3 in a row is left out" in (place / "runs/skipping/logs/rank-00000.log").read_text()


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(place: Path, tmp_path: Path) -> None:
    """A real file system of its own that is full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        recipe = write_recipe(place / "full.yaml", name="full", runs=str(disk), **LONG)
        ranks = start_ranks(place, recipe)
        wait_for_checkpoint(ranks, disk / "full")
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(b"\0" * 4096):
                    pass
            except OSError:
                pass
        errors = [rank.communicate(timeout=120)[1] for rank in ranks]
        assert all(rank.returncode in (2, 75) for rank in ranks), errors
        assert any("No space left on device" in text or "could not be written" in text for text in errors), errors
        assert not any("Traceback" in text for text in errors), errors
        filler.unlink()
        finish(place, recipe)
        finish(place, write_recipe(place / "roomy.yaml", name="roomy", **LONG))
        same(place / "runs" / "roomy", disk / "full")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_damaged_checkpoint_is_named_and_passed_over(place: Path) -> None:
    short: dict[str, Any] = {"training__checkpoint_kimg": 0.05}
    for name in ("sound", "damaged"):
        done = run_advgen(place, "train", write_recipe(place / f"{name}.yaml", name=name, **short).name)
        assert done.returncode == 0, done.stderr
    run = place / "runs" / "damaged"
    ends = sorted(path.parent for path in run.glob("checkpoints/[0-9]*/complete.json"))
    file = ends[-1] / "networks.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"torn")
    done = run_advgen(place, "train", "damaged.yaml")
    assert done.returncode == 0, done.stderr
    assert f"skipped: runs/damaged/checkpoints/{ends[-1].name}/networks.safetensors: is damaged" in done.stdout
    assert f"going on from runs/damaged/checkpoints/{ends[-2].name}" in done.stdout
    same(place / "runs" / "sound", run)
    for path in run.glob("checkpoints/[0-9]*/state.json"):
        path.write_text("{}")
    done = run_advgen(place, "train", "damaged.yaml")
    assert done.returncode == 2
    assert "no checkpoint is whole" in done.stderr
    assert "Traceback" not in done.stderr
