"""Ranks without a launcher that would end the others, as under srun: started, watched, and compared."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.distributed.runs import environment, final_tensors, free_port, logged

Ranks = list[subprocess.Popen[str]]


def start_ranks(folder: Path, recipe: Path, size: int = 2) -> Ranks:
    """One process a rank, each training the recipe."""
    port = str(free_port())
    ranks: Ranks = []
    for rank in range(size):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-m", "pipelines", "train", recipe.name],
                cwd=folder,
                env={**environment(), "PYTHONFAULTHANDLER": "1", **{key: str(value) for key, value in place.items()}},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return ranks


def ended(ranks: Ranks, limit: float) -> list[str]:
    """What each rank wrote to stderr; fails if one does not end within ``limit`` seconds, and ends it."""
    until = time.monotonic() + limit
    told, late = [], []
    for number, rank in enumerate(ranks):
        try:
            told.append(rank.communicate(timeout=max(0.1, until - time.monotonic()))[1])
        except subprocess.TimeoutExpired:
            late.append(number)
            rank.send_signal(signal.SIGABRT)  # faulthandler tells where it hung
            told.append(rank.communicate()[1])
    assert not late, f"ranks {late} did not end within {limit:g} s: {told}"
    return told


def newest(run: Path) -> int:
    """Images seen at the newest complete checkpoint, -1 for none."""
    return max((int(path.parent.name) for path in run.glob("checkpoints/[0-9]*/complete.json")), default=-1)


def wait_for_checkpoint(ranks: Ranks, run: Path, above: int = 0) -> None:
    """Until there is a checkpoint of more than ``above`` images."""
    until = time.monotonic() + 120
    while newest(run) <= above:
        assert time.monotonic() < until, "no checkpoint in two minutes"
        assert all(rank.poll() is None for rank in ranks), [rank.communicate()[1] for rank in ranks if rank.poll()]
        time.sleep(0.05)


def finish(place: Path, recipe: Path, size: int = 2) -> None:
    """Go on to the end."""
    ranks = start_ranks(place, recipe, size)
    errors = ended(ranks, 240)
    assert [rank.returncode for rank in ranks] == [0] * size, errors


def same(one: Path, other: Path) -> None:
    """Networks, averages, moments, logged values and pictures of two runs are the same bits."""
    ours, theirs = final_tensors(one), final_tensors(other)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert logged(one) == logged(other)
    pictures = [{path.name: path.read_bytes() for path in (run / "samples").glob("*.png")} for run in (one, other)]
    assert pictures[0] == pictures[1]
