"""Agreement of labels against a loop over pixels, written from Long et al. 2015, section 5."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from advgen.metrics.agreement import Confusion


def _pixels(classes: int, ids: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(predicted, truth) of six pictures, right in about half the pixels; ids of the truth from -1 to ``ids``."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(-1, ids + 1, (6, 9, 7))
    guess = draw.integers(0, classes, truth.shape)
    predicted = np.where((draw.random(truth.shape) < 0.5) & (truth >= 0) & (truth < classes), truth, guess)
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def _by_loop(predicted: torch.Tensor, truth: torch.Tensor, classes: int, ignore: int | None) -> np.ndarray:
    counts = np.zeros((classes, classes))
    for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if 0 <= t < classes and t != ignore:
            counts[t, p] += 1
    return counts


@pytest.mark.parametrize("ignore", [None, 2, 4, 255])
def test_figures_equal_a_loop_over_pixels(ignore: int | None) -> None:
    predicted, truth = _pixels(5, 6)
    confusion = Confusion(5, ignore)
    confusion.add(predicted, truth)
    n = _by_loop(predicted, truth, 5, ignore)
    right = sum(n[i, i] for i in range(5))
    iou = [n[i, i] / (sum(n[i]) + sum(n[j, i] for j in range(5)) - n[i, i]) for i in range(5)]
    there = [i for i in range(5) if sum(n[i]) > 0]
    assert confusion.matrix.dtype == torch.int64 and (confusion.matrix.numpy() == n).all()
    assert confusion.count == n.sum()
    assert confusion.pixel_accuracy == pytest.approx(right / n.sum(), abs=1e-15)
    assert confusion.iou.dtype == torch.float64
    np.testing.assert_allclose(confusion.iou.numpy(), iou, atol=1e-15)
    assert len(there) == (4 if ignore in (2, 4) else 5)
    assert confusion.mean_iou == pytest.approx(np.mean([iou[i] for i in there]), abs=1e-15)


def test_a_class_that_is_nowhere_has_no_figure_and_one_only_predicted_is_left_out_of_the_mean() -> None:
    confusion = Confusion(4)
    confusion.add(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 1]))
    np.testing.assert_array_equal(confusion.iou.numpy(), [1.0, 0.5, 0.0, np.nan])
    assert confusion.mean_iou == 0.75 and confusion.pixel_accuracy == 0.75


def test_samples_are_counted_like_pixels_and_nothing_gives_no_figure() -> None:
    confusion = Confusion(3, ignore=255)
    assert math.isnan(confusion.pixel_accuracy) and math.isnan(confusion.mean_iou)
    confusion.add(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    confusion.add(torch.full((2, 2), 7), torch.full((2, 2), 255))  # what is not counted may be anything
    assert confusion.count == 0
    confusion.add(torch.tensor([2, 1]), torch.tensor([2, 2]))
    assert confusion.pixel_accuracy == 0.5


def test_the_cut_into_batches_changes_nothing() -> None:
    predicted, truth = _pixels(5, 6)
    whole, parts = Confusion(5, 4), Confusion(5, 4)
    whole.add(predicted, truth)
    for rows in (slice(3, 6), slice(0, 2), slice(2, 3)):
        parts.add(predicted[rows], truth[rows])
    assert torch.equal(parts.matrix, whole.matrix)


def test_what_does_not_fit_is_refused() -> None:
    confusion = Confusion(3)
    with pytest.raises(ValueError, match="do not fit"):
        confusion.add(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64))
    for wrong in (3, -1):
        with pytest.raises(ValueError, match="must be 0 to 2"):
            confusion.add(torch.tensor([wrong]), torch.tensor([1]))
    assert confusion.count == 0
