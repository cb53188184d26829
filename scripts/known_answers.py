"""What the scripts known_answers_*.py have in common: training a recipe, its encoder's draws, figures over seeds."""

from __future__ import annotations

import contextlib
import io
import math
import statistics

import torch
from scipy import stats
from torch import Tensor

from advgen.build import build_game, restored
from advgen.capabilities import Encodes
from advgen.config import Recipe
from advgen.game import Batch
from advgen.runtime.checkpoint import latest_checkpoint, read_checkpoint
from advgen.runtime.run_folder import RunFolder
from advgen.seeds import Noise
from pipelines.train import train


def trained(recipe: Recipe) -> RunFolder:
    """The folder of a run that has been trained to its end; one that is there goes on from where it was."""
    with contextlib.redirect_stdout(io.StringIO()):
        if train(recipe):
            raise SystemExit(f"{recipe.folder}: stopped; the same command goes on from here")
    return RunFolder(recipe.folder)


def encoded(recipe: Recipe, x: Tensor, noise: Noise) -> Tensor:
    """A draw of q(z | x) for each of x by the averages of a run's newest checkpoint: [n, latents].

    x are points [n, observed], or images [n, c, h, w] in [-1, 1].
    """
    newest = latest_checkpoint(RunFolder(recipe.folder).checkpoints)
    game = build_game(recipe)
    assert newest is not None and isinstance(game, Encodes)
    networks, progress = restored(game, read_checkpoint(newest))
    with torch.no_grad():
        return game.encode(networks, progress, Batch(x if x.ndim == 4 else x[:, :, None, None]), noise)


def gaussian_divergence(z: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """KL of the Gaussian with the moments of samples [n, k] from N(mean, covariance), in nats.

    A lower bound of what the samples' own density has: it leaves out how far that is from being Gaussian.
    """
    own = torch.distributions.MultivariateNormal(z.double().mean(dim=0), z.double().T.cov())
    return float(torch.distributions.kl_divergence(own, torch.distributions.MultivariateNormal(mean, covariance)))


def interval(values: list[float], digits: int) -> str:
    """Mean ± half of the 95 % interval of the mean, by Student's t."""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {half:.{digits}f}"
