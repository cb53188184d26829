"""Many runs of one recipe: a grid of values, each with several seeds; every member is a run with a name of its own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from advgen.errors import UserError
from advgen.launch.cluster import MOST_TASKS


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
    varied = axes(seed, grid, seeds)
    found: dict[str, Member] = {}
    for values in itertools.product(*varied.values()):
        flags = [part for key, value in zip(varied, values, strict=True) for part in (_flag(key), value)]
        words = [f"{key.rsplit('.', 1)[-1]}_{value}" for key, value in zip(varied, values, strict=True)]
        name = "-".join([recipe, *(re.sub(r"[^A-Za-z0-9._-]+", "_", word) for word in words)])
        if name in found:
            raise UserError(f"--grid: two members would be called {name}. Leave one of the values out.")
        found[name] = Member(name, (*flags, "--name", name))
    if len(found) > MOST_TASKS:
        raise UserError(f"--grid: makes {len(found)} members; {MOST_TASKS} are the most at once. Make several sweeps.")
    return list(found.values())


def axes(seed: int, grid: Sequence[str], seeds: int) -> dict[str, list[str]]:
    """What is varied: the values of each key, those of ``seed`` last where there are several.

    Args and errors are those of :func:`members`.
    """
    found: dict[str, list[str]] = {}
    for key, values in map(_axis, grid):
        if key in found:
            raise UserError(f"--grid {key}: is given twice. Write all its values after one '='.")
        found[key] = values
    if seeds < 1:
        raise UserError("--seeds must be at least 1.")
    if "seed" in found and seeds > 1:
        raise UserError("--grid seed and --seeds both choose seeds. Keep one of them.")
    if seeds > 1:
        found["seed"] = [str(number) for number in range(seed, seed + seeds)]
    return found


def _axis(text: str) -> tuple[str, list[str]]:
    key, _, values = text.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*", key) or not all(values.split(",")):
        raise UserError(f"--grid {text}: write it as KEY=VALUE,VALUE, such as game.learning_rate=0.001,0.002.")
    if key in ("name", "runs"):
        raise UserError(f"--grid {key}: members get names of their own. Take another key.")
    return key.replace("-", "_"), values.split(",")


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")
