"""Every benchmark that has a short form, of this checkout and of an older one in turns: has anything got slower?

    git worktree add ../before COMMIT
    python scripts/bench.py against ../before
    python scripts/bench.py against ../before --only step train --rounds 5

Each is a process of its own, which begins in its checkout and imports from it; packages are those of this environment.
Who begins changes from round to round. Told are medians, and this / other as the mean of the logarithms of the rounds'
ratios with its 95 % interval; with seconds and bytes less is better, with rates more.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from advgen.errors import UserError
from scripts.benchmarks.measure import ROOT, Report, in_turns, parser_of, ratio_of

# Figures of a benchmark by name, each with the keys under which its JSON has it; "*" stands for every one of a list.
Figures = Mapping[str, Sequence[str | int]]


@dataclass(frozen=True)
class Case:
    """One benchmark in its short form.

    Attributes:
        arguments: of ``bench.py``.
        figures: what is compared.
    """

    arguments: tuple[str, ...]
    figures: Figures


def _step(resolution: int) -> Figures:
    return {f"step at {resolution} px, s": ("resolutions", str(resolution), "seconds", "advgen", "step")}


def _train(resolution: int) -> Figures:
    return {f"trainer's block of steps at {resolution} px, s": (str(resolution), "trainer")}


CASES = {
    "step": Case(
        ("step", "--rounds", "4", "--warm", "2", "--training.channels-last"), {**_step(32), **_step(64), **_step(128)}
    ),
    "train": Case(("train", "--resolution", "32", "64", "--pairs", "6", "--alone", "2"), {**_train(32), **_train(64)}),
    "loader": Case(
        ("loader", "--case", "256", "--only", "advgen/auto", "--rounds", "2", "--seconds", "3"),
        {
            f"loader by {kind}, images/s": ("256", "images_per_second", f"advgen/auto/{kind}")
            for kind in ("threads", "workers")
        },
    ),
    "sharding": Case(
        ("sharding", "--only", "speed", "--images", "400", "--rounds", "1"),
        {"sharding, images/s": ("speed", "advgen shard")},
    ),
    "startup": Case(
        ("startup", "--rounds", "1"),
        {
            "start to the first step, s": ("runs", "*", "start", "steps", 0, 0),
            "change of phase, s": ("phase_changes",),
        },
    ),
    "checkpoint": Case(
        ("checkpoint", "--times", "5"),
        {"a checkpoint stops the training, s": ("checkpoints", "stall")},
    ),
    "memory": Case(
        ("memory", "--ranks", "1", "--engines", "ddp", "--hidden", "1024"),
        {"memory of a rank, bytes": ("ddp", "bytes")},
    ),
    "frechet": Case(
        ("evaluate", "frechet", "--n", "2000", "--dimensions", "512"), {"Frechet distance, s": ("frechet", "advgen", 1)}
    ),
    "neighbours": Case(
        ("evaluate", "neighbours", "--n", "5000", "--dimensions", "512"), {"neighbours, s": ("neighbours", "seconds")}
    ),
    "inception": Case(
        ("evaluate", "inception", "--images", "64", "--rounds", "1"),
        {"files to Inception's features, s": ("inception", "advgen", 0, 1)},
    ),
    "compare": Case(
        ("compare", "--runs", "40", "--points", "500", "--grids", "2"),
        {"comparison: read, s": ("read_seconds",), "comparison: written, s": ("write_seconds",)},
    ),
}


def value_at(figures: Any, keys: Sequence[str | int]) -> float:
    """What lies under ``keys``: a number, or the median of a list of them.

    Raises:
        KeyError: nothing is there.
    """
    found: list[Any] = [figures]
    try:
        for key in keys:
            found = [each for one in found for each in (one if key == "*" else [one[key]])]
    except (IndexError, TypeError):
        raise KeyError(keys) from None
    return statistics.median(value for each in found for value in (each if isinstance(each, list) else [each]))


def taken(case: Case, checkout: Path) -> dict[str, float]:
    """The figures of a case in a checkout; those that its benchmark does not tell are left out.

    Raises:
        UserError: the benchmark failed, with the end of what it said.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    with tempfile.TemporaryDirectory() as place:
        told = Path(place) / "told.json"
        command = [sys.executable, str(checkout / "scripts" / "bench.py"), *case.arguments, "--json", str(told)]
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise UserError(f"{checkout}: bench.py {' '.join(case.arguments)} failed: {said[-1] if said else ''}")
        figures = json.loads(told.read_text())["figures"]
    values: dict[str, float] = {}
    for name, keys in case.figures.items():
        try:
            values[name] = value_at(figures, keys)
        except KeyError:
            continue
    return values


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = parser_of("against", __doc__)
    parser.add_argument("other", type=Path, help="a checkout to hold this one against")
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    other = given.other.resolve()
    if not (other / "scripts" / "bench.py").is_file():
        raise UserError(f"{given.other} has no scripts/bench.py. Name a checkout that has.")
    with Report(given) as report:
        rows: list[list[object]] = []
        for name in given.only:
            case = CASES[name]
            works: dict[str, Callable[[], dict[str, float]]] = {
                "other": partial(taken, case, other),
                "this": partial(taken, case, ROOT),
            }
            found = in_turns(works, given.rounds)
            for figure in case.figures:
                sides = {side: [each[figure] for each in values if figure in each] for side, values in found.items()}
                if len(sides["other"]) != len(sides["this"]) or not sides["this"]:
                    report.say(f"{figure}: one of the two does not tell it.")
                    continue
                ratio = ratio_of(sides["this"], sides["other"])
                report.figures[figure] = {**sides, "ratio": ratio}
                medians = [f"{statistics.median(sides[side]):.4g}" for side in ("other", "this")]
                rows.append([figure, *medians, ratio.show()])
                print(*rows[-1], sep="; ", file=sys.stderr, flush=True)
        report.table(["figure", "other", "this", "this / other (95 %)"], rows)
