"""Two processes under the profiler: each leaves its trace, and the run is the one they make without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from advgen.profiling.record import read_profile
from tests.distributed.runs import advgen, final_tensors, logged, make_shards, torchrun, write_recipe


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "zero2"])
def test_two_processes_are_profiled_and_change_no_bit(tmp_path: Path, engine: str) -> None:
    make_shards(tmp_path)
    ends = []
    for name, flags in (("plain", ()), ("profiled", ("--profile", "2"))):
        recipe = write_recipe(tmp_path / f"{name}.yaml", name=name, training__engine=engine)
        advgen(tmp_path, "train", recipe.name, *flags, launcher=torchrun(2))
        run = tmp_path / "runs" / name
        ends.append((final_tensors(run), logged(run)))
    (plain, log), (profiled, other) = ends
    assert plain.keys() == profiled.keys()
    assert all(plain[tensor].tobytes() == profiled[tensor].tobytes() for tensor in plain)
    assert log == other
    folder = tmp_path / "runs/profiled/profile"
    traces = [f"rank-{rank}.trace.json.gz" for rank in (0, 1)]
    assert sorted(os.listdir(folder)) == ["profile.json", "profile.md", *traces]
    found = read_profile(folder / "profile.json")
    assert [rank.rank for rank in found.ranks] == [0, 1]
    assert all((rank.seconds or 0) > (rank.data_wait_seconds or 0) >= 0 for rank in found.ranks)
    assert found.figures.steps == 2
    names = {part.name for part in found.figures.parts}
    assert {"discriminator/loss", "generator/backward", "discriminator/update", "data/wait"} <= names
    assert "| 1 |" in (folder / "profile.md").read_text()
