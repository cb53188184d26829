"""The density ratio, held to the papers' formulae in numpy float64 and to Gaussians whose ratio is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch

from advgen.losses import ratio
from advgen.losses.config import RatioLossName
from advgen.losses.ratio import RATIO_LOSSES, Estimate

# Log-ratios as a classifier that errs now and then might give them; unequal numbers.
P = np.array([1.7, -0.4, 0.3, 0.8, 1.6, -2.5, 0.2, 2.1])
Q = np.array([-2.2, 0.6, -0.9, -1.4, -1.3, 0.1])
NAMES = sorted(RATIO_LOSSES)


def sigmoid(t: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-t))


# Of r = exp(t), not of t, where the papers write r.
LOSS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "logistic": lambda p, q: -np.log(sigmoid(p)).mean() - np.log(1 - sigmoid(q)).mean(),
    "exponential": lambda p, q: (1 / np.sqrt(np.exp(p))).mean() + np.sqrt(np.exp(q)).mean(),
    "lsif": lambda p, q: 0.5 * (np.exp(q) ** 2).mean() - np.exp(p).mean(),
    "kliep": lambda p, q: np.exp(q).mean() - np.log(np.exp(p)).mean(),
}
# f-GAN, eq. 4: E_p T - E_q f*(T) with T = f'(r), f as each divergence has it.
BOUND: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "logistic": lambda p, q: (0.5 * np.log(2 * sigmoid(p)), -0.5 * np.log(2 * (1 - sigmoid(q)))),
    "exponential": lambda p, q: (0.5 - 0.5 / np.exp(p / 2), 0.5 * np.exp(q / 2) - 0.5),
    "lsif": lambda p, q: (2 * (np.exp(p) - 1), np.exp(q) ** 2 - 1),
    "kliep": lambda p, q: (1 + p, np.exp(q)),
}


def of(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values)


def error_of(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.sqrt(p.var(ddof=1) / len(p) + q.var(ddof=1) / len(q)))


def same(found: Estimate, value: float, error: float) -> None:
    assert (found.value, found.standard_error) == pytest.approx((value, error), abs=1e-12)


def test_the_table_holds_every_name_under_its_own() -> None:
    assert tuple(RATIO_LOSSES) == get_args(RatioLossName)
    assert all(loss.name == name for name, loss in RATIO_LOSSES.items())


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_the_papers(name: str) -> None:
    value = RATIO_LOSSES[name](of(P), of(Q))
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(LOSS[name](P, Q), abs=1e-12)
    half = RATIO_LOSSES[name](of(P).bfloat16(), of(Q).bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(LOSS[name](*(of(t).bfloat16().double().numpy() for t in (P, Q))), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_bounds_are_the_papers(name: str) -> None:
    at_p, at_q = BOUND[name](P, Q)
    same(RATIO_LOSSES[name].bound(of(P), of(Q)), at_p.mean() - at_q.mean(), error_of(at_p, at_q))


def test_estimates_are_the_papers() -> None:
    same(ratio.kl(of(P)), P.mean(), P.std(ddof=1) / np.sqrt(len(P)))
    same(ratio.reverse_kl(of(Q)), -Q.mean(), Q.std(ddof=1) / np.sqrt(len(Q)))
    at_p, at_q = BOUND["logistic"](P, Q)
    same(ratio.jensen_shannon(of(P), of(Q)), at_p.mean() - at_q.mean(), error_of(at_p, at_q))
    r = np.exp(Q)
    same(ratio.donsker_varadhan(of(P), of(Q)), P.mean() - np.log(r.mean()), error_of(P, r / r.mean()))
    a, b = (P > 0).astype(float), (Q < 0).astype(float)
    same(ratio.accuracy(of(P), of(Q)), (a.mean() + b.mean()) / 2, error_of(a / 2, b / 2))
    assert ratio.accuracy(torch.zeros(3), torch.zeros(2)).value == 0.5
    low, high = Estimate(2.0, 0.5).interval
    assert (low, high) == pytest.approx((1.02, 2.98))


def test_the_prior_moves_the_logit_and_not_the_ratio() -> None:
    logits = ratio.log_ratio_of_logit(of(P), 30, 10)
    np.testing.assert_allclose(logits.numpy(), P - np.log(3), atol=1e-12)
    pool = -(30 * np.log(sigmoid(P + np.log(3))).mean() + 10 * np.log(1 - sigmoid(Q + np.log(3))).mean()) / 40
    assert ratio.pooled_cross_entropy(of(P), of(Q), 30, 10).item() == pytest.approx(pool, abs=1e-12)
    assert ratio.pooled_cross_entropy(of(P), of(Q), 5, 5).item() == pytest.approx(LOSS["logistic"](P, Q) / 2, abs=1e-12)


def test_calibration_is_the_papers() -> None:
    chance = np.concatenate([sigmoid(P), sigmoid(Q)])
    weight = np.concatenate([np.full(len(P), 0.5 / len(P)), np.full(len(Q), 0.5 / len(Q))])
    is_p = np.arange(len(chance)) < len(P)
    rows = []
    for low in np.arange(5) / 5:
        inside = (chance >= low) & (chance < low + 0.2)
        if inside.any():
            w = weight[inside]
            rows.append((w @ chance[inside] / w.sum(), w @ is_p[inside] / w.sum(), w.sum()))
    predicted, observed, weights = (np.array(each) for each in zip(*rows, strict=True))
    found = ratio.calibration(of(P), of(Q), bins=5)
    np.testing.assert_allclose(found.predicted, predicted, atol=1e-12)
    np.testing.assert_allclose(found.observed, observed, atol=1e-12)
    np.testing.assert_allclose(found.weight, weights, atol=1e-12)
    assert found.error == pytest.approx(float(weights @ abs(observed - predicted)), abs=1e-12)
    certain = ratio.calibration(torch.full((3,), 1e4), torch.full((4,), -1e4))
    assert (certain.error, certain.observed) == (0.0, (0.0, 1.0))


# p = N(0.5, 1), q = N(-0.5, 1): log r = x, KL both ways 1/2, chi² = e - 1, squared Hellinger 1 - exp(-1/8).
EXACT = {"kl": 0.5, "pearson_chi2": np.e - 1, "squared_hellinger": 1 - np.exp(-1 / 8)}


def gaussians(n: int, m: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(seed)
    return of(draw.standard_normal(n) + 0.5), of(draw.standard_normal(m) - 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_each_loss_finds_the_ratio_and_its_bound_the_divergence(name: str) -> None:
    """The whole line t = a x + b, by Newton's steps; 40,000 samples a side, seed 0."""
    x_p, x_q = gaussians(40_000, 40_000, 0)
    loss = RATIO_LOSSES[name]
    line = torch.zeros(2, dtype=torch.float64)

    def of_line(at: torch.Tensor) -> torch.Tensor:
        return loss(at[0] * x_p + at[1], at[0] * x_q + at[1])

    for _ in range(40):
        slope = torch.autograd.functional.jacobian(of_line, line)
        bend = torch.autograd.functional.hessian(of_line, line)
        line = line - (torch.linalg.solve(bend, slope) if (torch.linalg.eigvalsh(bend) > 1e-3).all() else 0.3 * slope)
    assert line.tolist() == pytest.approx([1.0, 0.0], abs=0.05)
    if name != "logistic":
        held_p, held_q = gaussians(40_000, 40_000, 1)
        found = loss.bound(line[0] * held_p + line[1], line[0] * held_q + line[1])
        assert abs(found.value - EXACT[loss.divergence]) < max(4 * found.standard_error, 0.01)
        wrong = loss.bound(0.6 * held_p + 0.2, 0.6 * held_q + 0.2)
        assert wrong.value < EXACT[loss.divergence]


