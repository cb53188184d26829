"""Which group of runs is better, by how much, and whether that is more than chance makes.

Groups of several seeds are compared by Welch's interval (Welch 1947: t distribution, degrees of freedom by
Satterthwaite's formula). Intervals hold together for all pairs of groups that could have been set against each other
(Bonferroni): the best group is found by looking at the same figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from advgen.report.measured import Figure, Value

CONFIDENCE = 0.95
Noise = Literal["seeds", "spread", "measurement", "unknown"]


@dataclass(frozen=True)
class Sample:
    """The last figures of a group's runs.

    Attributes:
        group: its name.
        values: a run each; at least one.
    """

    group: str
    values: tuple[Value, ...]

    @property
    def numbers(self) -> list[float]:
        """The figures alone."""
        return [value.value for value in self.values]

    @property
    def mean(self) -> float:
        """Of the figures."""
        return fmean(self.numbers)

    @property
    def within(self) -> float:
        """Half of the 95 % interval of the mean over endless seeds; NaN for a single run."""
        count = len(self.values)
        if count < 2:
            return math.nan
        return _t(CONFIDENCE, count - 1) * math.sqrt(variance(self.numbers) / count)

    @property
    def kimg(self) -> tuple[float, float]:
        """The least and the most images seen, in thousands."""
        seen = [value.nimg / 1000 for value in self.values]
        return min(seen), max(seen)


@dataclass(frozen=True)
class Judgement:
    """A group beside the best one.

    Attributes:
        group, best: names.
        difference: the group's mean less the best one's.
        low, high: the interval of the difference; NaN where nothing is known of the noise.
        noise: by what it was taken. seeds: Welch's interval, two groups of several runs. spread: one group is a single
            run, whose seeds are taken to spread as the other group's. measurement: two single runs, by the standard
            errors of their figures: other seeds are not in it. unknown: two single runs without them.
    """

    group: str
    best: str
    difference: float
    low: float
    high: float
    noise: Noise

    @property
    def beyond(self) -> bool | None:
        """Whether the difference is more than chance makes; None where that cannot be told."""
        if self.noise == "unknown":
            return None
        return self.low > 0 or self.high < 0


def ranked(figure: Figure, samples: Sequence[Sample]) -> list[Sample]:
    """The best first; as given where the metric's direction is not known."""
    return sorted(samples, key=lambda sample: figure.sign() * sample.mean) if figure.better else list(samples)


def judge(samples: Sequence[Sample]) -> list[Judgement]:
    """Each sample but the first against the first."""
    pairs = len(samples) * (len(samples) - 1) // 2
    return [_against(samples[0], other, 1 - (1 - CONFIDENCE) / pairs) for other in samples[1:]]


def _against(best: Sample, other: Sample, confidence: float) -> Judgement:
    difference = other.mean - best.mean
    noise, error, freedom = _noise(best, other)
    half = _t(confidence, freedom) * error if noise != "unknown" else math.nan
    return Judgement(other.group, best.group, difference, difference - half, difference + half, noise)


def _noise(a: Sample, b: Sample) -> tuple[Noise, float, float]:
    """Of a difference of means: (how it is known, its standard error, degrees of freedom)."""
    if len(a.values) > 1 and len(b.values) > 1:
        return "seeds", *_welch([(variance(each.numbers) / len(each.values), len(each.values) - 1) for each in (a, b)])
    if len(a.values) > 1 or len(b.values) > 1:
        many = a if len(a.values) > 1 else b
        count = len(many.values)
        return "spread", math.sqrt(variance(many.numbers) * (1 + 1 / count)), count - 1
    single = [each.values[0] for each in (a, b)]
    if all(math.isfinite(value.standard_error) for value in single):
        return "measurement", *_welch([(value.standard_error**2, value.freedom) for value in single])
    return "unknown", math.nan, math.nan


def _welch(shares: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a difference of two means, by their (squared error, freedom)."""
    total = sum(share for share, _ in shares)
    below = sum(share**2 / freedom for share, freedom in shares)
    return math.sqrt(total), total**2 / below if below else min(freedom for _, freedom in shares)


def _t(confidence: float, freedom: float) -> float:
    from scipy.stats import norm, t

    quantile = (1 + confidence) / 2
    return float(norm.ppf(quantile) if math.isinf(freedom) else t.ppf(quantile, freedom))
