"""What goes wrong: made-up logs that are plainly ill, and ones that are well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advgen.report.data import read_run
from advgen.report.page import render
from advgen.report.symptoms import symptoms_of
from tests.unit.report.runs import make_small_run, metric

STEPS = 200


def path(start: float, end: float, count: int = STEPS) -> list[float]:
    """From one value to another, the last fifth all at the end."""
    way = count * 4 // 5
    return [start + (end - start) * min(1.0, step / way) for step in range(count)]


def scores(real: float, fake: float) -> dict[str, list[float]]:
    return {"player/real_score": path(0.5, real), "player/fake_score": path(-0.5, fake)}


def kinds(folder: Path, **given: Any) -> list[str]:
    return [each.kind for each in symptoms_of(read_run(make_small_run(folder, **given)))]


@pytest.mark.parametrize(
    ("loss", "real", "fake", "expected"),
    [
        ("non_saturating", 5.0, -4.0, ["wins outright"]),
        ("non_saturating", 1.0, -1.0, []),
        ("relativistic", 105.0, 96.0, ["wins outright"]),
        ("hinge", 1.5, -1.5, ["wins outright"]),
        ("hinge", 0.9, -0.9, []),
        ("lsgan", 0.99, 0.01, ["wins outright"]),
        ("lsgan", 0.7, 0.3, []),
        ("wgan", 50.0, -50.0, []),  # its scores have no scale
        ("wgan", -0.2, 0.3, ["loses outright"]),
        ("non_saturating", -0.2, 0.3, ["loses outright"]),
    ],
)
def test_scores_tell_who_wins_outright(tmp_path: Path, loss: str, real: float, fake: float, expected: list[str]):
    assert kinds(tmp_path / "r", settings={"loss": loss}, curves=scores(real, fake)) == expected


def test_scores_that_meet_are_no_loss(tmp_path: Path):
    noisy = {"player/real_score": [0.1 * (step % 3) for step in range(STEPS)], "player/fake_score": [0.11] * STEPS}
    assert kinds(tmp_path / "r", curves=noisy) == []


def test_a_loss_in_a_mapping_is_found(tmp_path: Path):
    assert kinds(tmp_path / "r", settings={"loss": {"kind": "hinge"}}, curves=scores(2.0, -2.0)) == ["wins outright"]


def test_a_short_log_says_nothing(tmp_path: Path):
    short = {name: values[-20:] for name, values in scores(9.0, -9.0).items()}
    assert kinds(tmp_path / "r", curves=short) == []


def test_one_loss_may_vanish_while_another_grows(tmp_path: Path):
    gone = {"one/loss": path(1.3, 0.0), "other/loss": path(1.0, 9.0)}
    assert kinds(tmp_path / "a", curves=gone) == ["wins outright"]
    assert kinds(tmp_path / "b", curves={**gone, "other/loss": path(1.0, 0.5)}) == []


@pytest.mark.parametrize(
    ("end", "expected"),
    [(900.0, ["exploding gradients"]), (1e-9, ["vanishing gradients"]), (20.0, []), (0.1, [])],
)
def test_gradients_vanish_or_explode(tmp_path: Path, end: float, expected: list[str]):
    norm = [1.0] * 170 + [end] * 30
    norm[50] = 1e6  # a spike is no explosion
    assert kinds(tmp_path / "r", curves={"player/gradient_norm": norm}) == expected


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([metric(0.6, name="recall", moment="floor"), metric(0.01, name="recall")], ["collapse"]),
        ([metric(0.6, name="recall", moment="floor"), metric(0.2, name="recall")], []),
        ([metric(0.01, name="coverage_inception")], ["collapse"]),
        ([metric(0.01, name="pr50k3_recall")], ["collapse"]),
        ([metric(0.01, name="pr50k3_precision")], []),
        ([metric(0.2, name="ms_ssim", moment="floor"), metric(0.7, name="ms_ssim")], ["collapse"]),
        ([metric(0.2, name="ms_ssim", moment="floor"), metric(0.4, name="ms_ssim")], []),
        ([metric(0.5, name="lpips_diversity", moment="floor"), metric(0.2, name="lpips_diversity")], ["collapse"]),
        ([metric(20, 500, name="modes"), metric(5, name="modes")], ["collapse"]),
        ([metric(20, 500, name="modes"), metric(19, name="modes")], []),
    ],
)
def test_collapse_is_seen_by_metrics_of_diversity(tmp_path: Path, records: list[dict], expected: list[str]):
    assert kinds(tmp_path / "r", metrics=records) == expected


@pytest.mark.parametrize(
    ("name", "average", "raw", "error", "expected"),
    [
        ("fid", 12.0, 10.0, {}, ["average"]),
        ("fid", 10.2, 10.0, {}, []),
        ("fid", 8.0, 10.0, {}, []),
        ("fid", 12.0, 10.0, {"standard_error": 2.0}, []),
        ("recall", 0.5, 0.7, {}, ["average"]),
    ],
)
def test_an_average_worse_than_its_weights_is_seen(
    tmp_path: Path, name: str, average: float, raw: float, error: dict, expected: list[str]
):
    pair = [metric(average, name=name, **error), metric(raw, name=name, protocol={"weights": "raw"}, **error)]
    assert kinds(tmp_path / "r", metrics=pair) == expected


def test_figures_of_other_protocols_say_nothing_of_the_average(tmp_path: Path):
    few = metric(12.0, protocol={"samples": 1000})
    assert kinds(tmp_path / "r", metrics=[few, metric(10.0, protocol={"weights": "raw"})]) == []


def test_the_page_of_a_run_shows_them(tmp_path: Path):
    text = render(read_run(make_small_run(tmp_path / "r", curves=scores(5.0, -4.0))))
    assert "<strong>wins outright</strong>: player: scores of 5.000 for real" in text and "r1_gamma" in text
