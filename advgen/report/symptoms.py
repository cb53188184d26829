"""What goes wrong in adversarial training, told from what a run logged, each with what to try.

A symptom is a reason to look, not a proof. Thresholds are meant to be crossed by runs that are plainly ill; each text
says what was seen, so that a reader can disagree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean, median, pstdev
from typing import Literal

from advgen.report.data import Curve, Metric, Run
from advgen.report.figures import number
from advgen.report.measured import figure_of
from advgen.report.settings import settings_of

Kind = Literal["collapse", "wins outright", "loses outright", "vanishing gradients", "exploding gradients", "average"]

_TAIL = 0.1  # share of a curve, its newest, that is looked at
_LEAST = 50  # points below which a curve says nothing
_LOGISTIC = ("non_saturating", "saturating", "relativistic")
_SURE = 6.0  # difference of logits: odds of 400 to 1
_SHARES = ("recall", "coverage")  # of reals: 1 is the best
_DISTANCES = ("lpips_diversity", "style_diversity")


@dataclass(frozen=True)
class Symptom:
    """One thing that looks wrong.

    Attributes:
        kind: of trouble.
        text: what was seen, where.
        advice: what to try.
    """

    kind: Kind
    text: str
    advice: str


def symptoms_of(run: Run) -> list[Symptom]:
    """All that looks wrong in a run; empty for one that looks well, or that logged too little to tell."""
    return [*_collapse(run), *_outright(run), *_gradients(run), *_average(run)]


def _collapse(run: Run) -> Iterator[Symptom]:
    advice = (
        "Look at the newest samples. Go back to a checkpoint before it; then lower the learning rate, raise the "
        "penalty (r1_gamma), or let the opponent compare samples within a batch (minibatch standard deviation)."
    )
    newest: dict[str, Metric] = {}
    for metric in run.metrics:
        if metric.moment not in ("floor", "untrained") and math.isfinite(metric.value) and metric.weights != "raw":
            held = newest.get(metric.name)
            if held is None or metric.nimg >= held.nimg:
                newest[metric.name] = metric
    for name, metric in newest.items():
        floor = _floor(run, metric)
        base = name.removesuffix("_inception").rpartition("_")[2]
        said = ""
        if base in _SHARES or name in _SHARES:
            limit = 0.1 * floor if floor is not None else 0.05
            if metric.value < limit:
                said = f"is below {number(limit)}" + ("" if floor is None else ", a tenth of what real images score")
        elif name in _DISTANCES:
            limit = 0.5 * floor if floor is not None else 0.01
            if metric.value < limit:
                said = f"is below {number(limit)}" + ("" if floor is None else ", half of what real images score")
        elif name.startswith("ms_ssim"):
            limit = floor + 0.5 * (1 - floor) if floor is not None else 0.9
            if metric.value > limit:
                said = f"is above {number(limit)}: pairs of pictures are nearly alike"
        elif name == "modes":
            best = max(m.value for m in run.metrics if figure_of(m) == figure_of(metric) and math.isfinite(m.value))
            if metric.value < 0.5 * best:
                said = f"is less than half of the {number(best)} that were covered before"
        if said:
            yield Symptom("collapse", f"{name} of {number(metric.value)} at {_kimg(metric.nimg)} {said}.", advice)


def _floor(run: Run, metric: Metric) -> float | None:
    """What real images score at the same resolution."""
    same = (
        m for m in run.metrics if m.moment == "floor" and (m.name, m.resolution) == (metric.name, metric.resolution)
    )
    return next((m.value for m in same if math.isfinite(m.value)), None)


def _outright(run: Run) -> Iterator[Symptom]:
    wins = (
        "Raise the penalty (r1_gamma) or the augmentation, lower this player's learning rate, or look whether real and "
        "generated pictures are prepared alike."
    )
    loses = "Give this player more updates or a higher learning rate, a weaker penalty, or a larger network."
    settings = settings_of(run.config)
    loss = settings.get("game.loss.kind", settings.get("game.loss"))
    for player in _players(run, "real_score"):
        real, fake = _tail(run.curves.get(f"{player}/real_score")), _tail(run.curves.get(f"{player}/fake_score"))
        if not real or not fake:
            continue
        r, f = fmean(real), fmean(fake)
        apart = [one - other for one, other in zip(real, fake, strict=False)]
        scores = f"scores of {number(r)} for real and {number(f)} for generated ones in the newest tenth of the log"
        sure = {
            "hinge": r > 1 and f < -1,
            "lsgan": abs(r - 1) < 0.05 and abs(f) < 0.05,
            **dict.fromkeys(_LOGISTIC, r - f > _SURE),
        }
        if sure.get(str(loss)):
            yield Symptom("wins outright", f"{player}: {scores}: nothing is left to learn from it.", wins)
        elif fmean(apart) < -pstdev(apart):  # where both are good the means meet, and either may be ahead by chance
            yield Symptom("loses outright", f"{player}: {scores}: it prefers the generated ones.", loses)
    yield from _one_loss_gone(run, wins)


def _one_loss_gone(run: Run, advice: str) -> Iterator[Symptom]:
    """Of players that log no scores: one loss has come to nothing while another one has grown."""
    scored = set(_players(run, "real_score"))
    losses = {player: _ends(run.curves[f"{player}/loss"]) for player in _players(run, "loss")}
    for player, ends in losses.items():
        if player in scored or ends is None:
            continue
        before, after = ends
        grown = [other for other, its in losses.items() if other != player and its and its[1] > 2 * max(its[0], 1e-6)]
        if before > 0.3 and abs(after) < 0.02 and grown:
            text = f"{player}: its loss fell from {number(before)} to {number(after)} while that of {grown[0]} grew."
            yield Symptom("wins outright", text, advice)


def _gradients(run: Run) -> Iterator[Symptom]:
    for player in _players(run, "gradient_norm"):
        ends = _ends(run.curves[f"{player}/gradient_norm"], median)
        if ends is None:
            continue
        before, after = ends
        text = f"{player}: the median of its gradient's norm went from {number(before)} to {number(after)}."
        if after > 100 * before and after > 1:
            advice = "Lower the learning rate, set optimizer.clip_norm, or raise the penalty."
            yield Symptom("exploding gradients", text, advice)
        elif after < 1e-3 * before or after < 1e-8:
            advice = (
                "The player learns no more. Take a loss that does not saturate (non_saturating, relativistic), or keep "
                "its opponent from winning outright."
            )
            yield Symptom("vanishing gradients", text, advice)


def _average(run: Run) -> Iterator[Symptom]:
    """The newest figures that both weights have, measured alike, apart by more than 5 % and two standard errors."""
    pairs: dict[tuple[str, int, str], dict[str, Metric]] = {}
    for metric in run.metrics:
        if metric.moment not in ("floor", "untrained") and math.isfinite(metric.value) and metric.weights:
            how = json.dumps([metric.resolution, {**metric.protocol, "weights": None}], sort_keys=True)
            pair = pairs.setdefault((metric.name, metric.nimg, how), {})
            pair["raw" if metric.weights == "raw" else "average"] = metric
    newest: dict[str, dict[str, Metric]] = {}
    for (name, nimg, _), pair in pairs.items():
        if len(pair) == 2 and nimg >= next(iter(newest.get(name, {}).values()), pair["raw"]).nimg:
            newest[name] = pair
    for name, pair in newest.items():
        raw, average = pair["raw"], pair["average"]
        worse = figure_of(raw).sign() * (average.value - raw.value)
        errors = [e for e in (raw.standard_error, average.standard_error) if math.isfinite(e)]
        if figure_of(raw).better and worse > max(0.05 * abs(raw.value), 2 * math.hypot(*errors)):
            yield Symptom(
                "average",
                f"{name} at {_kimg(raw.nimg)}: {number(average.value)} by the weights' moving average, "
                f"{number(raw.value)} by the weights themselves.",
                "The average lags behind: shorten its half-life or ramp, or train longer at the end of the schedule.",
            )


def _players(run: Run, value: str) -> list[str]:
    return [name.removesuffix(f"/{value}") for name in run.curves if name.endswith(f"/{value}")]


def _tail(curve: Curve | None) -> list[float]:
    """The newest values; none of a curve that is too short."""
    points = curve.points() if curve else []
    return [p[1] for p in points[-max(1, round(_TAIL * len(points))) :]] if len(points) >= _LEAST else []


def _ends(curve: Curve, middle: Callable[[list[float]], float] = fmean) -> tuple[float, float] | None:
    """(of the first half, of the newest tenth); None of a curve that is too short."""
    tail, points = _tail(curve), curve.points()
    return (middle([point[1] for point in points[: len(points) // 2]]), middle(tail)) if tail else None


def _kimg(nimg: int) -> str:
    return f"{nimg / 1000:,.1f} kimg"
