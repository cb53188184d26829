"""``fit_ratio``: log p/q of two sets of samples, and what it says of the two densities, ready for a user's arrays.

Both sets are whitened by their pooled moments. To each fold's training part a logistic regression on all squares and
products is fitted by Newton's method: two Gaussians have just such a log-ratio (Efron 1975, "The Efficiency of Logistic
Regression Compared to Normal Discriminant Analysis"). A small network then learns what is left of it, for as long as
samples that are held back show a gain, and its last hidden layer joins the regression. Every sample's log-ratio comes
from the fold that never saw it (cross-fitting; Chernozhukov et al. 2018, "Double/debiased machine learning"): so means
over the samples carry no optimism of the fit.

The standard errors of KL know the regression's own error, too, by the delta method; in more than a few dimensions it
is the larger part. They know no bias: what neither the quadratic terms nor the network can follow, such as tails of q
where p has no sample. Jensen-Shannon and accuracy are flat in the log-ratio where it is right, and need no such term.

Nothing is drawn from a global generator: the same samples and seed give the same fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advgen.errors import UserError
from advgen.losses.ratio import (
    Calibration,
    Estimate,
    accuracy,
    calibration,
    jensen_shannon,
    kl,
    prior_offset,
    reverse_kl,
)
from advgen.ratio.model import Model, Pair, Whitening, fisher
from advgen.seeds import key_of, permutation

DISJOINT = 0.99
"""Accuracy above which the two sets are called disjoint."""
LEAST = 10
"""Samples of each side that a fold needs."""

Samples = Tensor | NDArray[Any]


@dataclass(frozen=True)
class FittedRatio:
    """log r = log p/q, and what it says of p and q.

    Attributes:
        log_ratio_p: float64 [n_p], at the samples of p, each by a fit that never saw it.
        log_ratio_q: float64 [n_q], at those of q. What :mod:`advgen.losses.ratio` has more (other bounds, a finer
            calibration) can be taken of these two.
        kl: KL(p || q), nats; its standard error has the fit's part in it.
        reverse_kl: KL(q || p), likewise.
        jensen_shannon: nats, at most log 2.
        accuracy: of telling p from q, 1/2 where nothing does: the classifier two-sample test's statistic.
        calibration: whether the classifier's probabilities are what they say.
        disjoint: the accuracy is above :data:`DISJOINT`: the sets hardly overlap, log r is extrapolated, and ``kl`` and
            ``reverse_kl`` say only that the divergence is large. Their standard errors mean nothing then.
    """

    log_ratio_p: Tensor
    log_ratio_q: Tensor
    kl: Estimate
    reverse_kl: Estimate
    jensen_shannon: Estimate
    accuracy: Estimate
    calibration: Calibration
    disjoint: bool
    _model: Model = field(repr=False)

    def log_ratio(self, x: Samples) -> Tensor:
        """log r at new points, the mean of the folds' fits.

        Args:
            x: [n, d], in the samples' units; not samples that were fitted to, for which there are ``log_ratio_p`` and
                ``log_ratio_q``.

        Returns:
            float64 [n].

        Raises:
            UserError: another shape, or a number that is not finite.
        """
        centre = self._model.whitening.centre
        points = _checked(x, "x", centre.device)
        if points.shape[1] != len(centre):
            raise UserError(f"log_ratio: x has {points.shape[1]} columns; the samples had {len(centre)}.")
        with torch.no_grad():
            return self._model(self._model.whitening(points)).mean(0)


def fit_ratio(samples_p: Samples, samples_q: Samples, *, seed: int = 0, folds: int = 5) -> FittedRatio:
    """Estimate log p/q from samples of p and of q.

    Known answers (``scripts/ratio_known_answers.py``; docs/ratio.md has the figures): p = N(0, I), q = N(m, diag s²) in
    2 and 8 dimensions, 20,000 samples a side, seeds 0 to 4: mean absolute error of log r over samples of (p + q) / 2
    below 0.1, KL and reverse KL within 5 %.

    Args:
        samples_p: array or tensor [n_p, d] of numbers, independent draws from p.
        samples_q: [n_q, d]; n_q may be another number, by which log r is not moved. Where ``samples_p`` is on a GPU,
            it is computed there. Meant for d up to some tens: take features or principal components of more.
        seed: of the folds, and of the network's first weights and batches.
        folds: parts that are left out of a fit in turn; time is in proportion.

    Raises:
        UserError: a set that is not [n, d] of finite numbers or has too few rows, sets of different d, samples that are
            all the same, less than two folds.
    """
    if folds < 2:
        raise UserError(f"fit_ratio: folds must be at least 2; given {folds}.")
    with torch.inference_mode(False), torch.enable_grad():
        p = _checked(samples_p, "samples_p", None)
        q = _checked(samples_q, "samples_q", p.device)
        if p.shape[1] != q.shape[1]:
            raise UserError(
                f"fit_ratio: samples_p has {p.shape[1]} columns and samples_q {q.shape[1]}; both must be of one space."
            )
        if min(len(p), len(q)) < LEAST * folds:
            raise UserError(
                f"fit_ratio: {folds} folds need at least {LEAST * folds} samples of each side; given {len(p)} and "
                f"{len(q)}. Give more samples or fewer folds."
            )
        with torch.autocast(p.device.type, enabled=False):
            return _fit(p, q, seed, folds)


def _checked(samples: Samples, name: str, device: torch.device | None) -> Tensor:
    """float64 [n, d], a copy of the caller's."""
    try:
        x = samples if isinstance(samples, torch.Tensor) else torch.as_tensor(np.ascontiguousarray(samples))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name}: must be an array of numbers ({error}).") from None
    if x.ndim != 2 or x.is_complex() or x.dtype == torch.bool or not x.shape[1]:
        raise UserError(
            f"{name}: must be real numbers [n, d], a row a sample; given {x.dtype} {list(x.shape)}. "
            "One number a sample is x[:, None]."
        )
    x = x.detach().to(device or x.device, torch.float64, copy=True)
    if bad := int((~x.isfinite()).any(1).sum()):
        raise UserError(f"{name}: {bad} of {len(x)} rows hold NaN or infinity. Leave them out.")
    return x


