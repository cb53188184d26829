"""Whether a training under faster settings of the hardware learns as the plain one: loss curves over seeds.

    python scripts/fast_and_plain.py runs/curves pipelines/recipes/earth-progan-demo.yaml --seeds 6 \\
        --variants float32 channels_last "bf16, channels_last" --game.first-resolution 32 --game.total-kimg 32

Trains the recipe once a variant and seed, into run folders that it goes on from when it is started again, evaluates
each at its end, and compares every variant with the first. A curve is cut into windows, and a run's value of a window
is the mean of what was logged there. Runs of one seed are pairs: they begin with the same weights and see the same
noise and images. The distance of two variants is the mean over windows of the squared mean of the pairs' differences,
in units of these differences' variance. Its p-value is the share of all exchanges of the two runs of seeds that have a
distance at least as large: below 0.05 (six seeds or more) the curves differ by more than chance.

What follows the options goes to every run. --picture draws the curves.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from known_answers import interval, trained
from numpy.typing import NDArray

from advgen.build import build_evaluator
from advgen.config import load_recipe
from advgen.errors import UserError
from advgen.report.data import Run, read_run
from advgen.runtime.run_folder import RunFolder

VARIANTS: dict[str, tuple[str, ...]] = {
    "float32": (),
    "channels_last": ("--training.channels-last",),
    "bf16, channels_last": ("--training.precision", "bf16", "--training.channels-last"),
    "compiled": ("--training.compile", "generator", "discriminator"),
    "tf32, channels_last": ("--training.tf32", "--training.channels-last"),
    "all": ("--training.tf32", "--training.precision", "bf16", "--training.channels-last", "--training.compile")
    + ("generator", "discriminator"),
}
Windows = dict[str, NDArray[np.float64]]
"""By curve, [seeds, windows]."""


def windows(run: Run, name: str, count: int) -> NDArray[np.float64]:
    """[count]: means of a curve's values over equal parts of the run."""
    points = np.array([(nimg, mean) for nimg, mean, *_ in run.curves[name].points()])
    parts = np.minimum((points[:, 0] * count / (run.nimg + 1)).astype(int), count - 1)
    return np.array([points[parts == part, 1].mean() for part in range(count)])


def distance(differences: NDArray[np.float64]) -> float:
    """Of pairs, by their differences [seeds, windows]."""
    return float(np.mean(differences.mean(axis=0) ** 2 / differences.var(axis=0, ddof=1)))


def permuted(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[float, float]:
    """The distance of runs [seeds, windows], and the share of all exchanges within seeds that have one as large.

    Raises:
        UserError: there is none, as of fewer than two seeds, or of a window in which nothing was logged.
    """
    differences = ours - theirs
    found = distance(differences) if len(differences) > 1 else math.nan
    if not math.isfinite(found):
        raise UserError("a distance needs two seeds that differ, and something logged in each window: fewer --windows.")
    signs = itertools.product((1.0, -1.0), repeat=len(differences))
    dealt = [distance(np.array(sign)[:, None] * differences) for sign in signs]
    return found, float(np.mean(np.array(dealt) >= found * (1 - 1e-9)))


def figures(recipe: Path, variant: str, seed: int, out: Path, changes: Sequence[str]) -> tuple[Run, dict[str, float]]:
    """Train one run, or look at one that is there; what it logged, and the metrics of its end."""
    name = f"{variant.replace(', ', '-')}-{seed}"
    flags = ["--seed", str(seed), "--name", name, "--runs", str(out), "--tracking.wandb", "disabled"]
    read = load_recipe(recipe, [*flags, *VARIANTS[variant], *changes])
    folder: RunFolder = trained(read)
    evaluator = build_evaluator(read, folder)
    records = evaluator.run(lambda record, known: None, evaluator.checkpoints("latest"))
    return read_run(folder.path), {each["name"]: each["value"] for each in records if each["moment"] == "end"}


def draw(path: Path, curves: Mapping[str, Windows], kimg: float) -> None:
    """Mean and standard deviation over seeds of each curve."""
    from matplotlib.figure import Figure

    names = list(next(iter(curves.values())))
    figure = Figure(figsize=(5 * len(names), 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for variant, found in curves.items():
            mean, deviation = found[name].mean(axis=0), found[name].std(axis=0, ddof=1)
            at = (np.arange(len(mean)) + 0.5) * kimg / len(mean)
            (line,) = axes.plot(at, mean, label=variant)
            axes.fill_between(at, mean - deviation, mean + deviation, alpha=0.2, color=line.get_color(), linewidth=0)
        axes.set_title(name)
        axes.set_xlabel("thousands of images")
    figure.axes[0].legend(title="mean, deviation over seeds")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=["float32", "bf16, channels_last"])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--picture", type=Path, metavar="FILE")
    given, changes = parser.parse_known_args()
    runs: dict[str, list[Run]] = {variant: [] for variant in given.variants}
    metrics: dict[str, list[dict[str, float]]] = {variant: [] for variant in given.variants}
    for seed in range(given.seeds):
        for variant in runs:
            run, measured = figures(given.recipe, variant, seed, given.out, changes)
            runs[variant].append(run)
            metrics[variant].append(measured)
            print(f"{variant} {seed}: {measured}", flush=True)
    names = sorted(name for name in runs[given.variants[0]][0].curves if name.endswith("/loss"))
    curves: dict[str, Windows] = {
        variant: {name: np.stack([windows(run, name, given.windows) for run in found]) for name in names}
        for variant, found in runs.items()
    }
    shown = sorted(metrics[given.variants[0]][0])
    print("\n| variant |", " | ".join([*(f"{name}: distance, p" for name in names), *shown]), "|")
    print("|---" * (1 + len(names) + len(shown)), "|", sep="")
    for variant in given.variants:
        cells: list[str] = []
        for name in names:
            first = variant == given.variants[0]
            found = None if first else permuted(curves[variant][name], curves[given.variants[0]][name])
            cells.append("" if found is None else f"{found[0]:.2f}, {found[1]:.2f}")
        cells += [interval([each[name] for each in metrics[variant]], 1) for name in shown]
        print(f"| {variant} | {' | '.join(cells)} |")
    if given.picture is not None:
        draw(given.picture, curves, runs[given.variants[0]][0].nimg / 1000)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
