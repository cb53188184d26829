"""The importance-weighted bound of the evidence (Burda et al. 2016, eq. 8)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from advgen.likelihood.models import log_normal
from advgen.seeds import Noise

LogDensity = Callable[[Tensor], Tensor]
"""Latents [n, k] to log-densities [n]."""


def importance_bound(
    log_likelihood: LogDensity,
    mean: Tensor,
    deviation: Tensor,
    noise: Noise,
    *,
    samples: int,
    prior_deviation: float = 1.0,
    defensive: float = 0.1,
) -> Tensor:
    """log (1/K) sum_k p(x, z_k) / q(z_k), [n] in float64: below log p(x) in expectation, and closer the larger K is.

    The proposal q is a mixture of N(mean, deviation^2) and, with a small weight, of the prior. So the weights are
    bounded where the posterior is wider than the proposal or has more modes (defensive mixture, Hesterberg 1995).

    Args:
        log_likelihood: log p(x | z) of the n observations, a row each.
        mean, deviation: [n, k], of an encoder, or moments of its samples.
        noise: a row an observation.
        samples: K.
        prior_deviation: of the model's prior N(0, deviation^2 I).
        defensive: the weight of the prior in the proposal, in (0, 1).

    Raises:
        ValueError: no sample, or a weight out of range.
    """
    if samples < 1 or not 0 < defensive < 1:
        raise ValueError(f"samples must be at least 1 and defensive in (0, 1); given {samples} and {defensive}")
    weights = torch.empty(samples, len(mean), dtype=torch.float64, device=mean.device)
    for k in range(samples):
        normal = noise.normal(f"proposal/{k}", mean.shape[1])
        from_prior = noise.uniform(f"component/{k}", 1) < defensive
        z = torch.where(from_prior, prior_deviation * normal, mean + deviation * normal)
        prior = log_normal(z, 0.0, prior_deviation)
        proposal = torch.logaddexp(
            math.log(1 - defensive) + log_normal(z, mean, deviation), math.log(defensive) + prior
        )
        weights[k] = log_likelihood(z).double() + prior - proposal
    return weights.logsumexp(dim=0) - math.log(samples)
