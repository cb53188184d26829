"""The verdict in words."""

from __future__ import annotations

import math

from advgen.report.compare_data import Contest
from advgen.report.figures import number
from advgen.report.verdict import CONFIDENCE, Judgement, Sample

GROUPING = (
    "Runs that differ in nothing but the seed are one group; the newest figure of each run counts. Intervals hold "
    "together for all pairs of groups (Welch's, with Bonferroni's correction)."
)
"""What all verdicts rest on."""


def sentences(contest: Contest) -> list[str]:
    """What a person should know of one figure: which group is best, by how much, and what that is worth."""
    best, *others = contest.samples
    if not others:
        return [f"Only {best.group} has it: {_mean(best)}."]
    if contest.figure.better is None:
        each = "; ".join(f"{sample.group} {_mean(sample)}" for sample in contest.samples[:6])
        return [f"It is not known which values of it are good. {each}."]
    second, first = others[0], contest.judgements[0]
    ahead = abs(first.difference)
    share = f" ({100 * ahead / abs(second.mean):.0f} %)" if second.mean else ""
    if not ahead:
        said = [f"{best.group} and {second.group} are level at {number(best.mean)}."]
    elif first.beyond is False:
        said = [
            f"No group is better beyond the noise: {best.group} is ahead of {second.group} by {number(ahead)}{share}, "
            f"{_mean(best)} against {_mean(second)}."
        ]
    elif first.beyond:
        said = [
            f"{best.group} is better than {second.group} by {number(ahead)}{share}: "
            f"{_mean(best)} against {_mean(second)}."
        ]
    else:
        said = [
            f"{best.group} is ahead of {second.group} by {number(ahead)}{share}: {number(best.mean)} against "
            f"{number(second.mean)}."
        ]
    said.append(_noise(first))
    rest = [each for each in contest.judgements[1:] if each.beyond]
    if rest and not first.beyond:
        names = ", ".join(each.group for each in rest[:6]) + (", …" if len(rest) > 6 else "")
        said.append(f"Beyond the noise it is better than {names}.")
    if len({*best.kimg, *second.kimg}) > 1:
        said.append(f"They were measured at {kimg_range(best)} and {kimg_range(second)} kimg.")
    return said


def reading(contest: Contest, group: str) -> str:
    """A group beside the best, in two or three words."""
    if contest.figure.better is None or len(contest.samples) < 2:
        return "–"
    judgement = next((each for each in contest.judgements if each.group == group), None)
    if judgement is None:
        return "best"
    if not judgement.difference:
        return "level"
    if judgement.beyond is None:
        return "noise not known"
    if not judgement.beyond:
        return "within the noise"
    return "worse, one seed each" if judgement.noise == "measurement" else "worse"


def _noise(judgement: Judgement) -> str:
    if judgement.noise == "unknown":
        return "One seed each says nothing about noise: train more seeds before you believe it."
    low, high = sorted((abs(judgement.low), abs(judgement.high)))
    if judgement.beyond is False:
        low = -low
    interval = f"{number(low)} to {number(high)}"
    if judgement.noise == "seeds":
        return f"{CONFIDENCE:.0%} interval of the difference over seeds: {interval}."
    if judgement.noise == "spread":
        return (
            f"One of them is a single run; if its seeds spread as the other's, the {CONFIDENCE:.0%} interval of the "
            f"difference is {interval}."
        )
    return (
        f"One seed each: the {CONFIDENCE:.0%} interval {interval} is that of the measurement alone, and says nothing "
        "about other seeds."
    )


def both(value: float, within: float) -> str:
    """A figure with what it may be off by, if that is known."""
    return f"{number(value)} ± {number(within)}" if math.isfinite(within) else number(value)


def finite(value: float) -> float | None:
    """A figure for JSON and for sorting, which know no NaN."""
    return value if math.isfinite(value) else None


def kimg_range(sample: Sample) -> str:
    """Thousands of images at which a group was measured."""
    low, high = (f"{kimg:,.4g}" for kimg in sample.kimg)
    return low if low == high else f"{low} to {high}"


def _mean(sample: Sample) -> str:
    count = len(sample.values)
    return f"{both(sample.mean, sample.within)}" + (f" over {count} seeds" if count > 1 else "")
