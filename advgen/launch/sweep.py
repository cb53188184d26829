"""Many runs of one recipe: a grid of values, each with several seeds; every member is a run with a name of its own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from advgen.errors import UserError

_MOST = 1000  # tasks of a job array, by SLURM's own default (MaxArraySize - 1)


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
        name: of the run: that of the recipe, the values that differ, the seed.
        flags: that make it of the recipe, such as ``--game.learning-rate 0.002 --seed 1``.
    """

    name: str
    flags: tuple[str, ...]


def members(recipe: str, seed: int, grid: Sequence[str], seeds: int) -> list[Member]:
    """The runs of a sweep, the seed changing fastest.

    Args:
        recipe: name of the recipe.
        seed: of the recipe; the members' are this one and those that follow.
        grid: texts such as ``game.learning_rate=0.001,0.002``; every combination of them is a member.
        seeds: runs of each combination.

    Raises:
        UserError: a text that is none such, a key twice, no seed, two values that give one name, or too many members.
    """
    axes = [_axis(text) for text in grid]
    keys = [key for key, _ in axes]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise UserError(f"--grid {twice.pop()}: is given twice. Write all its values after one '='.")
    if seeds < 1:
        raise UserError("--seeds must be at least 1.")
    if "seed" in keys and seeds > 1:
        raise UserError("--grid seed and --seeds both choose seeds. Keep one of them.")
    found: dict[str, Member] = {}
    for values in itertools.product(*(values for _, values in axes)):
        for number in range(seed, seed + seeds):
            flags = [part for key, value in zip(keys, values, strict=True) for part in (_flag(key), value)]
            words = [f"{key.rsplit('.', 1)[-1]}_{value}" for key, value in zip(keys, values, strict=True)]
            if seeds > 1:
                flags += ["--seed", str(number)]
                words.append(f"seed_{number}")
            name = "-".join([recipe, *(re.sub(r"[^A-Za-z0-9._-]+", "_", word) for word in words)])
            if name in found:
                raise UserError(f"--grid: two members would be called {name}. Leave one of the values out.")
            found[name] = Member(name, (*flags, "--name", name))
    if len(found) > _MOST:
        raise UserError(f"--grid: makes {len(found)} members; at most {_MOST} are taken at once. Make several sweeps.")
    return list(found.values())


def _axis(text: str) -> tuple[str, list[str]]:
    key, _, values = text.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*", key) or not all(values.split(",")):
        raise UserError(f"--grid {text}: write it as KEY=VALUE,VALUE, such as game.learning_rate=0.001,0.002.")
    if key in ("name", "runs"):
        raise UserError(f"--grid {key}: members get names of their own. Take another key.")
    return key.replace("-", "_"), values.split(",")


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")
