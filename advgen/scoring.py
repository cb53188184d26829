"""How probable a trained model finds real data: estimates of the evidence log p(x), each with its protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgen.build import build_game, open_held_out, prepare_evaluation, restored
from advgen.capabilities import ScoresLikelihood
from advgen.config import Recipe
from advgen.errors import UserError
from advgen.likelihood.annealing import Annealing, Evidence, Told, annealed_evidence
from advgen.likelihood.importance import importance_bound
from advgen.runtime.checkpoint import latest_checkpoint, read_checkpoint
from advgen.runtime.run_folder import RunFolder
from advgen.seeds import Noise
from advgen.turns import batch_of


@dataclass(frozen=True)
class Scored:
    """Estimates for some samples, float64 [n] each, in nats a sample.

    Attributes:
        annealed: by annealed importance sampling, a lower bound in expectation.
        importance: the importance-weighted bound with the encoder's moments as proposal.
        bound: the game's own evidence bound; an adversary's may lie above the evidence.
        effective: effective number of chains.
        accepted: share of accepted proposals.
    """

    annealed: Tensor
    importance: Tensor
    bound: Tensor
    effective: Tensor
    accepted: float

    def record(self) -> dict[str, Any]:
        """Means with their standard errors, and the annealed estimate of each sample.

        Two runs on the same samples are compared sample by sample: the difference has a much smaller error.
        """
        figures = summary(annealed=self.annealed, importance=self.importance, bound=self.bound)
        chains = {"effective_chains": float(self.effective.mean()), "accepted": self.accepted}
        return {**figures, **chains, "annealed_of_each": self.annealed.tolist()}


def summary(**estimates: Tensor) -> dict[str, float]:
    """The mean of each, by its name, and the mean's standard error over samples."""
    means = {name: float(values.mean()) for name, values in estimates.items()}
    errors = {f"{name}_standard_error": float(values.std()) / len(values) ** 0.5 for name, values in estimates.items()}
    return means | errors


class Scorer:
    """Scores held-out data by a run's newest checkpoint (moving averages).

    Attributes:
        about: what the record says of the checkpoint and the data.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        """
        Args:
            recipe: the run's.
            folder: the run's.

        Raises:
            UserError: no checkpoint, a game without a likelihood, or no held-out data.
        """
        path = latest_checkpoint(folder.checkpoints)
        game = build_game(recipe)
        if not isinstance(game, ScoresLikelihood):
            raise UserError(f"{folder.path}: game.kind {recipe.game.kind} has no likelihood. Score a run of avb.")
        if path is None:
            raise UserError(f"{folder.path}: has no checkpoint to score. Train it first: `advgen train RECIPE`.")
        stream = open_held_out(recipe)
        if stream is None:
            raise UserError(f"{folder.path}: this run held no images out (data.held_out), and others are not scored.")
        checkpoint = read_checkpoint(path)
        self._networks, progress = restored(game, checkpoint)
        self._game, self._stream, self._level = game, stream, progress.phase.resolution
        self._device = prepare_evaluation(recipe)
        for network in self._networks.values():
            network.to(self._device).eval().requires_grad_(False)
        self.about = {"nimg": checkpoint.clock.nimg, "images": f"held-out {stream.digest}", "weights": "average"}

    def score(self, count: int, seed: int, how: Annealing, importance_samples: int, told: Told | None = None) -> Scored:
        """The first ``count`` held-out samples.

        Args:
            count: how many.
            seed: of chains, of proposals, and of black and white where it is drawn.
            how: targets and chains.
            importance_samples: of the importance-weighted bound.
            told: is told how far the annealing is.

        Raises:
            UserError: fewer were held out.
        """
        if count > len(self._stream):
            raise UserError(f"{self._stream}: holds {len(self._stream)} samples, and {count} are asked for (--count).")
        game, networks = self._game, self._networks
        noise = Noise(seed, ("likelihood",), torch.arange(count, device=self._device))
        samples = self._stream.read(np.arange(count), self._level)
        with torch.no_grad():
            observed = game.observed(batch_of(samples, self._device, labelled=False).images, noise)
            mean, deviation = game.proposal(networks, observed, noise)
            importance = importance_bound(
                lambda z: game.log_likelihood(networks, observed, z),
                mean,
                deviation,
                noise,
                samples=importance_samples,
                prior_deviation=game.prior_deviation,
            )
            bound = game.evidence_bound(networks, observed, noise).double()
        found = self._annealed(observed, noise, how, None, told)
        return Scored(found.lower.cpu(), importance.cpu(), bound.cpu(), found.effective.cpu(), found.accepted)

    def gap(self, count: int, seed: int, how: Annealing, told: Told | None = None) -> Tensor:
        """Upper less lower bound of annealing on samples of the model itself: float64 [count], in nats.

        Their posteriors have exact samples, the latents that they were drawn from (Grosse et al. 2015). It says how far
        the annealed estimate may be below the evidence, if the model fits the data.

        Args:
            count: how many samples.
            seed: of the samples and of chains.
            how: targets and chains.
            told: is told how far it is.
        """
        noise = Noise(seed, ("simulated",), torch.arange(count, device=self._device))
        with torch.no_grad():
            exact = self._game.prior_deviation * noise.normal("latent", self._game.latent_size)
            drawn = self._game.observe(self._networks, exact, noise)
        found = self._annealed(drawn, noise, how, exact, told)
        assert found.upper is not None
        return (found.upper - found.lower).cpu()

    def _annealed(
        self, observed: Tensor, noise: Noise, how: Annealing, exact: Tensor | None, told: Told | None
    ) -> Evidence:
        game, networks = self._game, self._networks
        return annealed_evidence(
            lambda z, rows: game.log_likelihood(networks, observed[rows], z),
            game.latent_size,
            noise,
            how,
            prior_deviation=game.prior_deviation,
            exact=exact,
            told=told,
        )
