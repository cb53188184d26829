"""How probable a trained model finds real data: estimates of the evidence log p(x), each with its protocol."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgen.build import build_game, open_held_out, restored
from advgen.capabilities import ScoresLikelihood
from advgen.config import Recipe
from advgen.errors import UserError
from advgen.likelihood.annealing import Annealing, Evidence, annealed_evidence
from advgen.likelihood.importance import importance_bound
from advgen.runtime.checkpoint import latest_checkpoint, read_checkpoint
from advgen.runtime.run_folder import RunFolder
from advgen.seeds import Noise
from advgen.turns import batch_of

Told = Callable[[int, int], None]

_ROWS = 4096  # chains that go through the decoder at once


@dataclass(frozen=True)
class Scored:
    """Estimates for some samples, float64 [n] each, in nats a sample.

    Attributes:
        annealed: by annealed importance sampling, a lower bound in expectation.
        importance: the importance-weighted bound with the encoder's moments as proposal.
        bound: the game's own evidence bound; an adversary's may lie above the evidence.
        gap: upper minus lower bound of annealing on samples of the model itself, whose posterior has exact samples
            (Grosse et al. 2015): how far ``annealed`` may be below, if the model fits the data.
        effective: effective number of chains.
        accepted: share of accepted proposals.
    """

    annealed: Tensor
    importance: Tensor
    bound: Tensor
    gap: Tensor
    effective: Tensor
    accepted: float

    def record(self) -> dict[str, Any]:
        """Means, each with its standard error over samples where it has one."""

        def error(values: Tensor) -> float:
            return float(values.std()) / len(values) ** 0.5

        named = {"annealed": self.annealed, "importance": self.importance, "bound": self.bound, "gap": self.gap}
        figures = {name: float(values.mean()) for name, values in named.items()}
        errors = {f"{name}_standard_error": error(values) for name, values in named.items()}
        chains = {"effective_chains": float(self.effective.mean()), "accepted": self.accepted}
        # Two runs on the same samples are compared sample by sample: the difference has a much smaller error.
        return {**figures, **errors, **chains, "annealed_of_each": self.annealed.tolist()}


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
        self._device = torch.device("cuda" if torch.cuda.is_available() and recipe.training.device == "auto" else "cpu")
        torch.set_num_threads(recipe.evaluation.threads or len(os.sched_getaffinity(0)))
        for network in self._networks.values():
            network.to(self._device).eval().requires_grad_(False)
        self.about = {"nimg": checkpoint.clock.nimg, "images": f"held-out {stream.digest}", "weights": "average"}

    def score(self, count: int, seed: int, how: Annealing, importance_samples: int, told: Told | None = None) -> Scored:
        """The first ``count`` held-out samples.

        Args:
            count: how many, at least 2; half as many again are simulated for the gap.
            seed: of chains, of proposals, and of black and white where it is drawn.
            how: targets and chains.
            importance_samples: of the importance-weighted bound.
            told: is told how far it is.

        Raises:
            UserError: fewer were held out.
        """
        if count > len(self._stream):
            raise UserError(f"{self._stream}: holds {len(self._stream)} samples, and {count} are asked for (--count).")
        game, networks = self._game, self._networks
        noise = Noise(seed, ("likelihood",), torch.arange(count, device=self._device))
        samples = self._stream.read(np.arange(count), self._level)
        simulated = Noise(seed, ("simulated",), torch.arange(max(2, (count + 1) // 2), device=self._device))
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
            exact = game.prior_deviation * simulated.normal("latent", game.latent_size)
            drawn = game.observe(networks, exact, simulated)
        # Two passes over the data, three over those simulated.
        done, whole = 0, how.steps * (2 * self._parts(observed, how) + 3 * self._parts(drawn, how))

        def passed(targets: int) -> None:
            if told is not None:
                told(done + targets, whole)

        real = self._annealed(observed, noise, how, None, passed)
        done = how.steps * 2 * self._parts(observed, how)
        own = self._annealed(drawn, simulated, how, exact, passed)
        assert own.upper is not None
        gap = (own.upper - own.lower).cpu()
        return Scored(real.lower.cpu(), importance.cpu(), bound.cpu(), gap, real.effective.cpu(), real.accepted)

    @staticmethod
    def _parts(values: Tensor, how: Annealing) -> int:
        return -(-len(values) // max(1, _ROWS // how.chains))

    def _annealed(
        self, values: Tensor, noise: Noise, how: Annealing, exact: Tensor | None, passed: Callable[[int], None]
    ) -> Evidence:
        """Part by part, as memory allows: an observation's chains do not depend on the others."""
        found: list[Evidence] = []
        size, passes = max(1, _ROWS // how.chains), 2 + (exact is not None)
        for number, start in enumerate(range(0, len(values), size)):
            part = values[start : start + size]
            found.append(
                annealed_evidence(
                    lambda z, rows, part=part: self._game.log_likelihood(self._networks, part[rows], z),
                    len(part),
                    self._game.latent_size,
                    replace(noise, positions=noise.positions[start : start + size]),
                    how,
                    prior_deviation=self._game.prior_deviation,
                    exact=None if exact is None else exact[start : start + size],
                    told=lambda done, _, before=number: passed(before * passes * how.steps + done),
                )
            )
        uppers = [one.upper for one in found if one.upper is not None]
        return Evidence(
            torch.cat([one.lower for one in found]),
            torch.cat(uppers) if uppers else None,
            torch.cat([one.effective for one in found]),
            sum(one.accepted * len(one.lower) for one in found) / len(values),
        )
