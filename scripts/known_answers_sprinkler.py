"""Implicit inference where the answer is known: the sprinkler's posteriors on a grid, and a linear-Gaussian model.

    python scripts/known_answers_sprinkler.py RUNS --picture docs/sprinkler.png

Trains the four methods of Huszar 2017 on both models, by the trainer and the recipe points-sprinkler-pc-adv.yaml, into
the folder RUNS; finished runs are not trained again. Further flags are the recipe's. Prints, as tables in Markdown:

- sprinkler: total variation between q(z | x) and the posterior. 400,000 samples of q are counted in cells 0.1 wide
  on [-7, 7]^2; all else is one more cell. The posterior's mass in a cell is from the density at 5 x 5 points. So few
  samples a cell differ from their own distribution, too: the floor is the same figure of as many exact samples.
- linear-Gaussian: KL[q || posterior] in nats, q taken as the Gaussian of its samples' moments. PC-Den is right only as
  sigma gets small: beside it stands what it comes to at its sigma, with the best of denoisers.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from known_answers import encoded, gaussian_divergence, trained
from numpy.typing import NDArray
from torch import Tensor

from advgen.config import Recipe, load_recipe
from advgen.data.points import PointStream
from advgen.games.implicit_vi.config import ImplicitViConfig
from advgen.likelihood.models import LinearGaussian, Sprinkler, log_normal
from advgen.seeds import Noise

RECIPE = Path(__file__).parents[1] / "pipelines/recipes/points-sprinkler-pc-adv.yaml"
METHODS = {
    "PC-Adv": ("prior", "adversarial"),
    "JC-Adv": ("joint", "adversarial"),
    "PC-Den": ("prior", "denoising"),
    "JC-Den": ("joint", "denoising"),
}
LINEAR = ("--game.model", "linear_gaussian", "--data.points.kind", "linear_gaussian", "--data.channels", "3")
OBSERVATIONS = (0.0, 5.0, 8.0, 12.0, 50.0)
SAMPLES, CHUNK = 400_000, 100_000
SIDE, CELL, FINER = 7.0, 0.1, 5
EDGES = np.linspace(-SIDE, SIDE, round(2 * SIDE / CELL) + 1)
Masses = NDArray[np.float64]


def run_of(runs: Path, method: str, linear: bool, flags: Sequence[str]) -> Recipe:
    """The recipe of a run that has been trained to its end."""
    contrast, estimator = METHODS[method]
    name = f"{'linear-gaussian' if linear else 'sprinkler'}-{method.lower()}"
    own = ("--name", name, "--runs", str(runs), "--game.contrast", contrast, "--game.estimator", estimator)
    recipe = load_recipe(RECIPE, [*own, *(LINEAR if linear else ()), *flags])
    begin = time.process_time()
    trained(recipe)
    print(f"{name}: {time.process_time() - begin:.0f} s of CPU time in this process", file=sys.stderr, flush=True)
    return recipe


def draws(recipe: Recipe, x: Tensor, count: int) -> Tensor:
    """``count`` latents of one observation [observed]: [count, latents]."""
    parts: list[Tensor] = []
    for start in range(0, count, CHUNK):
        noise = Noise(0, ("known answers",), torch.arange(start, min(start + CHUNK, count)))
        parts.append(encoded(recipe, x.expand(len(noise.positions), -1), noise))
    return torch.cat(parts)


def posterior(x: float) -> Masses:
    """The sprinkler's posterior mass in each cell, [cells, cells]; that beyond the grid is left out of the sum."""
    model, cells = Sprinkler(), len(EDGES) - 1
    fine = torch.from_numpy((np.arange(cells * FINER) + 0.5) * CELL / FINER - SIDE)
    z = torch.cartesian_prod(fine, fine)
    log_joint = model.log_likelihood(torch.full((len(z), 1), x, dtype=z.dtype), z) + log_normal(z, 0.0, model.deviation)
    return log_joint.softmax(dim=0).reshape(cells, FINER, cells, FINER).sum(dim=(1, 3)).numpy()


def counted(z: Tensor) -> Masses:
    """The share of samples in each cell."""
    return np.histogram2d(z[:, 0].numpy(), z[:, 1].numpy(), bins=(EDGES, EDGES))[0] / len(z)