def _fit(p: Tensor, q: Tensor, seed: int, folds: int) -> FittedRatio:
    whitening = Whitening(p, q)
    z = whitening(p), whitening(q)
    parts = _parts(len(p), len(q), seed, folds, p.device)
    rest = [(_others(parts, j, 0), _others(parts, j, 1)) for j in range(folds)]
    model = Model(whitening, z, rest, seed)
    log_ratios = p.new_empty(len(p)), p.new_empty(len(q))
    fits = (p.new_zeros(len(p)), p.new_zeros(len(q))), (p.new_zeros(len(p)), p.new_zeros(len(q)))
    with torch.no_grad():
        for j, held in enumerate(parts):
            inputs = [model.inputs(j, z[side]) for side in (0, 1)]
            log_ratio = [model.log_ratio(j, each) for each in inputs]
            shares = _influences(inputs, log_ratio, held, rest[j])
            for side in (0, 1):
                log_ratios[side][held[side]] = log_ratio[side][held[side]]
                for divergence in (0, 1):
                    fits[divergence][side][held[side]] = shares[divergence][side]
    told = accuracy(*log_ratios)
    return FittedRatio(
        *log_ratios,
        kl=_with_fit(kl(log_ratios[0]), log_ratios, 0, fits[0]),
        reverse_kl=_with_fit(reverse_kl(log_ratios[1]), log_ratios, 1, fits[1]),
        jensen_shannon=jensen_shannon(*log_ratios),
        accuracy=told,
        calibration=calibration(*log_ratios),
        disjoint=told.value > DISJOINT,
        _model=model,
    )


def _parts(n_p: int, n_q: int, seed: int, folds: int, device: torch.device) -> list[Pair]:
    """The samples that each fold leaves out."""
    cut = [
        np.array_split(permutation(key_of(seed, "ratio", "folds", side), n), folds)
        for side, n in (("p", n_p), ("q", n_q))
    ]
    return [(torch.from_numpy(a).to(device), torch.from_numpy(b).to(device)) for a, b in zip(*cut, strict=True)]


def _others(parts: list[Pair], fold: int, side: int) -> Tensor:
    return torch.cat([part[side] for j, part in enumerate(parts) if j != fold])


def _influences(inputs: list[Tensor], log_ratio: list[Tensor], held: Pair, rest: Pair) -> tuple[Pair, Pair]:
    """What the held samples would have moved KL and reverse KL by, had the fit seen them.

    With w the weights of the inputs f, one more sample moves w by H⁻¹ f (y - S), and KL = E_p w f by E_p[f] of that
    (the influence function of an M-estimator; van der Vaart 1998, "Asymptotic Statistics", section 5.3).
    """
    information = fisher(
        *(f[i] for f, i in zip(inputs, rest, strict=True)), *(t[i] for t, i in zip(log_ratio, rest, strict=True))
    )
    information = information * ((len(inputs[0]) + len(inputs[1])) / (len(rest[0]) + len(rest[1])))
    offset = prior_offset(len(inputs[0]), len(inputs[1]))
    held_p, held_q = (f[i] for f, i in zip(inputs, held, strict=True))
    missing = held_p * (-log_ratio[0][held[0]] - offset).sigmoid()[:, None]
    excess = held_q * (log_ratio[1][held[1]] + offset).sigmoid()[:, None]
    along_p, along_q = torch.linalg.solve(information, torch.stack([held_p.mean(0), -held_q.mean(0)], 1)).T
    return (missing @ along_p, -excess @ along_p), (missing @ along_q, -excess @ along_q)


def _with_fit(estimate: Estimate, log_ratios: Pair, side: int, fit: Pair) -> Estimate:
    """The standard error of a mean of ±log r over one side, the samples' part in the fit included."""
    moved = list(fit)
    sign = 1.0 if side == 0 else -1.0
    moved[side] = moved[side] + sign * log_ratios[side] / len(log_ratios[side])
    return Estimate(estimate.value, math.sqrt(sum(float(each.var()) * len(each) for each in moved)))
