"""Modes of the 25 Gaussians that ALI and a GAN cover, over many seeds, beside the figures of Dumoulin et al. 2016.

    python scripts/known_answers_modes.py runs/modes --seeds 20

Trains pipelines/recipes/points-{ali,gan}-grid25.yaml once a seed, into run folders that it goes on from when it is
started again, and prints a table in Markdown: means with 95 % intervals (Student t), of 10,000 samples a seed:

    modes         at least 20 samples within three standard deviations of the centre (the metric `modes`)
    high quality  share of samples within three standard deviations of a centre (the metric `high_quality`)
    hit           modes that are the nearest one to at least one sample: what the paper counts

What follows the options goes to every run, as --game.learning-rate 0.0003.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path

import torch
from known_answers import interval, trained

from advgen.build import build_evaluator
from advgen.config import load_recipe
from advgen.data.points import SETS
from advgen.drawing import Drawer
from advgen.metrics.modes import near
from advgen.tools.numbered import Series

RECIPES = Path(__file__).parents[1] / "pipelines" / "recipes"
PAPER = {"ali": "13.4 ± 5.8", "gan": "10.4 ± 9.2"}
SAMPLES = 10_000


def figures(kind: str, seed: int, out: Path, changes: list[str]) -> tuple[float, float, float]:
    """Train one run, or look at one that is there; modes, high quality and modes that are hit at all."""
    flags = ["--seed", str(seed), "--name", f"{kind}-{seed}", "--runs", str(out), "--tracking.wandb", "disabled"]
    recipe = load_recipe(RECIPES / f"points-{kind}-grid25.yaml", [*flags, *changes])
    folder = trained(recipe)
    evaluator = build_evaluator(recipe, folder)
    records = evaluator.run(lambda record, known: None, evaluator.checkpoints("latest"))
    found = {record["name"]: record["value"] for record in records if record["moment"] == "end"}
    points = Drawer(recipe, folder).draw(Series(recipe.evaluation.seed), range(SAMPLES))
    centres = SETS["grid25"].centres
    hit = near(points, torch.from_numpy(centres), math.inf)
    return found["modes"], found["high_quality"], float((hit > 0).sum())


def row(kind: str, found: list[tuple[float, float, float]]) -> str:
    """A line of the table."""
    modes, quality, hit = (list(column) for column in zip(*found, strict=True))
    spread = f"{statistics.stdev(hit):.1f}, {min(hit):g} to {max(hit):g}" if len(hit) > 1 else "one seed"
    cells = (interval(modes, 1), interval(quality, 3), interval(hit, 1), spread, PAPER[kind])
    return f"| `{kind}` | {len(found)} | {' | '.join(cells)} |"


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=20)
    given, changes = parser.parse_known_args()
    found: dict[str, list[tuple[float, float, float]]] = {"ali": [], "gan": []}
    for seed in range(given.seeds):
        for kind, rows in found.items():
            began = time.monotonic()
            rows.append(figures(kind, seed, given.out, changes))
            modes, quality, hit = rows[-1]
            took = time.monotonic() - began
            print(f"{kind} {seed}: modes {modes:g}, high quality {quality:.3f}, hit {hit:g}, {took:.0f} s", flush=True)
    print("| game | seeds | modes | high quality | hit | hit: deviation, range | paper's hit, ± deviation |")
    print("|---|---|---|---|---|---|---|")
    for kind, rows in found.items():
        print(row(kind, rows))


if __name__ == "__main__":
    main()
