"""The Inception Score against its definition and against sets whose score is known."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from advgen.errors import UserError
from advgen.metrics.inception_score import InceptionScore, inception_score
from advgen.seeds import key_of, permutation
from tests.unit.metrics.tallies import Pixels, bench, pixels, taken, taken_by


def by_definition(logits: np.ndarray, splits: int) -> list[float]:
    """Salimans et al. 2016, section 4: exp(E KL(p(y|x) || p(y))) of each part."""
    parts = np.split(softmax(logits, 1), [number * len(logits) // splits for number in range(1, splits)])
    return [float(np.exp(rel_entr(p, p.mean(0)).sum(1).mean())) for p in parts]


@pytest.mark.parametrize(("n", "splits"), [(50, 10), (53, 10), (20, 1)])
def test_the_score_is_that_of_the_definition(n: int, splits: int) -> None:
    logits = 2 * np.random.default_rng(0).standard_normal((n, 7))
    scores = by_definition(logits, splits)
    found = inception_score(torch.from_numpy(logits), splits)
    assert found.value == pytest.approx(np.mean(scores), rel=1e-12)
    error = np.std(scores, ddof=1) / np.sqrt(splits) if splits > 1 else None
    assert found.standard_error == (None if error is None else pytest.approx(error, rel=1e-9))


def test_sure_and_varied_is_the_number_of_classes_and_the_same_for_all_is_1() -> None:
    classes = 6
    sure = 1e4 * torch.eye(classes).repeat(10, 1)  # logits too large for float32's exp
    assert inception_score(sure).value == pytest.approx(classes, rel=1e-12)
    assert inception_score(torch.ones(60, 1) * torch.arange(6.0)).value == pytest.approx(1.0, rel=1e-12)


def test_the_measure_gives_the_same_on_any_number_of_ranks() -> None:
    fakes = pixels(45, 4, 0)
    measure = InceptionScore(bench(fakes, extractor := Pixels(4), samples=45, seed=2), cast(Any, None))
    found = taken(measure, "inception_score", fakes)
    order = permutation(key_of(2, "inception score"), 45)
    logits = extractor.logits(fakes.flatten(1).float()).double().numpy()[order]
    assert found.value == pytest.approx(np.mean(by_definition(logits, 10)), rel=1e-6)  # logits are float32
    for ranks in (1, 3, 50):
        for each in taken_by(ranks, measure, "inception_score", fakes):
            assert each.value == pytest.approx(found.value, rel=1e-6)
    assert measure.protocol("inception_score", 1)["splits"] == 10


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match="9 images cannot be split into 10"):
        InceptionScore(bench(pixels(9, 4, 0), Pixels(4), samples=9), cast(Any, None))
    measure = InceptionScore(bench(pixels(9, 4, 0), Pixels(4), samples=10), cast(Any, None))
    with pytest.raises(UserError, match="held_out_samples"):
        taken(measure, "inception_score", pixels(9, 4, 0))