def test_the_intervals_cover() -> None:
    """True log r, n = 500 and 300, seeds 0 to 199: the 95 % intervals hold the exact value in 90 to 99 %."""
    grid = np.linspace(-12, 12, 200_001)
    p, q = (np.exp(-((grid - c) ** 2) / 2) / np.sqrt(2 * np.pi) for c in (0.5, -0.5))
    middle = (p + q) / 2
    js = float(np.trapezoid(p * np.log(p / middle) + q * np.log(q / middle), grid) / 2)
    normal_half = 0.6914624612740131  # Phi(1/2)
    held = np.zeros(5)
    for seed in range(200):
        t_p, t_q = gaussians(500, 300, seed)
        found = (
            (ratio.kl(t_p), 0.5),
            (ratio.reverse_kl(t_q), 0.5),
            (ratio.jensen_shannon(t_p, t_q), js),
            (ratio.accuracy(t_p, t_q), normal_half),
            (ratio.donsker_varadhan(t_p, t_q), 0.5),
        )
        held += [each.interval[0] <= exact <= each.interval[1] for each, exact in found]
    assert ((held / 200 >= 0.90) & (held / 200 <= 0.99)).all(), held / 200


def test_the_shifted_bound_is_never_the_lower_one() -> None:
    for shift in (-1.0, 0.0, 2.0):
        found = ratio.donsker_varadhan(of(P + shift), of(Q + shift))
        assert found.value == pytest.approx(ratio.donsker_varadhan(of(P), of(Q)).value, abs=1e-12)
        assert found.value >= RATIO_LOSSES["kliep"].bound(of(P + shift), of(Q + shift)).value


def test_the_logistic_loss_stays_finite_where_supports_are_disjoint() -> None:
    for sign in (1, -1):
        t_p = torch.tensor([sign * 1e4, 0.0], requires_grad=True)
        t_q = torch.tensor([-sign * 1e4, 0.0], requires_grad=True)
        value = RATIO_LOSSES["logistic"](t_p, t_q)
        assert value.isfinite()
        assert all(slope.isfinite().all() for slope in torch.autograd.grad(value, (t_p, t_q)))


@pytest.mark.parametrize("bad", [torch.zeros(0), torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.int64)])
def test_nothing_masks_and_whole_numbers_are_refused(bad: torch.Tensor) -> None:
    fine = torch.zeros(3)
    calls: list[Callable[[], object]] = [
        *(lambda loss=loss: loss(fine, bad) for loss in RATIO_LOSSES.values()),
        *(lambda loss=loss: loss.bound(bad, fine) for loss in RATIO_LOSSES.values()),
        lambda: ratio.kl(bad),
        lambda: ratio.pooled_cross_entropy(bad, fine, 3, 3),
        lambda: ratio.calibration(fine, bad),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="log-ratios are floating-point numbers of at least one sample"):
            call()


def test_what_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        ratio.kl(torch.tensor([0.0, torch.nan]))
    with pytest.raises(ValueError, match="class prior"):
        ratio.prior_offset(0, 3)
    with pytest.raises(ValueError, match="at least one bin"):
        ratio.calibration(torch.zeros(2), torch.zeros(2), bins=0)
    assert ratio.kl(torch.ones(1)).standard_error == float("inf")
