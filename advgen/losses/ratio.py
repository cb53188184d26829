"""The density-ratio trick: losses whose minimiser is log r = log p/q, and what log r says of the two densities.

A classifier that tells samples of p from as many of q has the optimum S = p / (p + q), so r = S / (1 - S) and log r is
its logit (Sugiyama et al. 2012, "Density Ratio Estimation in Machine Learning"; Mohamed & Lakshminarayanan 2016). Other
proper losses have the same minimiser (Menon & Ong 2016, "Linking losses for density ratio and class-probability
estimation"); all are written here as functions of t = log r, so that a network's output means the same whatever the
loss. Each is the dual of an f-divergence: -loss is a lower bound of it, up to a scale and a constant, tight at the
minimiser (Nguyen et al. 2010, "Estimating divergence functionals and the likelihood ratio by convex risk
minimization"; Nowozin et al. 2016, "f-GAN").

Log-ratios are of any shape but empty, float16 to float64; what is computed has float32 at least. Losses are means over
each side, 0-d. Those with exp(t) overflow float32 for t > 88 (``lsif`` 44, ``exponential`` for |t| > 177): only
``logistic`` is safe where p and q hardly overlap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.losses.config import RatioLossName
from advgen.precision import at_least_float32


@dataclass(frozen=True)
class Estimate:
    """A mean over samples.

    Attributes:
        value: in nats for KL and Jensen-Shannon.
        standard_error: of ``value`` as the samples vary, the log-ratio held fixed: it does not know the log-ratio's
            own error, which more samples of the same do not lessen. :func:`advgen.ratio.fit_ratio` gives KL one
            that does.
    """

    value: float
    standard_error: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval, value ± 1.96 standard errors."""
        return self.value - 1.96 * self.standard_error, self.value + 1.96 * self.standard_error


@dataclass(frozen=True)
class RatioLoss:
    """A proper loss of the log-ratio t: E_p at_p(t) + E_q at_q(t), least where t = log p/q.

    Attributes:
        name: in recipes.
        at_p: the loss of each sample of p, by its t.
        at_q: of each sample of q.
        divergence: the f-divergence between p and q that it is dual to.
        scale, constant: ``constant - scale * loss`` is at most the divergence, and equal to it at t = log p/q.
    """

    name: RatioLossName
    at_p: Callable[[Tensor], Tensor]
    at_q: Callable[[Tensor], Tensor]
    divergence: str
    scale: float
    constant: float

    def __call__(self, log_ratio_p: Tensor, log_ratio_q: Tensor) -> Tensor:
        """E_p at_p(t) + E_q at_q(t), 0-d: both sides weigh the same, whatever their numbers.

        Args:
            log_ratio_p, log_ratio_q: t at samples of p and of q.
        """
        return self.at_p(_widened(log_ratio_p)).mean() + self.at_q(_widened(log_ratio_q)).mean()

    def bound(self, log_ratio_p: Tensor, log_ratio_q: Tensor) -> Estimate:
        """The variational lower bound of ``divergence`` (Nguyen et al. 2010, eq. 8) that any t gives.

        A bound in expectation, and only over samples that t was not fitted to.
        """
        return _difference(
            -self.scale * self.at_p(_exact(log_ratio_p)), self.scale * self.at_q(_exact(log_ratio_q)), self.constant
        )


RATIO_LOSSES: dict[str, RatioLoss] = {
    loss.name: loss
    for loss in (
        # Logistic regression: log 4 - 2 JS(p, q) at its least (Goodfellow et al. 2014, theorem 1).
        RatioLoss("logistic", lambda t: F.softplus(-t), F.softplus, "jensen_shannon", 0.5, math.log(2)),
        # The loss of boosting, of the score t/2 (Friedman et al. 2000; Menon & Ong 2016, table 1): the sum of both is
        # 2 ∫ √(pq), and the squared Hellinger distance is 1 - ∫ √(pq), in [0, 1].
        RatioLoss("exponential", lambda t: (-t / 2).exp(), lambda t: (t / 2).exp(), "squared_hellinger", 0.5, 1.0),
        # Least squares between r and p/q under q (Kanamori et al. 2009, "A least-squares approach to direct importance
        # estimation", LSIF): E_q r²/2 - E_p r, at its least -(Pearson's chi² + 1) / 2, chi² = E_q (p/q - 1)².
        RatioLoss("lsif", lambda t: -t.exp(), lambda t: (2 * t).exp() / 2, "pearson_chi2", 2.0, -1.0),
        # KLIEP (Sugiyama et al. 2008) with its constraint E_q r = 1 as a Lagrangian term: E_q r - E_p log r, at its
        # least 1 - KL(p || q); as a bound that of Nguyen et al. 2010, called NWJ.
        RatioLoss("kliep", lambda t: -t, torch.exp, "kl", 1.0, 1.0),
    )
}
"""By name."""


def prior_offset(n_p: int, n_q: int) -> float:
    """log(n_p / n_q): what a classifier's logit has in excess of log r where it learns from unequal numbers.

    Raises:
        ValueError: a number that is not positive.
    """
    if min(n_p, n_q) < 1:
        raise ValueError(f"the class prior needs samples of both sides; given {n_p} and {n_q}")
    return math.log(n_p / n_q)


def log_ratio_of_logit(logit: Tensor, n_p: int, n_q: int) -> Tensor:
    """log r from the logit of a classifier that learned from ``n_p`` samples of p and ``n_q`` of q, pooled."""
    return at_least_float32(logit) - prior_offset(n_p, n_q)


