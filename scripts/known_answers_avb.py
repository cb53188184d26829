"""Adversarial variational Bayes where the answer is known, and beside the variational autoencoder of the same size.

    python scripts/known_answers_avb.py --seeds 3 --out runs/known-avb

Trains the recipes points-avb-linear, -four and -ring with one thread each, and prints: on the linear-Gaussian model how
far the encoder is from the exact posterior (by fit_ratio, and by moments), and how far the evidence by annealed
importance sampling is from its closed form; on the four points and the ring of eight modes the evidence of both
encoders. Draws the posteriors of the four points. Runs that are there already are not trained again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
import torch
from known_answers import encoded, gaussian_divergence, interval, trained
from torch import Tensor

from advgen.build import open_held_out
from advgen.config import Recipe, load_recipe
from advgen.likelihood.annealing import Annealing
from advgen.likelihood.models import LinearGaussian
from advgen.ratio import fit_ratio
from advgen.scoring import Scorer
from advgen.seeds import Noise

RECIPES = Path(__file__).parents[1] / "pipelines" / "recipes"
HOW = Annealing(steps=500, chains=16, leapfrog=10)
COUNT = 200  # held-out points that are scored


def draws(recipe: Recipe, x: Tensor, purpose: str) -> Tensor:
    """One z of q(z | x) for each of x: float64 [n, latents]."""
    return encoded(recipe, x, Noise(recipe.seed, (purpose,), torch.arange(len(x)))).double()


def held_out(recipe: Recipe, count: int) -> Tensor:
    """Points that were not trained on, [count, d]."""
    stream = open_held_out(recipe)
    assert stream is not None
    return torch.from_numpy(stream.read(np.arange(count)).images).flatten(1)


def whitened(x: Tensor, z: Tensor) -> Tensor:
    """z less the exact posterior's mean, in units of its deviation: [n, 2], from N(0, I) if z is of the posterior."""
    mean, covariance = LinearGaussian().posterior(x)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (z - mean).T, upper=False).T


def joint_divergence(recipe: Recipe) -> float:
    """E_x KL(q(z | x) || p(z | x)) as the divergence of the joints, by fit_ratio on 20,000 held-out x.

    Of (x, z of q) from (x, z of the exact posterior), z being whitened: the divergence is the same.
    """
    mine, others = held_out(recipe, 40_000).double().chunk(2)
    z = whitened(mine, draws(recipe, mine.float(), "joint"))
    exact = Noise(recipe.seed, ("exact posterior",), torch.arange(len(others)), torch.float64).normal("z", 2)
    return fit_ratio(torch.cat((mine, z), dim=1), torch.cat((others, exact), dim=1), seed=recipe.seed).kl.value


def divergence_of_moments(recipe: Recipe) -> float:
    """Mean over 64 held-out x of KL between the Gaussian of q's moments (2,000 draws) and the exact posterior."""
    x = held_out(recipe, 64)
    means, covariance = LinearGaussian().posterior(x.double())
    z = draws(recipe, x.repeat_interleave(2000, dim=0), "moments").unflatten(0, (64, 2000))
    return float(np.mean([gaussian_divergence(z[row], means[row], covariance) for row in range(64)]))


def overlap(recipe: Recipe) -> tuple[float, Tensor]:
    """The share of four points' posterior samples in a cell where another point has more; the samples, [4, n, 2]."""
    z = draws(recipe, (2 * torch.eye(4) - 1).repeat_interleave(5000, dim=0), "overlap").unflatten(0, (4, 5000))
    edges = [np.linspace(-4, 4, 41)] * 2
    counts = np.stack([np.histogramdd(z[point].numpy(), edges)[0] for point in range(4)])
    return float(1 - counts.max(axis=0).sum() / counts.sum()), z


def draw(samples: dict[str, Tensor], path: Path) -> None:
    """Posteriors of the four points, a panel an encoder."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(samples), figsize=(4.2 * len(samples), 4.2), layout="constrained")
    for panel, (title, z) in zip(panels, samples.items(), strict=True):
        for row in range(4):
            panel.scatter(*z[row, :2000].T.numpy(), s=2, linewidths=0)
        panel.set(title=title, xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(seeds: int, out: Path, picture: Path | None, sets: list[str]) -> None:
    """Train, measure, print."""
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    pictures: dict[str, Tensor] = {}
    for name in sets:
        for encoder in ("black_box",) if name == "linear" else ("black_box", "gaussian"):
            figures: dict[str, list[float]] = {}
            for seed in range(seeds):
                label = f"{name}-{encoder}-{seed}"
                flags = ["--name", label, "--seed", str(seed), "--game.encoder", encoder, "--runs", str(out)]
                recipe = load_recipe(RECIPES / f"points-avb-{name}.yaml", [*flags, "--tracking.wandb", "disabled"])
                scorer = Scorer(recipe, trained(recipe))
                scored = scorer.score(COUNT, 0, HOW, 1000)
                found = {"evidence": float(scored.annealed.mean()), "own_bound": float(scored.bound.mean())}
                found["gap"] = float(scorer.gap(COUNT // 2, 0, HOW).mean())
                if name == "linear":
                    exact = LinearGaussian().log_evidence(held_out(recipe, COUNT).double())
                    found["evidence_minus_exact"] = float((scored.annealed - exact).mean())
                    found["divergence_of_moments"] = divergence_of_moments(recipe)
                    found["divergence_from_posterior"] = joint_divergence(recipe)
                if name == "four":
                    found["overlap"], z = overlap(recipe)
                    if seed == 0:
                        pictures["AVB" if encoder == "black_box" else "VAE"] = z
                for key, value in found.items():
                    figures.setdefault(key, []).append(value)
                rows.append({"set": name, "encoder": encoder, "seed": seed, **found})
                print(json.dumps(rows[-1]), flush=True)
            print(name, encoder, {key: interval(values, 3) for key, values in figures.items()}, flush=True)
    (out / "known-answers.json").write_text(json.dumps(rows, indent=1))
    if picture is not None:
        draw(pictures, picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 21), metavar="N")
    parser.add_argument("--out", type=Path, default=Path("runs/known-avb"))
    parser.add_argument("--sets", nargs="+", default=["linear", "four", "ring"], choices=("linear", "four", "ring"))
    parser.add_argument("--picture", type=Path, help="PNG file of the four points' posteriors")
    given = parser.parse_args()
    main(given.seeds, given.out, given.picture, given.sets)
