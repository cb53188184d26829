"""The settings of runs: which of them differ, and which runs differ in nothing but the seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import yaml

from advgen.strict_config import flatten

Settings = Mapping[str, Any]
"""A resolved recipe by dotted names."""

_NAMES = ("name", "runs", "compare_with")
_ASIDE = ("seed", "training", "evaluation", "tracking", "data.read_threads", "data.read_workers", "data.cache_mib")
_NAMING, _LONGEST = 3, 60  # settings and letters in the name of a group
_METHOD = ("training.precision", "training.tf32")


def settings_of(config: str) -> dict[str, Any]:
    """The text of a ``config.yaml`` by dotted names; empty where it is no mapping, as one that was torn may be."""
    try:
        value = yaml.safe_load(config)
    except yaml.YAMLError:
        return {}
    return flatten(value) if isinstance(value, Mapping) else {}


def differing(all_settings: Sequence[Settings]) -> list[str]:
    """Names whose values are not the same in all, in the order in which they first come; not what a run is called."""
    names = dict.fromkeys(name for settings in all_settings for name in settings if name not in _NAMES)
    return [name for name in names if len({_text(settings.get(name)) for settings in all_settings}) > 1]


def method_of(settings: Settings) -> dict[str, Any]:
    """What makes runs differ in more than luck: all but seed, hardware, reporting and evaluation."""
    return {
        name: value
        for name, value in settings.items()
        if name in _METHOD or (name not in _NAMES and not any(f"{name}.".startswith(f"{a}.") for a in _ASIDE))
    }


def group_names(methods: Sequence[Settings], runs: Sequence[str]) -> list[str]:
    """For each run what its group is called; runs of one method get one name, of different methods different ones.

    The settings in which groups differ, such as ``learning_rate 0.001``; where these are many, what the names of the
    group's runs have in common.

    Args:
        methods: of the runs.
        runs: their names, each once.
    """
    names = differing(methods)
    if not names:
        return ["all runs"] * len(runs)
    last = [name.rpartition(".")[2] for name in names]
    short = {name: end if last.count(end) == 1 else name for name, end in zip(names, last, strict=True)}
    by_settings = [", ".join(f"{short[name]} {shown(method.get(name))}" for name in names) for method in methods]
    keys = [_text([method.get(name) for name in names]) for method in methods]
    told_apart = len(set(by_settings)) == len(set(keys))  # null and the word none are shown alike
    if told_apart and len(names) <= _NAMING and max(map(len, by_settings)) <= _LONGEST:
        return by_settings
    members: dict[str, list[str]] = {}
    for run, key in zip(runs, keys, strict=True):
        members.setdefault(key, []).append(run)
    stems = {key: _stem(own) for key, own in members.items()}
    used = Counter(stems.values())
    called = {key: stem if stem and used[stem] == 1 else f"{members[key][0]} …" for key, stem in stems.items()}
    return [called[key] for key in keys]


def _stem(runs: Sequence[str]) -> str:
    """What names begin with alike, such as ``ali-a`` of ``ali-a-seed0`` and ``ali-a-seed1``."""
    letters = takewhile(lambda at: len(set(at)) == 1, zip(*runs, strict=False))
    return "".join(letter for letter, *_ in letters).rstrip("-_. ").removesuffix("seed").rstrip("-_. ")


def first_columns(names: Sequence[str], all_settings: Sequence[Settings], count: int) -> list[str]:
    """At most ``count`` of the differing settings: those of the method before others, and of all runs before those that
    only some have."""

    def rank(name: str) -> tuple[bool, bool]:
        return name not in method_of({name: None}), any(name not in settings for settings in all_settings)

    return sorted(names, key=rank)[:count]


def shown(value: Any) -> str:
    """A setting as a person reads it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