def pooled_cross_entropy(log_ratio_p: Tensor, log_ratio_q: Tensor, n_p: int, n_q: int) -> Tensor:
    """Cross-entropy over a pool of ``n_p`` samples of p and ``n_q`` of q, as a function of log r; 0-d.

    The classifier's logit is log r + log(n_p / n_q): so the network learns log r itself, and each sample weighs the
    same, which is the likelihood of the pool (Qin 1998). For equal numbers it is half the logistic loss.

    Args:
        log_ratio_p, log_ratio_q: log r at samples of either side; a batch may hold other numbers than the pool.
    """
    offset = prior_offset(n_p, n_q)
    at_p = F.softplus(-_widened(log_ratio_p) - offset).mean()
    at_q = F.softplus(_widened(log_ratio_q) + offset).mean()
    return (n_p * at_p + n_q * at_q) / (n_p + n_q)


def donsker_varadhan(log_ratio_p: Tensor, log_ratio_q: Tensor) -> Estimate:
    """E_p t - log E_q exp(t), a lower bound of KL(p || q) that no constant added to t changes.

    Donsker & Varadhan 1983; Belghazi et al. 2018, eq. 4. It is never below the bound of ``kliep`` at the same t. The
    logarithm of a mean over a batch is not the mean over its slices, so this is a figure and no loss. The standard
    error is that of the delta method.
    """
    t_p, t_q = _exact(log_ratio_p), _exact(log_ratio_q)
    log_mean = float(t_q.flatten().logsumexp(0)) - math.log(t_q.numel())
    return _difference(t_p, (t_q - log_mean).exp(), 1.0 - log_mean)


def kl(log_ratio_p: Tensor) -> Estimate:
    """KL(p || q) = E_p log r, by log r at samples of p."""
    t_p = _exact(log_ratio_p)
    return Estimate(float(t_p.mean()), math.sqrt(_variance_of_mean(t_p)))


def reverse_kl(log_ratio_q: Tensor) -> Estimate:
    """KL(q || p) = -E_q log r, by log r at samples of q."""
    return kl(-log_ratio_q)


def jensen_shannon(log_ratio_p: Tensor, log_ratio_q: Tensor) -> Estimate:
    """JS = E_p log(2 S) / 2 + E_q log(2 (1 - S)) / 2: the logistic loss's bound.

    JS lies in [0, log 2]; the bound is below 0 where log r is wrong enough.
    """
    return RATIO_LOSSES["logistic"].bound(log_ratio_p, log_ratio_q)


def accuracy(log_ratio_p: Tensor, log_ratio_q: Tensor) -> Estimate:
    """Share told rightly by the sign of log r, both sides weighing the same; 1/2 for equal densities.

    The classifier two-sample test's statistic (Lopez-Paz & Oquab 2017, eq. 2). A log-ratio of 0 is half right.
    """
    right_p, right_q = ((_exact(t).sign() + 1) / 2 for t in (log_ratio_p, log_ratio_q))
    return _difference(right_p / 2, right_q / 2, 0.5)


@dataclass(frozen=True)
class Calibration:
    """Reliability of S = r / (1 + r) as a probability of p, both sides weighing the same (Guo et al. 2017, section 2).

    Attributes:
        error: expected calibration error, the weighted mean of |observed - predicted|, in [0, 1].
        predicted: mean S in each bin that is not empty, ascending.
        observed: the share of p in it. A plot of ``observed`` over ``predicted`` is the diagonal where log r is right.
        weight: the share of all samples in it; they sum to 1.
    """

    error: float
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    weight: tuple[float, ...]


def calibration(log_ratio_p: Tensor, log_ratio_q: Tensor, bins: int = 10) -> Calibration:
    """Whether S means what it says, over samples that log r was not fitted to.

    Args:
        log_ratio_p, log_ratio_q: log r at samples of p and of q.
        bins: of equal width in S.
    """
    if bins < 1:
        raise ValueError(f"calibration needs at least one bin; given {bins}")
    sides = [_exact(t).flatten() for t in (log_ratio_p, log_ratio_q)]
    chance = torch.cat(sides).sigmoid()
    weights = torch.cat([torch.full_like(t, 0.5 / len(t)) for t in sides])
    is_p = torch.cat([torch.ones_like(sides[0]), torch.zeros_like(sides[1])])
    where = (chance * bins).long().clamp_max(bins - 1)
    total, predicted, observed = (
        chance.new_zeros(bins).index_add_(0, where, values) for values in (weights, weights * chance, weights * is_p)
    )
    filled = total > 0
    total, predicted, observed = total[filled], predicted[filled], observed[filled]
    return Calibration(
        float((observed - predicted).abs().sum()),
        tuple((predicted / total).tolist()),
        tuple((observed / total).tolist()),
        tuple(total.tolist()),
    )


def _widened(log_ratio: Tensor) -> Tensor:
    """float32 at least; a mask, whole numbers and nothing at all are refused."""
    if not log_ratio.numel() or not log_ratio.is_floating_point():
        given = f"{log_ratio.dtype} {list(log_ratio.shape)}"
        raise ValueError(f"log-ratios are floating-point numbers of at least one sample; given {given}")
    return at_least_float32(log_ratio)


def _exact(log_ratio: Tensor) -> Tensor:
    """float64, without gradient."""
    values = _widened(log_ratio).detach().double()
    if values.isnan().any():
        raise ValueError("a log-ratio is not a number")
    return values


def _difference(at_p: Tensor, at_q: Tensor, constant: float) -> Estimate:
    """constant + mean at_p - mean at_q, the samples of both sides being independent."""
    variance = _variance_of_mean(at_p) + _variance_of_mean(at_q)
    return Estimate(constant + float(at_p.mean()) - float(at_q.mean()), math.sqrt(variance))


def _variance_of_mean(values: Tensor) -> float:
    """Infinite for one sample, of which nothing is known."""
    return float(values.var()) / values.numel() if values.numel() > 1 else math.inf
