"""The members of a sweep."""

from __future__ import annotations

import pytest

from advgen.errors import UserError
from advgen.launch.sweep import members


def test_every_combination_with_every_seed() -> None:
    found = members("run", 5, ["game.learning_rate=0.1,0.2", "game.kind-of=x/y"], 2)
    assert [member.name for member in found] == [
        f"run-learning_rate_{rate}-kind_of_x_y-seed_{seed}" for rate in ("0.1", "0.2") for seed in (5, 6)
    ]
    flags = ("--game.learning-rate", "0.1", "--game.kind-of", "x/y", "--seed", "5", "--name", found[0].name)
    assert found[0].flags == flags


def test_without_a_grid_there_are_seeds_and_with_one_seed_it_is_not_named() -> None:
    assert [member.name for member in members("run", 0, [], 2)] == ["run-seed_0", "run-seed_1"]
    assert [member.name for member in members("run", 0, ["a=1"], 1)] == ["run-a_1"]


@pytest.mark.parametrize(
    ("grid", "seeds", "text"),
    [
        (["a"], 1, "write it as KEY=VALUE,VALUE"),
        (["a=1,,2"], 1, "write it as KEY=VALUE,VALUE"),
        (["a;b=1"], 1, "write it as KEY=VALUE,VALUE"),
        (["a=1", "a=2"], 1, "is given twice"),
        (["name=x"], 1, "names of their own"),
        (["seed=1,2"], 2, "both choose seeds"),
        (["a=x/y,x_y"], 1, "two members would be called"),
        ([], 0, "--seeds must be at least 1"),
        (["a=" + ",".join(map(str, range(600)))], 2, "makes 1200 members"),
    ],
)
def test_refused(grid: list[str], seeds: int, text: str) -> None:
    with pytest.raises(UserError, match=text):
        members("run", 0, grid, seeds)
