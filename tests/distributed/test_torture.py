"""Runs that are hurt in every way there is, again and again, end with the bits of the run that was left alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from advgen.runtime.checkpoint import list_checkpoints, verify_checkpoint
from tests.distributed.ranks import Ranks, ended, finish, newest, same, start_ranks, wait_for_checkpoint
from tests.distributed.runs import make_shards, write_recipe

COLLECTIVE_LIMIT = 15.0
END_LIMIT = COLLECTIVE_LIMIT + 15.0  # a rank notices, tells, and its interpreter leaves

COMMON: dict[str, Any] = {
    "training__checkpoint_kimg": 0.16,
    "training__sample_kimg": 1.0,
    "training__collective_timeout_seconds": COLLECTIVE_LIMIT,
    "training__keep_checkpoints": 3,
}
RECIPES: dict[str, dict[str, Any]] = {
    "growing": {
        **COMMON,
        "data__resolution": 32,
        "game__channels": {4: 8, 8: 8, 16: 4, 32: 4},
        "game__stabilize_kimg": 2.4,
        "game__fade_kimg": 2.4,
    },
    "fixed": {
        **COMMON,
        "data__resolution": 32,
        "game": {"kind": "gan", "width": 4, "width_max": 8, "latent_size": 8, "batch_size": 16, "total_kimg": 12.0},
        "training__engine": "zero2",
    },
}
# How often each harm is done, by recipe: 52 in all.
HARMS: dict[str, dict[str, int]] = {
    "growing": {"one": 5, "all": 5, "asked": 5, "in a checkpoint": 6, "in a phase change": 6, "full disk": 3},
    "fixed": {"one": 5, "all": 5, "asked": 4, "in a checkpoint": 5, "full disk": 3},
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, which can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    permitted = os.geteuid() == 0 and shutil.which("mount") is not None
    if not permitted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]).returncode:
        pytest.skip("mounting a small file system, which this test fills, needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class Torture:
    """One run, hurt on and on.

    Attributes:
        places: the newest checkpoint at each harm.
        slowest: seconds between a harm and the end of the last rank, at most.
    """

    def __init__(self, folder: Path, recipe: Path, run: Path, chance: random.Random) -> None:
        self.folder, self.recipe, self.run, self.chance = folder, recipe, run, chance
        self.places: list[int] = []
        self.slowest = 0.0

    def hurt(self, harm: str) -> None:
        """Start the ranks, do the harm, wait for their end, and look at what is left."""
        ranks = start_ranks(self.folder, self.recipe)
        filler: Path | None = None
        if harm == "in a checkpoint":
            self._until(ranks, lambda: any(self.run.glob("checkpoints/.*.tmp")))
            time.sleep(self.chance.uniform(0.0, 0.02))
        elif harm == "in a phase change":
            before = self._ends()
            self._until(ranks, lambda: self._ends() > before)
            time.sleep(self.chance.uniform(0.0, 0.2))
        elif harm in ("one", "all") and self.chance.random() < 0.25:
            time.sleep(self.chance.uniform(0.2, 8.0))  # anywhere, the start included
        else:
            wait_for_checkpoint(ranks, self.run, newest(self.run))
            time.sleep(self.chance.uniform(0.0, 0.5))
        assert all(rank.poll() is None for rank in ranks), f"{harm}: the run ended before; make it longer"
        began = time.monotonic()
        if harm == "asked":
            self._signal(ranks, signal.SIGTERM)
        elif harm == "full disk":
            filler = self._fill(ranks)
        elif harm == "one" or (harm != "all" and self.chance.random() < 0.5):
            self._signal([self.chance.choice(ranks)], signal.SIGKILL)
        else:
            self._signal(ranks, signal.SIGKILL)
        print(f"{harm} at {newest(self.run)}", flush=True)
        errors = ended(ranks, END_LIMIT)
        self.slowest = max(self.slowest, time.monotonic() - began)
        codes = sorted(rank.returncode for rank in ranks)
        allowed = {"asked": {143}, "full disk": {2, 75}}.get(harm, {-signal.SIGKILL, 75})
        assert set(codes) <= allowed, (harm, codes, errors)
        assert not any("Traceback" in text for text in errors), (harm, errors)
        if filler is not None:
            assert any("No space left on device" in text for text in errors), errors
            filler.unlink()
        self.places.append(newest(self.run))
        for path in list_checkpoints(self.run / "checkpoints"):  # whatever bears a checkpoint's name is whole
            verify_checkpoint(path)

    def _until(self, ranks: Ranks, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < until, "it has not come to it in two minutes"
            assert all(rank.poll() is None for rank in ranks), [rank.communicate()[1] for rank in ranks]
            time.sleep(0.001)

    def _ends(self) -> int:
        """Phases of which the log tells the end."""
        log = self.run / "log.jsonl"
        return log.read_text().count('"event": "end"') if log.is_file() else 0

    @staticmethod
    def _signal(ranks: Ranks, number: signal.Signals) -> None:
        for rank in ranks:
            rank.send_signal(number)

    def _fill(self, ranks: Ranks) -> Path:
        """Keep the run's file system full to the last byte until a rank has ended: removed checkpoints give room."""
        filler = self.run.parent / "filler"
        until = time.monotonic() + END_LIMIT
        with filler.open("wb", buffering=0) as file:
            while all(rank.poll() is None for rank in ranks) and time.monotonic() < until:
                for size in (1 << 16, 1):
                    with suppress(OSError):
                        while file.write(b"\0" * size):
                            pass
                time.sleep(0.002)
        return filler


@pytest.mark.parametrize(
    "name", [pytest.param("growing", marks=pytest.mark.slow), pytest.param("fixed", marks=pytest.mark.long)]
)
def test_nothing_that_happens_to_a_run_changes_its_end(name: str, tmp_path: Path, disk: Path) -> None:
    make_shards(tmp_path, resolution=32)
    quiet = write_recipe(tmp_path / "quiet.yaml", name="quiet", **RECIPES[name])
    hurt = write_recipe(tmp_path / "hurt.yaml", name="hurt", runs=str(disk), **RECIPES[name])
    finish(tmp_path, quiet)
    harms = list(Counter(HARMS[name]).elements())
    chance = random.Random(f"torture {name}")
    chance.shuffle(harms)
    torture = Torture(tmp_path, hurt, disk / "hurt", chance)
    for harm in harms:
        torture.hurt(harm)
    finish(tmp_path, hurt)
    same(tmp_path / "runs" / "quiet", disk / "hurt")
    assert len(set(torture.places)) >= len(harms) // 2, "the harms must fall at different places"
    record = {"recipe": name, "harms": HARMS[name], "places": torture.places, "slowest_end_s": torture.slowest}
    print(json.dumps(record))  # seen with -s
