"""Annealed importance sampling of the evidence by Hamiltonian Monte Carlo: bounds from below and from above.

Neal 2001 ("Annealed importance sampling"); for decoders Wu et al. 2017 ("On the quantitative analysis of decoder-based
generative models"), whose intermediate targets p(z) p(x | z)^b are used; Grosse et al. 2015 ("Sandwiching the marginal
likelihood using bidirectional Monte Carlo") for the bound from above. Step lengths are found in pilot chains and then
kept, so that the transitions leave their targets as they are and the weights are unbiased.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from advgen.likelihood.models import log_normal
from advgen.seeds import Noise


class Likelihoods(Protocol):
    """log p(x | z) of n observations."""

    def __call__(self, z: Tensor, rows: Tensor) -> Tensor:
        """Of latents [m, k], each with the observation whose number stands in ``rows``, int64 [m]: [m]."""
        ...


@dataclass(frozen=True)
class Annealing:
    """How chains are annealed.

    Attributes:
        steps: intermediate targets.
        chains: for each observation.
        leapfrog: steps of the integrator in one transition.
        pilots: chains for each observation by which step lengths are found.
        acceptance: share of proposals that step lengths aim at.
    """

    steps: int = 1000
    chains: int = 16
    leapfrog: int = 10
    pilots: int = 4
    acceptance: float = 0.65

    def __post_init__(self) -> None:
        if min(self.steps, self.chains, self.leapfrog, self.pilots) < 1 or not 0 < self.acceptance < 1:
            raise ValueError("steps, chains, leapfrog and pilots must be at least 1, and acceptance in (0, 1)")


@dataclass(frozen=True)
class Evidence:
    """Estimates of log p(x), float64 [n] each, in nats.

    Attributes:
        lower: log-mean of the weights of chains from prior to posterior: below log p(x) in expectation.
        upper: the same from exact posterior samples to the prior: above it in expectation; None where there are none.
        effective: effective number of chains, (sum w)^2 / sum w^2, of those from prior to posterior.
        accepted: share of proposals that were accepted.
    """

    lower: Tensor
    upper: Tensor | None
    effective: Tensor
    accepted: float


Told = Callable[[int, int], None]
"""(targets passed, of how many)"""

_ROWS = 4096  # chains that go through a decoder at once


def annealed_evidence(
    likelihoods: Likelihoods,
    latents: int,
    noise: Noise,
    how: Annealing,
    *,
    prior_deviation: float = 1.0,
    exact: Tensor | None = None,
    told: Told | None = None,
) -> Evidence:
    """Estimate log p(x) of n observations, so many at once as 4,096 chains are for.

    Args:
        likelihoods: log p(x | z).
        latents: k.
        noise: a row an observation; each chain has its own positions, so that the result of an observation does not
            depend on the others.
        how: targets and chains.
        prior_deviation: of the prior N(0, deviation^2 I).
        exact: [n, k]: z of p(z | x), the ones that the observations were simulated from; for the bound from above.
        told: is called as the work goes on.
    """
    count = len(noise.positions)
    betas, size = _betas(how.steps), max(1, _ROWS // how.chains)
    starts = range(0, count, size)
    passes = len(starts) * (2 + (exact is not None))
    finished = itertools.count()  # passes over all targets

    def telling() -> Callable[[int], None]:
        before = next(finished) * how.steps
        return lambda done: told(before + done, passes * how.steps) if told else None

    lowers: list[Tensor] = []
    uppers: list[Tensor] = []
    effective: list[Tensor] = []
    accepted = 0.0
    for start in starts:
        own = replace(noise, positions=noise.positions[start : start + size])
        made = _Chains(_from(start, likelihoods), latents, own, prior_deviation)
        lengths = made.pilot(betas, how, telling())
        weights, share = made.run("forward", betas, how, lengths, telling())
        lowers.append(_log_mean(weights))
        effective.append((2 * weights.logsumexp(dim=1) - (2 * weights).logsumexp(dim=1)).exp())
        accepted += share * len(weights) / count
        if exact is not None:
            reverse, _ = made.run("reverse", betas, how, lengths, telling(), exact[start : start + size])
            uppers.append(-_log_mean(reverse))
    return Evidence(torch.cat(lowers), torch.cat(uppers) if uppers else None, torch.cat(effective), accepted)


def _from(start: int, likelihoods: Likelihoods) -> Likelihoods:
    """Those of the observations from ``start`` on."""
    return lambda z, rows: likelihoods(z, rows + start)


def _betas(steps: int) -> list[float]:
    """From 0 to 1, close together at both ends (a sigmoid over [-4, 4], as is usual since Wu et al. 2017)."""
    raw = torch.sigmoid(torch.linspace(-4, 4, steps + 1, dtype=torch.float64))
    return ((raw - raw[0]) / (raw[-1] - raw[0])).tolist()


def _log_mean(weights: Tensor) -> Tensor:
    return weights.logsumexp(dim=1) - math.log(weights.shape[1])


@dataclass(frozen=True)
class _Point:
    """Where the chains are, and what the model says there."""

    z: Tensor
    likelihood: Tensor
    gradient: Tensor

    def energy(self, beta: float, deviation: float) -> Tensor:
        return -log_normal(self.z, 0.0, deviation) - beta * self.likelihood

    def force(self, beta: float, deviation: float) -> Tensor:
        return beta * self.gradient - self.z / deviation**2

    def where(self, taken: Tensor, other: _Point) -> _Point:
        """This one in the rows ``taken``, the other one elsewhere."""
        row = taken[:, None]
        return _Point(
            torch.where(row, self.z, other.z),
            torch.where(taken, self.likelihood, other.likelihood),
            torch.where(row, self.gradient, other.gradient),
        )


class _Chains:
    """Chains of all observations at once; chain c of observation i is row i * chains + c."""

    def __init__(self, likelihoods: Likelihoods, latents: int, noise: Noise, deviation: float) -> None:
        self._likelihoods, self._count, self._latents = likelihoods, len(noise.positions), latents
        self._noise, self._deviation = noise, deviation
        self._device = noise.positions.device

    def pilot(self, betas: list[float], how: Annealing, told: Callable[[int], None]) -> list[Tensor]:
        """A step length for each target and observation, [n] each."""
        noise, rows = self._laid_out("pilot", how.pilots)
        point = self._at(self._deviation * noise.normal("start", self._latents), rows)
        lengths: list[Tensor] = []
        length = torch.full((self._count,), 0.1 * self._deviation, dtype=point.z.dtype, device=self._device)
        for step, beta in enumerate(betas[1:], 1):
            point, chance = self._transition(point, rows, beta, length[rows], how.leapfrog, noise, step)
            share = chance.reshape(self._count, how.pilots).mean(dim=1)
            # Longer where too many are accepted, and shorter where too few are; an eighth at most in one step.
            length = length * (0.2 * (share - how.acceptance)).exp()
            lengths.append(length.clone())
            told(step)
        return lengths

    def run(
        self,
        name: str,
        betas: list[float],
        how: Annealing,
        lengths: list[Tensor],
        told: Callable[[int], None],
        exact: Tensor | None = None,
    ) -> tuple[Tensor, float]:
        """Log-weights float64 [n, chains] and the share of accepted proposals; from ``exact`` backwards."""
        noise, rows = self._laid_out(name, how.chains)
        start = self._deviation * noise.normal("start", self._latents) if exact is None else exact[rows]
        point, chances = self._at(start, rows), 0.0
        weights = torch.zeros(len(rows), dtype=torch.float64, device=self._device)
        numbers = range(1, len(betas)) if exact is None else range(len(betas) - 1, 0, -1)
        for done, step in enumerate(numbers, 1):
            change = betas[step] - betas[step - 1]
            if exact is None:
                weights += change * point.likelihood.double()
            point, chance = self._transition(
                point, rows, betas[step], lengths[step - 1][rows], how.leapfrog, noise, step
            )
            if exact is not None:
                weights -= change * point.likelihood.double()
            chances += float(chance.mean())
            told(done)
        return weights.reshape(self._count, how.chains), chances / (len(betas) - 1)

    def _laid_out(self, name: str, chains: int) -> tuple[Noise, Tensor]:
        positions = (self._noise.positions[:, None] * chains + torch.arange(chains, device=self._device)).flatten()
        rows = torch.arange(self._count, device=self._device).repeat_interleave(chains)
        return replace(self._noise, scope=(*self._noise.scope, name), positions=positions), rows

    def _at(self, z: Tensor, rows: Tensor) -> _Point:
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            likelihood = self._likelihoods(z, rows)
            (gradient,) = torch.autograd.grad(likelihood.sum(), z)
        return _Point(z.detach(), likelihood.detach(), gradient)

    def _transition(
        self, point: _Point, rows: Tensor, beta: float, length: Tensor, leapfrog: int, noise: Noise, step: int
    ) -> tuple[_Point, Tensor]:
        """One Hamiltonian transition (Neal 2011, figure 2); the chance at which each row's proposal was accepted."""
        momentum = noise.normal(f"momentum/{step}", self._latents)
        uniform = noise.uniform(f"accept/{step}", 1)[:, 0]
        before = point.energy(beta, self._deviation) + momentum.square().sum(dim=1) / 2
        row = length[:, None]
        there = point
        for _ in range(leapfrog):
            half = momentum + row / 2 * there.force(beta, self._deviation)
            there = self._at(there.z + row * half, rows)
            momentum = half + row / 2 * there.force(beta, self._deviation)
        after = there.energy(beta, self._deviation) + momentum.square().sum(dim=1) / 2
        # An integrator that ran away gives infinity or NaN: never accepted.
        chance = (before - after).clamp_max(0).exp().nan_to_num(0.0)
        return there.where(uniform < chance, point), chance
