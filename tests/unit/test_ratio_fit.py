"""fit_ratio against densities whose log-ratio is known in closed form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from advgen.errors import UserError
from advgen.ratio import FittedRatio, fit_ratio

ROOT = Path(__file__).parents[2]


class Gaussians:
    """p = N(0, I) and q = N(mean, diag scale²): log r and both KL in closed form."""

    def __init__(self, mean: list[float], scale: list[float]) -> None:
        self.mean, self.scale = np.array(mean), np.array(scale)
        ratio = 1 / self.scale**2
        self.kl = float((ratio * (1 + self.mean**2) - 1 - np.log(ratio)).sum() / 2)
        self.reverse_kl = float((self.scale**2 + self.mean**2 - 1 + np.log(ratio)).sum() / 2)

    def draw(self, n: int, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng([seed, n])
        d = len(self.mean)
        return draw.standard_normal((n, d)), self.mean + self.scale * draw.standard_normal((m, d))

    def log_ratio(self, x: np.ndarray) -> np.ndarray:
        log_p = -(x**2).sum(1) / 2
        log_q = -(((x - self.mean) / self.scale) ** 2).sum(1) / 2 - np.log(self.scale).sum()
        return log_p - log_q


TWO = Gaussians([1.2, -0.6], [1.3, 0.8])
EIGHT = Gaussians([0.8, -0.5, 0.4, -0.3, 0.5, 0.0, 0.2, -0.4], [1.3, 0.8, 1.2, 0.9, 1.0, 1.25, 0.85, 1.1])


def errors(known: Gaussians, n: int, seed: int) -> tuple[float, float, float, float]:
    """Of log r at the samples and at new ones, absolute means; of both KL, relative."""
    p, q = known.draw(n, n, seed)
    fitted = fit_ratio(p, q, seed=seed)
    at_p, at_q = fitted.log_ratio_p.numpy(), fitted.log_ratio_q.numpy()
    own = (abs(at_p - known.log_ratio(p)).mean() + abs(at_q - known.log_ratio(q)).mean()) / 2
    new = np.concatenate(known.draw(4000, 4000, seed + 1000))
    other = abs(fitted.log_ratio(new).numpy() - known.log_ratio(new)).mean()
    off = fitted.kl.value / known.kl - 1, fitted.reverse_kl.value / known.reverse_kl - 1
    return float(own), float(other), abs(off[0]), abs(off[1])


@pytest.mark.parametrize("known", [TWO, EIGHT], ids=["2", "8"])
def test_two_gaussians_have_the_known_log_ratio(known: Gaussians) -> None:
    """20,000 samples a side, seed 0; over the samples, which are those of the equal mixture, and over new ones."""
    own, other, kl, reverse_kl = errors(known, 20_000, 0)
    assert own < 0.1 and other < 0.1
    assert kl < 0.05 and reverse_kl < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("known", [TWO, EIGHT], ids=["2", "8"])
def test_other_seeds_find_it_too(known: Gaussians, seed: int) -> None:
    own, other, kl, reverse_kl = errors(known, 20_000, seed)
    assert own < 0.1 and other < 0.1
    assert kl < 0.05 and reverse_kl < 0.05


@pytest.mark.slow
def test_the_intervals_of_kl_cover() -> None:
    """Eight dimensions, 2,000 samples a side, seeds 0 to 39: at least 33 of the 95 % intervals hold KL.

    Of those that take the log-ratio as given fewer do: the fit's error is the larger part.
    """
    held, fixed = 0, 0
    for seed in range(40):
        fitted = fit_ratio(*EIGHT.draw(2000, 2000, seed), seed=seed)
        low, high = fitted.kl.interval
        held += low <= EIGHT.kl <= high
        fixed += abs(fitted.kl.value - EIGHT.kl) <= 1.96 * float(fitted.log_ratio_p.std()) / 2000**0.5
    assert held >= 33 and fixed < held


def test_what_is_not_quadratic_is_left_to_the_network() -> None:
    """p has two modes, q is the Gaussian of its moments: no quadratic log r says more than 0 of them. n = 3,000."""
    draw = np.random.default_rng(0)
    p, q = draw.standard_normal((3000, 1)), draw.standard_normal((3000, 1)) * np.hypot(1.5, 0.7)
    p = 0.7 * p + 1.5 * draw.choice([-1, 1], (3000, 1))

    def truth(x: np.ndarray) -> np.ndarray:
        modes = sum(np.exp(-(((x - c) / 0.7) ** 2) / 2) / 1.4 for c in (1.5, -1.5))
        return (np.log(modes) + x**2 / 2 / 2.74 + np.log(2.74) / 2)[:, 0]

    fitted = fit_ratio(p, q)
    exact = np.concatenate([truth(p), truth(q)])
    found = torch.cat([fitted.log_ratio_p, fitted.log_ratio_q]).numpy()
    assert abs(found - exact).mean() < 0.15 < abs(exact).mean() / 2


def test_no_sample_is_judged_by_a_fit_that_saw_it() -> None:
    """Of equal densities nothing can be told; yet the folds' mean, which saw the samples, tells many."""
    draw = np.random.default_rng(0)
    p, q = draw.standard_normal((2, 200, 8))
    fitted = fit_ratio(p, q)
    assert abs(fitted.accuracy.value - 0.5) < 4 * fitted.accuracy.standard_error
    seen = (float((fitted.log_ratio(p) > 0).double().mean()) + float((fitted.log_ratio(q) < 0).double().mean())) / 2
    assert seen > 0.5 + 4 * fitted.accuracy.standard_error


