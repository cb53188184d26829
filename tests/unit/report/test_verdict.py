"""Which group is better: against figures computed by hand and by scipy, and what is said of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy import stats

from advgen.report.compare_data import Comparison, compare, places, read_runs
from advgen.report.compare_words import reading, sentences
from advgen.report.measured import Figure, Value
from advgen.report.verdict import Sample, judge, ranked
from tests.unit.report.runs import make_small_run, metric

FID = Figure("fid", 32, "{}")


def sample(group: str, *values: float, error: float = math.nan) -> Sample:
    return Sample(group, tuple(Value(1000, value, error) for value in values))


def comparison_of(folder: Path) -> Comparison:
    return compare(*read_runs(places([str(folder)])))


def said(comparison: Comparison) -> list[str]:
    return [" ".join(sentences(contest)) for contest in comparison.contests]


def test_groups_of_seeds_are_compared_by_welch():
    a, b = sample("a", 10.0, 11.0, 12.5), sample("b", 14.0, 18.0, 15.0, 15.5)
    (found,) = judge([a, b])
    expected = stats.ttest_ind(b.numbers, a.numbers, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.noise == "seeds" and found.beyond
    assert a.within == pytest.approx(4.302653 * 1.258306 / math.sqrt(3), rel=1e-5)  # by hand


def test_more_groups_make_wider_intervals():
    a, b, c = sample("a", 10.0, 11.0), sample("b", 12.0, 13.0), sample("c", 20.0, 21.0)
    (alone,), (among, _) = judge([a, b]), judge([a, b, c])
    assert among.low < alone.low and among.high > alone.high
    expected = stats.ttest_ind(b.numbers, a.numbers, equal_var=False).confidence_interval(1 - 0.05 / 3)
    assert among.high == pytest.approx(expected.high)


def test_the_best_comes_first_by_the_metrics_direction():
    samples = [sample("a", 0.2), sample("b", 0.7)]
    assert [each.group for each in ranked(FID, samples)] == ["a", "b"]
    assert [each.group for each in ranked(Figure("recall", 32, "{}"), samples)] == ["b", "a"]
    assert [each.group for each in ranked(Figure("mine", 32, "{}"), samples[::-1])] == ["b", "a"]


def test_a_single_run_is_taken_to_spread_as_the_others():
    (found,) = judge([sample("a", 10.0, 12.0, 14.0), sample("b", 15.0)])
    half = stats.t.ppf(0.975, 2) * 2.0 * math.sqrt(1 + 1 / 3)
    assert (found.noise, found.low, found.high) == ("spread", pytest.approx(3 - half), pytest.approx(3 + half))
    assert found.beyond is False


def test_single_runs_know_the_noise_of_the_measurement_at_most():
    (found,) = judge([sample("a", 10.0, error=0.3), sample("b", 12.0, error=0.4)])
    assert (found.noise, found.low) == ("measurement", pytest.approx(2 - 1.959964 * 0.5))
    (unknown,) = judge([sample("a", 10.0), sample("b", 12.0, error=0.4)])
    assert unknown.noise == "unknown" and unknown.beyond is None and math.isnan(unknown.low)


def test_few_sets_of_fakes_are_a_rough_guess_of_the_noise():
    values = [Value(1000, mean, 0.5, freedom) for mean, freedom in ((10.0, 1), (12.0, 2))]
    (found,) = judge([Sample(name, (value,)) for name, value in zip("ab", values, strict=True)])
    freedom = 0.5**2 / (0.25**2 / 1 + 0.25**2 / 2)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(0.5)
    assert (found.noise, found.low) == ("measurement", pytest.approx(2 - half)) and found.beyond is False


def test_seeds_without_spread_are_no_error():
    (found,) = judge([sample("a", 25.0, 25.0), sample("b", 25.0, 25.0)])
    assert (found.difference, found.beyond) == (0.0, False)
    (apart,) = judge([sample("a", 24.0, 24.0), sample("b", 25.0, 25.0)])
    assert apart.beyond


def test_the_verdict_says_what_is_better_by_how_much_and_what_that_is_worth(tmp_path: Path):
    for rate, values in ((0.001, (10.0, 11.0, 12.0)), (0.004, (30.0, 31.0, 32.0))):
        for seed, value in enumerate(values):
            folder = tmp_path / f"r{rate}-{seed}"
            make_small_run(folder, seed=seed, settings={"learning_rate": rate}, metrics=[metric(value)])
    comparison = comparison_of(tmp_path)
    assert comparison.groups == ["learning_rate 0.001", "learning_rate 0.004"]
    assert comparison.differing == ["game.learning_rate", "seed"]
    assert said(comparison) == [
        "learning_rate 0.001 is better than learning_rate 0.004 by 20.00 (65 %): 11.00 ± 2.484 over 3 seeds against "
        "31.00 ± 2.484 over 3 seeds. 95% interval of the difference over seeds: 17.73 to 22.27."
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, "a 1 is ahead of a 2 by 1.000 (9 %): 10.00 against 11.00. One seed each says nothing about noise"),
        (1.0, "No group is better beyond the noise: a 1 is ahead of a 2 by 1.000"),
        (0.1, "a 1 is better than a 2 by 1.000 (9 %): 10.00 against 11.00. One seed each: the 95% interval"),
    ],
)
def test_one_seed_is_told_to_say_little(tmp_path: Path, error: float | None, words: str):
    for value in (10.0, 11.0):
        record = metric(value) | ({} if error is None else {"standard_error": error})
        make_small_run(tmp_path / f"r{value}", settings={"a": round(value) - 9}, metrics=[record])
    comparison = comparison_of(tmp_path)
    (text,) = said(comparison)
    assert text.startswith(words)
    expected = {None: "noise not known", 1.0: "within the noise", 0.1: "worse, one seed each"}
    assert reading(comparison.contests[0], "a 2") == expected[error]


def test_a_metric_without_a_direction_names_no_winner(tmp_path: Path):
    for value in (1.0, 2.0):
        make_small_run(tmp_path / f"r{value}", settings={"a": value}, metrics=[metric(value, name="mine")])
    (text,) = said(comparison_of(tmp_path))
    assert text.startswith("It is not known which values of it are good.")
    assert comparison_of(tmp_path).contests[0].judgements == []


def test_figures_of_other_lengths_say_so(tmp_path: Path):
    for nimg in (500, 1000):
        make_small_run(tmp_path / f"r{nimg}", settings={"a": nimg}, metrics=[metric(nimg / 100, nimg)])
    assert said(comparison_of(tmp_path))[0].endswith("They were measured at 0.5 and 1 kimg.")


def test_seeds_of_other_lengths_say_so(tmp_path: Path):
    for nimg in (500, 1000):
        for a in (1, 2):
            make_small_run(tmp_path / f"r{nimg}-{a}", seed=nimg, settings={"a": a}, metrics=[metric(nimg + a, nimg)])
    assert said(comparison_of(tmp_path))[0].endswith("They were measured at 0.5 to 1 and 0.5 to 1 kimg.")


@pytest.mark.parametrize(
    "other",
    [{"reference": "beef"}, {"samples": 10}, {"resize": "box"}, {"extractor": {"name": "x"}}, {"weights": "raw"}],
)
def test_what_was_measured_otherwise_is_not_compared(tmp_path: Path, other: dict):
    make_small_run(tmp_path / "a", settings={"a": 1}, metrics=[metric(10.0)])
    make_small_run(tmp_path / "b", settings={"a": 2}, metrics=[metric(11.0, protocol=other)])
    comparison = comparison_of(tmp_path)
    assert [contest.title for contest in comparison.contests] == ["fid [1]", "fid [2]"]
    assert [contest.judgements for contest in comparison.contests] == [[], []]
    (key,) = other
    assert all(key in contest.differs for contest in comparison.contests)
    assert said(comparison) == ["Only a 1 has it: 10.00.", "Only a 2 has it: 11.00."]


def test_other_fakes_are_a_repetition_and_coarser_pictures_are_left_out(tmp_path: Path):
    again = metric(12.0, protocol={"samples_seed": 1})
    records = [metric(99.0, 500, resolution=16), metric(10.0), again, metric(1.0, 0, moment="untrained")]
    make_small_run(tmp_path / "a", metrics=records)
    comparison = comparison_of(tmp_path)
    (contest,) = comparison.contests
    (value,) = contest.samples[0].values
    assert (value.value, value.standard_error, value.freedom, value.nimg) == (11.0, pytest.approx(1.0), 1, 1000)


def test_best_is_along_the_way_and_the_newest_counts(tmp_path: Path):
    make_small_run(tmp_path / "a", metrics=[metric(9.0, 500), metric(10.0, 1000)])
    comparison = comparison_of(tmp_path)
    (contest,), (run,) = comparison.contests, comparison.runs
    final, best = run.final(contest.figure), run.best(contest.figure)
    assert final is not None and best is not None
    assert (final.value, best.value, best.nimg) == (10.0, 9.0, 500)
