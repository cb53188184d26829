from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from advgen.losses.adversarial import LOSSES
from advgen.losses.config import LossName
from tests.unit.losses.reference import REFERENCE, Scores

# Some on the wrong side of zero and some past the hinge's margins.
REAL = np.array([-1.7, -0.4, 0.3, 0.8, 1.6, 2.5, -0.2, 3.1])
FAKE = np.array([-2.2, 0.6, -0.9, 1.4, -1.3, -0.1, 0.2, -3.4])
NAMES = sorted(REFERENCE)


def both(name: str, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The discriminator's and the generator's loss."""
    loss = LOSSES[name]
    return loss.discriminator(real, fake), loss.generator(fake, real if loss.compares else None)


def slopes(loss: Callable[[Scores, Scores], float], real: Scores, fake: Scores) -> tuple[Scores, Scores]:
    """Central differences of a loss by each score."""
    step = 1e-6
    found = []
    for which in (0, 1):
        rows = []
        for i in range(len(real)):
            pairs = []
            for sign in (1, -1):
                moved = [real.copy(), fake.copy()]
                moved[which][i] += sign * step
                pairs.append(loss(moved[0], moved[1]))
            rows.append((pairs[0] - pairs[1]) / (2 * step))
        found.append(np.array(rows))
    return found[0], found[1]


def test_the_table_holds_every_name_under_its_own() -> None:
    assert tuple(LOSSES) == get_args(LossName)
    assert all(loss.name == name for name, loss in LOSSES.items())
    assert set(LOSSES) == set(REFERENCE)
    assert {name for name, loss in LOSSES.items() if loss.compares} == {"relativistic"}


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_papers(name: str) -> None:
    values = both(name, torch.from_numpy(REAL), torch.from_numpy(FAKE))
    for value, formula in zip(values, REFERENCE[name], strict=True):
        assert value.shape == () and value.dtype == torch.float64
        assert value.item() == pytest.approx(formula(REAL, FAKE), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_papers(name: str) -> None:
    for index, formula in enumerate(REFERENCE[name]):
        real, fake = (torch.from_numpy(scores).requires_grad_(True) for scores in (REAL, FAKE))
        both(name, real, fake)[index].backward()
        for scores, expected in zip((real, fake), slopes(formula, REAL, FAKE), strict=True):
            got = np.zeros(len(REAL)) if scores.grad is None else scores.grad.numpy()
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_each_player_pushes_scores_its_way(name: str) -> None:
    real, fake = (torch.from_numpy(0.2 * scores).requires_grad_(True) for scores in (REAL, FAKE))
    discriminator, generator = both(name, real, fake)
    up, down = torch.autograd.grad(discriminator, (real, fake), retain_graph=True)
    (own,) = torch.autograd.grad(generator, fake)
    if name == "lsgan":  # pulls fakes to 0 from both sides
        assert torch.equal(down.sign(), fake.sign())
    else:
        assert (down > 0).all()
    assert (up < 0).all()
    assert (own < 0).all()


def test_the_saturating_loss_saturates_and_the_other_does_not() -> None:
    steep = {}
    for name in ("saturating", "non_saturating"):
        fake = torch.tensor([-20.0], dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(LOSSES[name].generator(fake, None), fake)
        steep[name] = slope.item()
    assert steep["saturating"] == pytest.approx(-1 / (1 + np.exp(20)), rel=1e-9)
    assert steep["non_saturating"] == pytest.approx(-1, abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_widened_before_anything_is_computed(name: str) -> None:
    real, fake = (torch.from_numpy(scores).to(torch.bfloat16) for scores in (REAL, FAKE))
    for value, wide in zip(both(name, real, fake), both(name, real.double(), fake.double()), strict=True):
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(wide.item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_far_scores_leave_losses_and_gradients_finite(name: str) -> None:
    for sign in (1, -1):
        real = torch.tensor([sign * 1e4, 0.0], requires_grad=True)
        fake = torch.tensor([-sign * 1e4, 0.0], requires_grad=True)
        for value in both(name, real, fake):
            assert value.isfinite()
            slopes = torch.autograd.grad(value, (real, fake), allow_unused=True, retain_graph=True)
            assert all(slope is None or slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_patches_are_averaged_like_scores_of_images(name: str) -> None:
    real, fake = torch.from_numpy(REAL), torch.from_numpy(FAKE)
    flat = both(name, real, fake)
    patches = both(name, real.reshape(2, 1, 2, 2), fake.reshape(2, 1, 2, 2))
    assert [value.item() for value in patches] == pytest.approx([value.item() for value in flat], abs=1e-15)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("slices", [2, 4])
def test_the_mean_over_strided_slices_is_that_of_the_whole_batch(name: str, slices: int) -> None:
    real, fake = torch.from_numpy(REAL), torch.from_numpy(FAKE)
    parts = [torch.stack(both(name, real[m::slices], fake[m::slices])) for m in range(slices)]
    torch.testing.assert_close(torch.stack(parts).mean(dim=0), torch.stack(both(name, real, fake)))


def test_a_comparison_without_reals_is_refused() -> None:
    with pytest.raises(ValueError, match="needs scores at reals"):
        LOSSES["relativistic"].generator(torch.zeros(2), None)