def same(a: FittedRatio, b: FittedRatio) -> bool:
    return torch.equal(a.log_ratio_p, b.log_ratio_p) and torch.equal(a.log_ratio_q, b.log_ratio_q) and a.kl == b.kl


def test_a_fit_is_a_function_of_samples_and_seed() -> None:
    p, q = TWO.draw(300, 300, 0)
    states = torch.get_rng_state(), cast(Any, np.random.get_state())[1]
    first = fit_ratio(p, q, seed=3)
    assert torch.equal(states[0], torch.get_rng_state()) and np.array_equal(
        states[1], cast(Any, np.random.get_state())[1]
    )
    torch.manual_seed(5)
    assert same(first, fit_ratio(p, q, seed=3))
    with torch.inference_mode():  # as features of images come
        assert same(first, fit_ratio(torch.from_numpy(p) + 0, torch.from_numpy(q) + 0, seed=3))
    assert not same(first, fit_ratio(p, q, seed=4))


def test_unequal_numbers_do_not_move_the_log_ratio() -> None:
    """A classifier's logit would be off by log(300 / 6000) = -3."""
    fitted = fit_ratio(*TWO.draw(300, 6000, 0))
    assert abs(fitted.kl.value - TWO.kl) < 4 * fitted.kl.standard_error < 1.0
    assert abs(fitted.reverse_kl.value - TWO.reverse_kl) < 4 * fitted.reverse_kl.standard_error < 1.0


def test_units_and_columns_that_say_nothing_more_change_nothing() -> None:
    p, q = TWO.draw(400, 300, 0)
    plain = fit_ratio(p, q)

    def other(x: np.ndarray) -> np.ndarray:
        return np.column_stack([1e6 * x[:, 0] + 1e4, 1e-6 * x[:, 1], np.full(len(x), 7.0), x[:, 0] - x[:, 1]])

    found = fit_ratio(other(p), other(q))
    # The network sees another rotation of the same whitened samples, and is a small part of log r here.
    assert found.kl.value == pytest.approx(plain.kl.value, abs=0.1)
    assert float((found.log_ratio_p - plain.log_ratio_p).abs().mean()) < 0.2


def test_disjoint_sets_are_called_so() -> None:
    draw = np.random.default_rng(0)
    p, q = draw.standard_normal((2, 300, 3))
    far = fit_ratio(p, q + 30)
    assert far.disjoint and far.accuracy.value == 1.0
    assert far.kl.value > 5 and np.isfinite(far.kl.standard_error) and far.log_ratio(q).isfinite().all()
    assert not fit_ratio(p, q + 1).disjoint


@pytest.mark.parametrize(
    ("p", "q", "options", "message"),
    [
        (np.zeros(90), np.zeros((90, 1)), {}, r"samples_p: must be real numbers \[n, d\].*x\[:, None\]"),
        (np.zeros((90, 2)), np.zeros((90, 3)), {}, "samples_p has 2 columns and samples_q 3"),
        (np.zeros((90, 0)), np.zeros((90, 0)), {}, "samples_p: must be real numbers"),
        (np.zeros((90, 2), bool), np.zeros((90, 2)), {}, "samples_p: must be real numbers.*bool"),
        (np.zeros((90, 2)), np.full((90, 2), np.nan), {}, "samples_q: 90 of 90 rows hold NaN or infinity"),
        (np.zeros((90, 2)), np.full((90, 2), np.inf), {}, "samples_q: 90 of 90 rows hold NaN or infinity"),
        (np.array(["a", "b"]), np.zeros((90, 2)), {}, "samples_p: must be an array of numbers"),
        (np.zeros((49, 2)), np.zeros((90, 2)), {}, "5 folds need at least 50 samples of each side; given 49 and 90"),
        (np.zeros((90, 2)), np.zeros((90, 2)), {"folds": 1}, "folds must be at least 2; given 1"),
        (np.ones((90, 2)), np.ones((90, 2)), {}, "all samples are the same"),
    ],
)
def test_bad_input_is_refused_with_its_reason(p: Any, q: Any, options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit_ratio(p, q, **options)


def test_new_points_are_of_the_samples_space() -> None:
    fitted = fit_ratio(*TWO.draw(60, 50, 0))
    assert fitted.log_ratio(np.zeros((7, 2))).shape == (7,)
    with pytest.raises(UserError, match="x has 3 columns; the samples had 2"):
        fitted.log_ratio(np.zeros((7, 3)))
    with pytest.raises(UserError, match="1 of 2 rows hold NaN"):
        fitted.log_ratio(np.array([[0.0, np.nan], [0.0, 0.0]]))


def test_the_example_of_the_docs_runs() -> None:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/ratio.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    found = names["fitted"]
    assert isinstance(found, FittedRatio) and abs(found.kl.value - 0.5) < 4 * found.kl.standard_error
