"""The linear probe against scipy's minimiser of the same objective, and on features whose classes are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from advgen.metrics.probe import PENALTIES, fit_probe


def blobs(count: int, spread: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes around centres of their own in four dimensions, scaled and shifted; the last one is a constant."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centres = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0]])
    x = (centres[labels] + spread * draw.normal(size=(count, 3))) * [100, 0.1, 1] + [5, -2, 0]
    return torch.from_numpy(np.column_stack((x, np.ones(count)))).float(), torch.from_numpy(labels)


def test_weights_are_the_minimum() -> None:
    features, labels = blobs(60, 1.5)
    probe = fit_probe(features, labels, 3)
    x = ((features.double() - probe.mean) / probe.deviation).numpy()
    for one in range(3):
        side = np.where(labels.numpy() == one, 1.0, -1.0)

        def objective(w: np.ndarray, side: np.ndarray = side) -> float:
            hinge = np.maximum(0, 1 - side * (x @ w[:-1] + w[-1]))
            return float((hinge**2).mean() + probe.penalty * (w[:-1] ** 2).sum())

        best = minimize(objective, np.zeros(x.shape[1] + 1), tol=1e-12)
        assert objective(probe.weight[:, one].numpy()) == pytest.approx(best.fun, rel=1e-6)


def test_classes_that_lie_apart_are_told() -> None:
    probe = fit_probe(*blobs(90, 0.3), 3)
    features, labels = blobs(300, 0.3, seed=1)
    assert torch.equal(probe.answers(features), labels)
    assert probe.penalty in PENALTIES


def test_the_penalty_is_chosen_by_what_was_left_out() -> None:
    """Fifty features of noise beside one that tells: the least penalty learns the noise by heart."""
    draw = np.random.default_rng(0)
    labels = np.arange(60) % 2
    noise = draw.normal(size=(60, 50))
    features = torch.from_numpy(np.column_stack((labels + 0.6 * draw.normal(size=60), noise)))
    assert fit_probe(features, torch.from_numpy(labels), 2).penalty > min(PENALTIES)


def test_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 features; given 3"):
        fit_probe(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), 2)