def total_variation(q: Masses, p: Masses) -> float:
    """Half the sum of differences, the one in what lies beyond the grid included."""
    return float(np.abs(q - p).sum() + abs(q.sum() - p.sum())) / 2


def floor(p: Masses) -> float:
    """The total variation of as many samples of ``p`` itself."""
    return total_variation(np.random.default_rng(0).multinomial(SAMPLES, p.ravel()).reshape(p.shape) / SAMPLES, p)


def blurred_limit(covariance: Tensor, sigma: float) -> float:
    """KL of the Gaussian where PC-Den rests: blurred by sigma, it has the posterior's score at its own samples."""
    own = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance - sigma**2 * torch.eye(2).double())
    exact = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    return float(torch.distributions.kl_divergence(own, exact))


def sprinkler(runs: Path, flags: Sequence[str]) -> dict[str, list[Masses]]:
    """Print the table; returns masses by row of the picture."""
    exact = [posterior(x) for x in OBSERVATIONS]
    shown = {"exact": exact}
    print("\n| total variation, x = |", " | ".join(f"{x:g}" for x in OBSERVATIONS), "|")
    print("|---" * (len(OBSERVATIONS) + 1) + "|")
    print("| floor: exact samples |", " | ".join(f"{floor(p):.3f}" for p in exact), "|")
    for method in METHODS:
        recipe = run_of(runs, method, linear=False, flags=flags)
        shown[method] = [counted(draws(recipe, torch.tensor([x]), SAMPLES)) for x in OBSERVATIONS]
        figures = [total_variation(q, p) for q, p in zip(shown[method], exact, strict=True)]
        print(f"| {method} |", " | ".join(f"{figure:.3f}" for figure in figures), "|", flush=True)
    return shown


def linear_gaussian(runs: Path, flags: Sequence[str], observations: int = 100) -> None:
    """Print the table: observations are fresh points."""
    stream = PointStream("linear_gaussian", seed=12345)
    points = torch.from_numpy(stream.read(np.arange(observations)).images).flatten(1)
    means, covariance = LinearGaussian().posterior(points.double())
    print("\n| KL from the posterior, nats | mean | largest |\n|---|---|---|")
    for method in METHODS:
        recipe = run_of(runs, method, linear=True, flags=flags)
        found = [
            gaussian_divergence(draws(recipe, x, 20_000), mean, covariance)
            for x, mean in zip(points, means, strict=True)
        ]
        print(f"| {method} | {np.mean(found):.4f} | {max(found):.4f} |", flush=True)
        if method == "PC-Den":
            assert isinstance(recipe.game, ImplicitViConfig)
            limit = blurred_limit(covariance, recipe.game.denoising_deviation * LinearGaussian.deviation)
            print(f"| PC-Den's limit at its sigma | {limit:.4f} | {limit:.4f} |", flush=True)


def draw(path: Path, shown: dict[str, list[Masses]]) -> None:
    """Posteriors side by side: a row for the exact ones and for each method, a column for each observation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * len(OBSERVATIONS), 2 * len(shown) + 0.3), dpi=90, layout="constrained")
    panels = figure.subplots(len(shown), len(OBSERVATIONS), sharex=True, sharey=True)
    for row, (name, masses) in zip(panels, shown.items(), strict=True):
        for axes, q, p, x in zip(row, masses, shown["exact"], OBSERVATIONS, strict=True):
            # Roots of densities, so that tails are seen; the same scale for a column.
            axes.imshow(
                np.sqrt(q.T), origin="lower", extent=(-SIDE, SIDE, -SIDE, SIDE), cmap="magma", vmax=np.sqrt(p.max())
            )
            axes.set_xlim(-5, 6)
            axes.set_ylim(-5, 6)
            axes.set_title(f"x = {x:g}" if q is p else f"TV {total_variation(q, p):.3f}", fontsize=9)
        row[0].set_ylabel(name)
    FigureCanvasAgg(figure).print_png(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder for the runs")
    parser.add_argument("--picture", type=Path, help="a PNG of all posteriors to write")
    parser.add_argument("--only", choices=("sprinkler", "linear_gaussian"), help="one of the models")
    given, further = parser.parse_known_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, 1 thread")
    if given.only != "linear_gaussian":
        histograms = sprinkler(given.runs.resolve(), further)
        if given.picture is not None:
            draw(given.picture, histograms)
    if given.only != "sprinkler":
        linear_gaussian(given.runs.resolve(), further)
