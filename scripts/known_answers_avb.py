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
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from advgen.build import build_game, open_held_out, restored  # noqa: E402
from advgen.config import Recipe, load_recipe  # noqa: E402
from advgen.game import Batch  # noqa: E402
from advgen.games.avb.game import Avb  # noqa: E402
from advgen.likelihood.annealing import Annealing  # noqa: E402
from advgen.likelihood.models import LinearGaussian  # noqa: E402
from advgen.ratio import fit_ratio  # noqa: E402
from advgen.runtime.checkpoint import latest_checkpoint, read_checkpoint  # noqa: E402
from advgen.runtime.run_folder import RunFolder  # noqa: E402
from advgen.scoring import Scorer  # noqa: E402
from advgen.seeds import Noise  # noqa: E402

HOW = Annealing(steps=500, chains=16, leapfrog=10)
COUNT = 200  # held-out points that are scored
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t by the number of seeds


def train(name: str, encoder: str, seed: int, runs: Path) -> tuple[Recipe, RunFolder]:
    """The run of a recipe, trained unless it is there."""
    label = f"{name}-{encoder}-{seed}"
    flags = ["--name", label, "--seed", str(seed), "--game.encoder", encoder, "--runs", str(runs)]
    path = ROOT / "pipelines/recipes" / f"points-avb-{name}.yaml"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines", "train", str(path), *flags]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return load_recipe(path, flags), RunFolder(runs / label)


def encoder_samples(recipe: Recipe, folder: RunFolder, images: Tensor, draws: int) -> Tensor:
    """z of q(z | x), [draws, n, latents]."""
    newest = latest_checkpoint(folder.checkpoints)
    assert newest is not None
    game = build_game(recipe)
    assert isinstance(game, Avb)
    networks, progress = restored(game, read_checkpoint(newest))
    found: list[Tensor] = []
    for number in range(draws):
        noise = Noise(recipe.seed, ("posterior", number), torch.arange(len(images)))
        with torch.no_grad():
            found.append(game.encode(networks, progress, Batch(images), noise))
    return torch.stack(found)


def held_out(recipe: Recipe, count: int) -> Tensor:
    """Points that were not trained on, [count, d, 1, 1]."""
    stream = open_held_out(recipe)
    assert stream is not None
    return torch.from_numpy(stream.read(np.arange(count)).images)


def whitened(x: Tensor, z: Tensor) -> Tensor:
    """z less the exact posterior's mean, in units of its deviation: [n, 2], from N(0, I) if z is of the posterior."""
    mean, covariance = LinearGaussian().posterior(x)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (z - mean).T, upper=False).T


def joint_divergence(recipe: Recipe, folder: RunFolder) -> float:
    """E_x KL(q(z | x) || p(z | x)) as the divergence of the joints, by fit_ratio on 20,000 held-out x.

    Of (x, z of q) from (x, z of the exact posterior), z being whitened: the divergence is the same.
    """
    x = held_out(recipe, 40_000)
    z = encoder_samples(recipe, folder, x[:20_000], 1)[0].double()
    flat = x.flatten(1).double()
    exact = Noise(recipe.seed, ("exact posterior",), torch.arange(20_000), torch.float64).normal("z", 2)
    mine = torch.cat((flat[:20_000], whitened(flat[:20_000], z)), dim=1)
    return fit_ratio(mine, torch.cat((flat[20_000:], exact), dim=1), seed=recipe.seed).kl.value


def gaussian_divergence(recipe: Recipe, folder: RunFolder) -> float:
    """Mean over 64 held-out x of KL between the Gaussian of q's moments (2,000 draws) and the exact posterior.

    A lower bound of the mean of KL(q || posterior): it leaves out how far q is from being Gaussian.
    """
    x = held_out(recipe, 64)
    z = encoder_samples(recipe, folder, x, 2000).double()
    mean, covariance = LinearGaussian().posterior(x.flatten(1).double())
    precision, found = torch.linalg.inv(covariance), []
    for row in range(len(x)):
        own, off = torch.cov(z[:, row].T), z[:, row].mean(dim=0) - mean[row]
        trace = (precision @ own).trace() + off @ precision @ off - 2
        found.append(float(trace + covariance.logdet() - own.logdet()) / 2)
    return float(np.mean(found))


def overlap(recipe: Recipe, folder: RunFolder) -> tuple[float, Tensor]:
    """The share of four points' posterior samples in a cell where another point has more of them; and the samples."""
    x = (2 * torch.eye(4) - 1)[:, :, None, None]
    z = encoder_samples(recipe, folder, x, 5000)
    edges = [np.linspace(-4, 4, 41)] * 2
    counts = np.stack([np.histogramdd(z[:, row].numpy(), edges)[0] for row in range(4)])
    return float(1 - counts.max(axis=0).sum() / counts.sum()), z


def draw(samples: dict[str, Tensor], path: Path) -> None:
    """Posteriors of the four points, a panel an encoder."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(samples), figsize=(4.2 * len(samples), 4.2), layout="constrained")
    for panel, (title, z) in zip(panels, samples.items(), strict=True):
        for row in range(4):
            panel.scatter(*z[:2000, row].T.numpy(), s=2, linewidths=0)
        panel.set(title=title, xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def spread(values: list[float]) -> str:
    """Mean and 95 % interval over seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    return f"{mean:.3f} +- {T_95[len(values)] * float(np.std(values, ddof=1)) / len(values) ** 0.5:.3f}"


def main(seeds: int, out: Path, picture: Path | None) -> None:
    """Train, measure, print."""
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    pictures: dict[str, Tensor] = {}
    for name, encoders in (("linear", ["black_box"]), *((n, ["black_box", "gaussian"]) for n in ("four", "ring"))):
        for encoder in encoders:
            figures: dict[str, list[float]] = {}
            for seed in range(seeds):
                recipe, folder = train(name, encoder, seed, out)
                scorer = Scorer(recipe, folder)
                scored = scorer.score(COUNT, 0, HOW, 1000)
                found = {"evidence": float(scored.annealed.mean()), "own_bound": float(scored.bound.mean())}
                found["gap"] = float(scored.gap.mean())
                if name == "linear":
                    exact = LinearGaussian().log_evidence(held_out(recipe, COUNT).flatten(1).double())
                    found["evidence_minus_exact"] = float((scored.annealed - exact).mean())
                    found["divergence_of_moments"] = gaussian_divergence(recipe, folder)
                    found["divergence_from_posterior"] = joint_divergence(recipe, folder)
                if name == "four":
                    found["overlap"], z = overlap(recipe, folder)
                    if seed == 0:
                        pictures["AVB" if encoder == "black_box" else "VAE"] = z
                for key, value in found.items():
                    figures.setdefault(key, []).append(value)
                rows.append({"set": name, "encoder": encoder, "seed": seed, **found})
                print(json.dumps(rows[-1]), flush=True)
            print(name, encoder, {key: spread(values) for key, values in figures.items()}, flush=True)
    (out / "known-answers.json").write_text(json.dumps(rows, indent=1))
    if picture is not None:
        draw(pictures, picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 6))
    parser.add_argument("--out", type=Path, default=Path("runs/known-avb"))
    parser.add_argument("--picture", type=Path, help="PNG file of the four points' posteriors")
    given = parser.parse_args()
    main(given.seeds, given.out, given.picture)
